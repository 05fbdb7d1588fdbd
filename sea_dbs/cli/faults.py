"""``sea-dbs faults``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmware_bridge.faults.catalogue import Row
    from firmware_bridge.faults.run import RowResult

EXAMPLE = "Example: sea-dbs faults --board host --rows cable_pulled,replay --out out/faults"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(faults)


def faults(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of table, JSON and pictures.")
    ] = None,
    board: Annotated[str, typer.Option("--board", help="host, qemu-m4f, qemu-m7, qemu-m55.")] = "host",
    rows: Annotated[str, typer.Option("--rows", metavar="NAME,...", help="Only these rows.")] = "",
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Of each row. Default: the catalogue's own.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="As many trials as a full run takes (hours).")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random in the faults.")] = 0,
    port: Annotated[
        str | None, typer.Option("--port", help="A board that runs already; faults that need hands are asked for.")
    ] = None,
    electrode: Annotated[
        str | None, typer.Option("--electrode", help="Its electrode channel, where it is not a board of this machine.")
    ] = None,
    broken: Annotated[
        str | None,
        typer.Option("--broken", metavar="RULE", help="A test build without ramp, lease or balance: must FAIL."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Boards at a time. Default: more than one where all only wait.")
    ] = None,
    write_docs: Annotated[
        Path | None,
        typer.Option("--write-docs", metavar="DIR", help="Put these rows into faults.json and safety.md there."),
    ] = None,
    list_rows: Annotated[bool, typer.Option("--list", help="List the catalogue and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Run the fault catalogue on a board: each fault injected, each reaction judged at the electrode.

    Exit code 1 where a row is not passed. A fault that needs hands is asked for, one by one, and never assumed.
    """
    from firmware_bridge.faults.catalogue import choose

    chosen = choose([name.strip() for name in rows.split(",") if name.strip()])
    if list_rows:
        for row in chosen:
            typer.echo(f"{row.name:20} {row.fault}{' [hands]' if row.hands else ''}")
        return
    from envs.errors import UserError
    from firmware_bridge.faults.docs import PAGE, read_page
    from firmware_bridge.faults.docs import write_docs as into_docs
    from firmware_bridge.faults.run import PASS, Settings, run_rows
    from firmware_bridge.faults.tables import as_json as plain
    from firmware_bridge.faults.tables import head, markdown
    from sea_dbs.extras import need
    from sea_dbs.files import atomic_write_text, prepare_output_dir, write_json

    if broken not in (None, "ramp", "lease", "balance"):
        raise UserError(f"there is no broken build '{broken}': choose ramp, lease or balance")
    if write_docs is not None:
        read_page(write_docs / PAGE)
    if out is not None:
        need("report", "matplotlib")
        prepare_output_dir(out, overwrite=overwrite)
    settings = Settings(
        board=board,
        trials=trials,
        full=full,
        seed=seed,
        broken=broken,
        port=port,
        electrode=electrode,
        jobs=jobs,
        ask=_ask if port else None,
        say=lambda text: typer.echo(text, err=True),
    )
    results = run_rows(chosen, settings)
    said = head(settings, rows)
    table = markdown(results, said)
    if out is not None:
        atomic_write_text(out / "faults.md", table)
        write_json(out / "faults.json", plain(results, said))
        _draw(out, results)
    if write_docs is not None:
        into_docs(write_docs, results, said)
    typer.echo(json.dumps(plain(results, said), indent=2, sort_keys=True) if as_json else table)
    if not all(result.verdict == PASS for result in results):
        raise typer.Exit(1)


def _ask(row: Row) -> bool:
    typer.echo(f"\n{row.name}: {row.fault}. By hand: {row.hands['do'] if row.hands else ''}.")
    return typer.confirm("Are you at the board, and shall this be tried now?", default=False)


def _draw(out: Path, results: Sequence[RowResult]) -> None:
    from sea_dbs.files import atomic_write_bytes
    from sea_dbs.report.faults_figure import draw

    for result in results:
        if result.shown is None:
            continue
        shown = result.shown
        picture = draw(
            shown.lines,
            shown.outcome.fault_us,
            title=f"{result.row.fault} ({result.board})",
            verdict=result.verdict,
            marks=shown.outcome.marks,
            before=shown.before or "IDLE",
            shown_s=shown.outcome.shown_s,
        )
        atomic_write_bytes(out / f"{result.row.name}.png", picture)
