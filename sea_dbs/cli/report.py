"""``sea-dbs report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs report out/demo"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(report)


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds runs, evaluations, exports, sessions, simulations.")
    ],
    simulate: Annotated[
        bool,
        typer.Option("--simulate/--no-simulate", help="Simulate the network (3 × 2 s) where DIR holds no simulation."),
    ] = True,
) -> None:
    """Write DIR/report.html: one self-contained page that says what happened, and its pictures beside it.

    Everything in DIR and its subfolders is found by itself. What is missing is said, with the command that makes it.
    """
    from sea_dbs.report.build import build_report

    page = build_report(folder, simulate_missing=simulate)
    typer.echo(f"open {page}")
