"""``sea-dbs key``: the device keys that a board and its host share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_EXAMPLE = "Example: sea-dbs key new --out clinic.key"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    key = typer.Typer(
        help="Device keys: who holds one may command the boards that hold it too.",
        no_args_is_help=True,
        epilog=_EXAMPLE,
    )
    key.command("new", epilog=_EXAMPLE)(new)
    key.command("show", epilog="Example: sea-dbs key show clinic.key")(show)
    app.add_typer(key, name="key")


def new(out: Annotated[Path, typer.Option(help="A new file; one that is there is never overwritten.")]) -> None:
    """Make a device key: 32 random bytes in a file that you alone can read (0600).

    Its fingerprint is printed, the key never is. Keep a copy where the file is safe: a lost key cannot be computed.
    """
    from firmware_bridge.security.keys import new_key

    typer.echo(f"{out}: new device key, fingerprint {new_key(out).fingerprint}")


def show(file: Annotated[Path, typer.Argument(help="A key file.")]) -> None:
    """Print a key's fingerprint, so that two ends can be compared; fails if others can read the file."""
    from firmware_bridge.security.keys import read_key

    typer.echo(read_key(file).fingerprint)
