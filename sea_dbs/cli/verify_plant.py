"""``sea-dbs verify-plant``: reference runs spike for spike, and float32 against float64 by their statistics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from envs.equivalence import Measures, Row

SEEDS, SECONDS, PLANT_CHANGE = 40, 10.0, 5.0  # of --statistics


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(
        "verify-plant",
        epilog="Examples: sea-dbs verify-plant tests/golden --json; "
        "sea-dbs verify-plant --statistics --out out/equivalence",
    )(verify_plant)


def verify_plant(
    oracle_dir: Annotated[
        Path | None, typer.Argument(metavar="ORACLE_DIR", help="Folder with oracle files (*.npz).")
    ] = None,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Compare the statistics of float32 and float64 on paired seeds.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Networks of each condition (--statistics).")] = SEEDS,
    seconds: Annotated[float, typer.Option(help="Counted time of each run in s (--statistics).")] = SECONDS,
    plant_change: Annotated[
        float,
        typer.Option(help="Error in percent of g(GPe->GPe) that the statistics must find; 0 leaves this out."),
    ] = PLANT_CHANGE,
    threads: Annotated[int, typer.Option(help="Blocks of 8 networks at a time (--statistics).")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder for equivalence.json and equivalence.png (--statistics).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty a non-empty --out first.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Compare the plant with reference runs (spikes, voltages, P_beta), or float32 with float64 (their statistics).

    Exit code 1 if a run differs, if a statistic is not equivalent, or if the planted error is not found.
    """
    from envs.errors import UserError

    if oracle_dir is None and not statistics:
        raise UserError("nothing to verify: give a folder with oracle files, or --statistics")
    if json and statistics and oracle_dir is not None:
        raise UserError("--json prints one result: give ORACLE_DIR or --statistics, not both")
    if out is not None and not statistics:
        raise UserError("--out holds the figure of --statistics: give both")
    good = True
    if oracle_dir is not None:
        good = _verify_files(oracle_dir, json)
    if statistics:
        good = _verify_statistics(seeds, seconds, plant_change / 100.0, threads, out, overwrite, json) and good
    if not good:
        raise typer.Exit(1)


def _verify_files(oracle_dir: Path, as_json: bool) -> bool:
    import json

    from envs.plant.kernels import KERNELS
    from envs.verify import oracle_files, verify
    from sea_dbs.progress import progress

    files = oracle_files(oracle_dir)
    rows = []
    with progress("verify-plant", total=len(files) * len(KERNELS)) as bar:
        for row in verify(files):
            rows.append(row)
            bar.update(1, f"{row.file} {row.kernel}")
            if not as_json:
                verdict = "equal" if row.equal else f"DIFFERS ({row.first_difference})"
                numbers = f"|ΔV| ≤ {row.max_dv_mV:.1e} mV   P_beta within {row.beta_relative:.1e}"
                typer.echo(f"{row.file:22} {row.kernel:9} {numbers}   {verdict}")
    equal = sum(row.equal for row in rows)
    if as_json:
        result = {"equal": equal, "comparisons": len(rows), "rows": [row.to_dict() for row in rows]}
        typer.echo(json.dumps(result, indent=2))
    else:
        typer.echo(f"{equal} of {len(rows)} equal")
    return equal == len(rows)


def _verify_statistics(
    seeds: int, seconds: float, change: float, threads: int, out: Path | None, overwrite: bool, as_json: bool
) -> bool:
    import json

    from envs.equivalence import compare
    from envs.errors import UserError
    from sea_dbs.files import prepare_output_dir
    from sea_dbs.progress import progress

    if not (seeds >= 2 and 1 <= threads <= 64 and abs(change) <= 0.5):
        raise UserError("allowed are --seeds from 2, --threads 1 to 64 and --plant-change -50 to 50")
    if out is not None:
        prepare_output_dir(out, overwrite=overwrite)
    variants = {"float64": ("float64", 0.0), "float32": ("float32", 0.0), "planted": ("float32", change)}
    if not change:
        del variants["planted"]
    found = {}
    with progress("verify-plant --statistics", total=5 * len(variants) * seeds) as bar:
        for name, (precision, planted) in variants.items():
            found[name] = _simulated(precision, planted, seeds, seconds, threads, bar, name)
    rows = compare(found["float64"], found["float32"])
    missed = [row for row in rows if not row.equivalent]
    control = compare(found["float64"], found["planted"]) if change else []
    caught = [row for row in control if not row.equivalent]
    result = {
        "kind": "equivalence",
        "seeds": seeds,
        "seconds": seconds,
        "plant_change": change,
        "equivalent": not missed,
        "planted_change_found": bool(caught) if change else None,
        "rows": [row.to_dict() for row in rows],
        "planted_rows": [row.to_dict() for row in control],
    }
    if out is not None:
        _write(out, rows, control, change, result)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        _say(rows, missed, caught, change, out)
    return not missed and bool(caught or not change)


def _simulated(
    precision: str, change: float, seeds: int, seconds: float, threads: int, bar: Any, name: str
) -> dict[str, list[Measures]]:
    from envs.equivalence import CONDITIONS, FIRST_SEED, simulate

    found: dict[str, list[Measures]] = {}
    for condition in CONDITIONS:
        found[condition] = []
        each = range(FIRST_SEED, FIRST_SEED + seeds)
        for group in simulate(condition, each, seconds, precision, change=change, threads=threads):
            found[condition] += group
            bar.update(len(group), f"{name} {condition}")
    return found


def _write(out: Path, rows: list[Row], control: list[Row], change: float, result: dict[str, Any]) -> None:
    from sea_dbs.files import atomic_write_bytes, write_json
    from sea_dbs.report.equivalence_figure import draw

    write_json(out / "equivalence.json", result)
    picture = draw(rows, control, change)
    atomic_write_bytes(out / "equivalence.png", picture)


def _say(rows: list[Row], missed: list[Row], caught: list[Row], change: float, out: Path | None) -> None:
    def reach(row: Row) -> float:
        return max(abs(row.low), abs(row.high)) / row.margin

    nearest = max(rows, key=reach)
    for row in missed:
        typer.echo(f"NOT EQUIVALENT: {_line(row)}")
    typer.echo(f"float32 against float64: {len(rows) - len(missed)} of {len(rows)} equivalent")
    typer.echo(f"nearest to its margin: {_line(nearest)}")
    if change:
        words = (
            f"found by {len(caught)} rows, most by {_line(max(caught, key=reach))}"
            if caught
            else "NOT FOUND: this test is blind"
        )
        typer.echo(f"planted error of {100 * change:+g} % in g(GPe->GPe): {words}")
    if out is not None:
        typer.echo(f"wrote {out}/equivalence.json, equivalence.png")


def _line(row: Row) -> str:
    return (
        f"{row.condition} {row.measure}: {row.difference:+.4g} ({row.low:+.4g} to {row.high:+.4g}), "
        f"margin ±{row.margin:.4g}"
    )
