"""``sea-dbs trace``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from firmware_bridge.trace import Trace

EXAMPLE = "Example: sea-dbs trace out/demo/session --export out/demo/export --run out/demo/run"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(trace)


def trace(
    session: Annotated[Path, typer.Argument(metavar="SESSION", help="Folder of a session, or its session.sqlite.")],
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="DIR", help="Export folder (without: where it stood when the session ran)."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Run folder: hash its settings and weights too.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Also make model, C source and image again, each from the link before.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the chain as JSON.")] = False,
) -> None:
    """Print the chain of hashes from training to a session, computing again what is within reach.

    training (settings, weights) -> ONNX -> quantised model -> C source -> firmware image -> the session's own rows.
    Exit code 1 where a link is broken: the first one is named. The chain finds changes; it is no signature.
    """
    import json as json_module

    from firmware_bridge.trace import trace as follow

    found = follow(session, export, run, rebuild=rebuild)
    if json:
        typer.echo(json_module.dumps(found.as_json(), indent=2, sort_keys=True))
    else:
        print_table(found)
    if found.broken is not None:
        typer.echo(found.broken, err=True)
        raise typer.Exit(1)


def print_table(found: Trace) -> None:
    """The chain as a table, and what it amounts to."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"from training to {found.recording}", title_justify="left")
    for column in ("link", "file", "SHA-256", "verdict", "why"):
        table.add_column(column, overflow="fold")
    before = ""
    for row in found.rows:
        table.add_row(row.link if row.link != before else "", row.file, row.sha256[:16], row.verdict, row.detail)
        before = row.link
    Console(width=None if Console().is_terminal else 160, markup=False).print(table)
    typer.echo(f"model hash {found.model_hash}")
    typer.echo(found.mode)
    count = sum(row.verdict == "not reachable" for row in found.rows)
    if found.broken is None:
        reach = f"; {count} of {len(found.rows)} parts are not within reach" if count else ""
        typer.echo(f"no link is broken{reach}{'' if found.closed else '; the recording was not closed'}")
