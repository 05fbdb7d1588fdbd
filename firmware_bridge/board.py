"""Start a host board (a separate process on two ptys) and find the boards that run."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from envs.errors import UserError
from firmware_bridge.images import Image, build_image
from firmware_bridge.limits import tighten
from firmware_bridge.security.keys import read_key
from sea_dbs.files import writing

START_S = 10.0  # host time within which a started board must have named its ports
EXIT_S = 3.0  # and within which it must have gone when asked


class Ports(NamedTuple):
    """Where a board is reached."""

    port: str  # the link, to be opened as a serial port
    electrode: str  # the electrode channel
    kind: str = "host"


def runtime_dir() -> Path:
    """The folder in which running boards say where they are: this user's alone.

    Raises:
        UserError: it cannot be made, or belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "sea-dbs" if base else Path(tempfile.gettempdir()) / f"sea-dbs-{os.getuid()}"
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise UserError(f"the folder {folder} belongs to another user: set XDG_RUNTIME_DIR to a folder of yours")
    return folder


def running_boards() -> list[Ports]:
    """The boards of this user that run now (host and emulated); entries of dead ones are swept away."""
    found = []
    for entry in sorted(runtime_dir().glob("board-*.json")):
        pid = int(entry.stem.removeprefix("board-"))
        try:
            os.kill(pid, 0)
            said = json.loads(entry.read_text())
            found.append(Ports(said["port"], said["electrode"], said.get("kind", "host")))
        except (OSError, ValueError, KeyError):
            entry.unlink(missing_ok=True)
    return found


def find_board(port: str) -> Ports:
    """The running host or emulated board that has this port.

    Raises:
        UserError: there is none.
    """
    real = os.path.realpath(port)
    for ports in running_boards():
        if os.path.realpath(ports.port) == real:
            return ports
    if not Path(port).exists():
        raise UserError(f"there is no port {port}: start a board with 'sea-dbs board host' and use the port it prints")
    raise UserError(f"the port {port} belongs to no running host board, so its electrode channel is not known")


def board_command(
    *,
    image: Image | None = None,
    model_hash: bytes | None = None,
    realtime: bool = False,
    electrode_log: Path | None = None,
    amplitude_limit_uA: int | None = None,
    electrode_area_cm2: float | None = None,
    v_max_mV: int | None = None,
    dose_limit_uW: int | None = None,
    toggle_limit: int | None = None,
    key_file: Path | None = None,
) -> list[str]:
    """The command that starts a host board (compiled on first use); an ``image`` with a policy is bound to its model.

    Raises:
        UserError: no compiler, a limit that would loosen a compiled one, a log that cannot be written, or no key file.
    """
    limits = tighten(
        amplitude_limit_uA, electrode_area_cm2, v_max_mV=v_max_mV, dose_uW=dose_limit_uW, toggles=toggle_limit
    )
    program = build_image("host") if image is None else image
    command = [str(program.elf), "--registry", str(runtime_dir())]
    command += ["--amplitude-limit", str(limits.amplitude_uA), "--electrode-area", str(limits.electrode_area)]
    command += ["--v-max", str(limits.v_max_mV), "--dose-limit", str(limits.dose_uW)]
    command += ["--toggle-limit", str(limits.toggles)]
    if model_hash is not None:
        if len(model_hash) != 32:
            raise UserError(f"a model hash has 32 bytes, not {len(model_hash)}")
        command += ["--model", model_hash.hex()]
    if key_file is not None:
        read_key(key_file)  # the board checks it again; here it is one sentence
        command += ["--key", str(key_file.absolute())]
    if realtime:
        command.append("--realtime")
    if electrode_log is not None:
        with writing(electrode_log):
            electrode_log.open("ab").close()
        command += ["--electrode-log", str(electrode_log)]
    return command


class HostBoard:
    """A host board for the time of a ``with`` block; it ends with the block, or with this process.

    `port` and `electrode` are the paths of its two ptys. Should this process be killed, the board first lives through
    the lease (its clock runs freely), then exits.

    Raises:
        UserError: it cannot be compiled or started.
    """

    def __init__(
        self,
        model_hash: bytes | None = None,
        realtime: bool = False,
        electrode_log: Path | None = None,
        *,
        image: Image | None = None,
        amplitude_limit_uA: int | None = None,
        electrode_area_cm2: float | None = None,
        v_max_mV: int | None = None,
        dose_limit_uW: int | None = None,
        toggle_limit: int | None = None,
        key_file: Path | None = None,
    ) -> None:
        self.kind = "host"
        self.image = build_image("host") if image is None else image
        command = board_command(
            image=self.image,
            model_hash=model_hash,
            realtime=realtime,
            electrode_log=electrode_log,
            amplitude_limit_uA=amplitude_limit_uA,
            electrode_area_cm2=electrode_area_cm2,
            v_max_mV=v_max_mV,
            dose_limit_uW=dose_limit_uW,
            toggle_limit=toggle_limit,
            key_file=key_file,
        )
        self.process = subprocess.Popen(
            [*command, "--with-parent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            self.port, self.electrode, _ = self._ports()
        except BaseException:
            self.close()
            raise

    def _ports(self) -> Ports:
        assert self.process.stdout is not None
        end = time.monotonic() + START_S
        said = b""
        while said.count(b"\n") < 2 and (left := end - time.monotonic()) > 0:
            if not select.select([self.process.stdout], [], [], left)[0]:
                break
            more = os.read(self.process.stdout.fileno(), 4096)
            if not more:
                break
            said += more
        lines = said.decode().splitlines()
        if len(lines) < 2:
            raise UserError(f"the host board did not start (exit code {self.process.poll()}): see its message above")
        return Ports(lines[0], lines[1].removeprefix("electrode "))

    @property
    def image_sha256(self) -> str:
        """What HELLO_ACK reports as its build; hex."""
        return self.image.sha256

    def __enter__(self) -> HostBoard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process and wait for it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(EXIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
