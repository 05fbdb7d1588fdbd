"""``sea-dbs doctor``: is everything here, and if not, what to do."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("doctor", epilog="Example: sea-dbs doctor")(doctor)


def doctor() -> None:
    """Check Python, packages, compiler, pseudo-terminals, serial rights, disk. Exit code 1 if something needed is
    missing."""
    from sea_dbs.doctor import examine

    missing = 0
    for finding in examine():
        mark = "ok  " if finding.good else ("MISS" if finding.needed else "note")
        typer.echo(f"{mark} {finding.what:18} {finding.found}")
        if not finding.good:
            typer.echo(f"     {finding.advice}")
            missing += finding.needed
    if missing:
        typer.echo(f"{missing} needed part{'s are' if missing > 1 else ' is'} missing")
        raise typer.Exit(1)
    typer.echo("all that is needed is here")
