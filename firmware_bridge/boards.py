"""Every board that this machine can start by itself, behind one function."""

from __future__ import annotations

from pathlib import Path

from envs.errors import UserError
from firmware_bridge.board import HostBoard
from firmware_bridge.images import FixedSetting, build_image
from firmware_bridge.qemu import QemuBoard
from firmware_bridge.targets import TARGETS

BOARDS = tuple(name for name, target in TARGETS.items() if target.is_host or target.machine)

Board = HostBoard | QemuBoard


def start_board(
    kind: str,
    *,
    policy_dir: Path | None = None,
    format: str = "int8",
    model_hash: bytes | None = None,
    realtime: bool = False,
    electrode_log: Path | None = None,
    steady: bool = False,
    test_build: bool = False,
    broken: str | None = None,
    fallback: FixedSetting | None = None,
    key_file: Path | None = None,
    unchecked_source_for_tests: bool = False,
) -> Board:
    """Compile (cached) and start a board, to be used in a ``with`` block: ``.port``, ``.electrode``, ``.kind``,
    ``.image_sha256``.

    With ``policy_dir`` the board holds that export's policy in the given format, is bound to its model hash and can
    decide. ``model_hash`` alone binds a host board to a policy that the host runs. An emulated board always keeps real
    time; it has a monitor (`QemuBoard.qmp`); with ``steady`` its time is counted in instructions. ``broken``,
    ``fallback`` and ``unchecked_source_for_tests`` are those of `build_image`. A board that holds a device key
    (``key_file``) takes signed frames alone.

    Raises:
        UserError: an unknown board, a missing tool, a policy that does not fit or is not there, or no start.
    """
    if kind not in BOARDS:
        raise UserError(f"there is no board '{kind}': choose one of {', '.join(BOARDS)}")
    if kind != "host" and model_hash is not None and policy_dir is None:
        raise UserError(f"{kind} is bound to a model by its image: give it the export folder (--policy)")
    image = build_image(
        kind,
        policy_dir,
        format,
        test_build=test_build,
        steady=steady and kind != "host",
        broken=broken,
        fallback=fallback,
        unchecked_source_for_tests=unchecked_source_for_tests,
    )
    if kind == "host":
        return HostBoard(model_hash, realtime, electrode_log, image=image, key_file=key_file)
    return QemuBoard(image, electrode_log=electrode_log, key_file=key_file)
