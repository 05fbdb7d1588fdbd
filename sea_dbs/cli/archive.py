"""``sea-dbs archive``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs archive runs/session --out runs/session.nwb"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(archive)


def archive(
    session: Annotated[Path, typer.Argument(metavar="SESSION", help="Folder of a session, or its session.sqlite.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.nwb", help="The archive.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the archive if there is one.")] = False,
) -> None:
    """Write a recorded session as NWB, to be shared and read with pynwb (docs/recording.md)."""
    from firmware_bridge.archive import archive_session

    rows = archive_session(session, out, overwrite=overwrite)
    typer.echo(f"{rows['decisions']} decisions, {rows['pulses']} pulses, {rows['events']} events: written to {out}")
