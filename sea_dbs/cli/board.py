"""``sea-dbs board``: start a stimulator board and keep it running."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_EXAMPLE = (
    "Example: sea-dbs board host --policy out/export; then, in another terminal: "
    "sea-dbs session --policy out/export --port PORT --steps 30 --out out/session"
)


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    board = typer.Typer(
        help="Start a stimulator board; the first line printed is its port. Research use only.",
        no_args_is_help=True,
        epilog="Example: sea-dbs board host",
    )
    board.callback()(_group)
    board.command("host", epilog=_EXAMPLE)(host)
    app.add_typer(board, name="board")


def _group() -> None:
    """Keep 'host' a subcommand, also while it is the only one."""


def host(
    policy: Annotated[
        Path | None,
        typer.Option(help="Export folder: the board is bound to this policy and lets no other host model arm it."),
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Keep real time: refuse to be stepped.")] = False,
    electrode_log: Annotated[
        Path | None,
        typer.Option(help="Append each pulse, state and lease to this file, a JSON line each, as it happens."),
    ] = None,
) -> None:
    """Run a virtual board as a process on this machine until Ctrl-C.

    The first line is the port of the link, the second the electrode channel, on which the pulses really given appear.
    The board's clock runs in real time unless a session steps it through the electrode channel.
    """
    import os

    from firmware_bridge.board import board_command

    model_hash = None if policy is None else _model_hash(policy)
    command = board_command(model_hash=model_hash, realtime=realtime, electrode_log=electrode_log)
    # The board takes this process over: its signals, its terminal and its exit code are the board's own.
    os.execv(command[0], command)


def _model_hash(policy: Path) -> bytes:
    from export.chain import Chain

    return Chain.of_folder(policy).model_hash
