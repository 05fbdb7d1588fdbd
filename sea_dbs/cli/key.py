"""``sea-dbs key``: the device keys that a board and its host share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BOARD = "nucleo-f446re"
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
    key.command("program", epilog="Example: sea-dbs key program clinic.key --out key-section.hex")(program)
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


def program(
    file: Annotated[Path, typer.Argument(help="A key file, for this board alone.")],
    out: Annotated[Path, typer.Option(help="A new Intel HEX file with 0600 rights: it holds the key.")],
    board: Annotated[str, typer.Option(help="A board with a key section in its flash: nucleo-f446re.")] = BOARD,
) -> None:
    """Write what puts a key into a real board's flash, and print the steps. The steps were NOT run on the device.

    Nothing is programmed here. Each file has start numbers of its own, so that no nonce ever comes twice.
    """
    from envs.errors import UserError
    from firmware_bridge.security.keys import read_key, write_private
    from firmware_bridge.security.provision import count_boots, intel_hex, section
    from firmware_bridge.targets import FLASH_STARTS, find_target

    if board not in FLASH_STARTS:
        raise UserError(
            f"'{board}' has no key section in a flash: choose {', '.join(FLASH_STARTS)} (host and emulated boards take "
            "--key FILE when they start)"
        )
    key, starts = read_key(file), FLASH_STARTS[board]
    if out.exists():
        raise UserError(f"{out} is there already: a key is never overwritten, choose another name")
    data = section(key, count_boots(file, starts), starts)
    write_private(out, intel_hex(data, find_target(board).key_address))
    typer.echo(f"{out}: key {key.fingerprint} for {board}, {starts} starts. NOT tried on the device. Now, once:")
    for step in (
        f"st-flash --format ihex write {out}",
        f'or: openocd -f board/st_nucleo_f4.cfg -c "program {out} verify reset exit"',
        f"shred -u {out}",
    ):
        typer.echo(f"  {step}")
    typer.echo("The sector is erased by that, the count of starts with it: never program the same file twice.")
