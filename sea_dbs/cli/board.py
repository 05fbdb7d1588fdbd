"""``sea-dbs board``: start a stimulator board and keep it running."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from firmware_bridge.boards import Board

_EXAMPLE = (
    "Example: sea-dbs board {kind} --policy out/export; then, in another terminal: "
    "sea-dbs session --policy out/export --port PORT{clock} --steps 30 --out out/session"
)
_MACHINES = {
    "qemu-m4f": "Cortex-M4F (QEMU's mps2-an386)",
    "qemu-m7": "Cortex-M7 (QEMU's mps2-an500)",
    "qemu-m55": "Cortex-M55 (QEMU's mps3-an547)",
}

Policy = Annotated[
    Path | None,
    typer.Option(
        metavar="EXPORT_DIR",
        help="The board holds this export's policy, is bound to it and lets no other model arm it.",
    ),
]
Format = Annotated[str, typer.Option("--format", help="Of the policy on the board: int8, fp32 or fp16.")]
Log = Annotated[
    Path | None,
    typer.Option(help="Append each pulse, state and lease to this file, a JSON line each, as it happens."),
]
Key = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Device key (sea-dbs key new): it takes signed frames alone.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    board = typer.Typer(
        help="Start a stimulator board; the first line printed is its port. Research use only.",
        no_args_is_help=True,
        epilog="Example: sea-dbs board host",
    )
    board.command("host", epilog=_EXAMPLE.format(kind="host", clock=""))(host)
    for kind in _MACHINES:
        board.command(kind, epilog=_EXAMPLE.format(kind=kind, clock=" --realtime"), help=_emulated_help(kind))(
            _emulated(kind)
        )
    board.command("build", epilog="Example: sea-dbs board build nucleo-f446re --policy out/export --out out/nucleo")(
        build
    )
    app.add_typer(board, name="board")


def host(
    policy: Policy = None,
    format: Format = "int8",
    realtime: Annotated[bool, typer.Option("--realtime", help="Keep real time: refuse to be stepped.")] = False,
    electrode_log: Log = None,
    key: Key = None,
) -> None:
    """Run a virtual board as a process on this machine until Ctrl-C.

    The first line is the port of the link, the second the electrode channel, on which the pulses really given appear.
    The board's clock runs in real time unless a session steps it through the electrode channel.
    """
    import os

    from firmware_bridge.board import board_command
    from firmware_bridge.images import build_image

    model_hash = None if policy is None else _model_hash(policy)
    holds_it = policy is not None and (policy / "c").is_dir()
    command = board_command(
        image=build_image("host", policy if holds_it else None, format),
        model_hash=model_hash,
        realtime=realtime,
        electrode_log=electrode_log,
        key_file=key,
    )
    # The board takes this process over: its signals, its terminal and its exit code are the board's own.
    os.execv(command[0], command)


def build(
    board: Annotated[str, typer.Argument(metavar="BOARD", help="host, qemu-m4f, qemu-m7, qemu-m55 or nucleo-f446re.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for sea-board.elf, sea-board.bin, image.json.")
    ],
    policy: Policy = None,
    format: Format = "int8",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Compile a board's firmware: the image to flash, its hash, and what it takes of flash and RAM."""
    from firmware_bridge.images import build_image
    from sea_dbs.files import prepare_output_dir

    image = build_image(board, policy, format)
    build_image(board, policy, format, prepare_output_dir(out, overwrite=overwrite))
    typer.echo(
        f"{out / image.bin.name}: {image.flash_bytes} bytes of flash, {image.ram_bytes} of RAM without the stack"
    )
    if image.format is not None:
        typer.echo(f"of these the {image.format} policy: {image.policy_flash_bytes} and {image.policy_ram_bytes}")
    typer.echo(f"image {image.sha256}, bound to model {image.model_hash or 'none'}")


def _emulated_help(kind: str) -> str:
    return (
        f"Run the firmware on an emulated {_MACHINES[kind]} until Ctrl-C. It is compiled first; it always keeps real "
        "time. The first line is the port of the link, the second the electrode channel."
    )


def _emulated(kind: str) -> Callable[..., None]:
    def run(
        policy: Policy = None,
        format: Format = "int8",
        realtime: Annotated[bool, typer.Option("--realtime", help="Always so on an emulated board.")] = True,
        electrode_log: Log = None,
        steady: Annotated[
            bool,
            typer.Option(
                "--steady",
                help="Count device time in instructions: exact pulses, slower link, a busy core of this machine.",
            ),
        ] = False,
        key: Key = None,
    ) -> None:
        del realtime
        from firmware_bridge.boards import start_board

        board = start_board(
            kind, policy_dir=policy, format=format, electrode_log=electrode_log, steady=steady, key_file=key
        )
        _keep(board)

    return run


def _keep(board: Board) -> None:
    """Print where the board is, and keep it until a signal or its own end."""
    import signal

    from envs.errors import UserError
    from firmware_bridge.qemu import QemuBoard

    assert isinstance(board, QemuBoard)
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    with board:
        try:
            for number in ends:
                signal.signal(number, _end)
            typer.echo(f"{board.port}\nelectrode {board.electrode}")
            assert board.process is not None
            code = board.process.wait()
        except KeyboardInterrupt:
            return
    raise UserError(f"the emulator of {board.kind} ended by itself (exit code {code})")


def _end(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _model_hash(policy: Path) -> bytes:
    from export.chain import Chain

    return Chain.of_folder(policy).model_hash
