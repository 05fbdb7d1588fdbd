"""``sea-dbs bound``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs bound --rate 45.5 --plants 8 --out runs/bound-45"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(bound)


def bound(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for bound.json and bound.png.")],
    rate: Annotated[float, typer.Option("--rate", help="Most pulses a second (Hz); 45.5 is 35 % of 130 Hz.")] = 45.5,
    plants: Annotated[int, typer.Option("--plants", help="Held-out plants.")] = 8,
    seconds: Annotated[float, typer.Option("--seconds", help="Simulated on each; the first counts not.")] = 6.0,
    segment_ms: Annotated[float, typer.Option("--segment-ms", help="Time between two choices (ms).")] = 100.0,
    candidates: Annotated[int, typer.Option("--candidates", help="Pulse trains tried at each choice.")] = 64,
    beam: Annotated[int, typer.Option("--beam", help="Futures that go on after each choice.")] = 6,
    seed: Annotated[int, typer.Option("--seed", help="Of the search.")] = 0,
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="Of the plant.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """How far beta could be brought down at a pulse rate by timing alone, if the future were known.

    At each choice many pulse trains are tried on the very plant, with the inputs that it is going to get, and the best
    are kept. No controller can do that. What it finds is no proof of a limit (a longer search finds more), but a goal
    beyond it is one that no controller is known to be able to meet.
    """
    from sea_dbs.bound.run import bound as run
    from sea_dbs.bound.search import BoundPlan
    from sea_dbs.extras import need

    need("report", "matplotlib")
    plan = BoundPlan(rate, plants, seconds, segment_ms, candidates, beam, seed)
    result = run(plan, out, resume=resume, overwrite=overwrite, threads=threads)
    for name in ("regular", "best", "difference"):
        one = result[name]
        low, high = one["ci95"]
        typer.echo(f"{name}: P_beta {one['change']:+.1f} % of untreated ({low:+.1f} to {high:+.1f})")
    typer.echo(f"{result['pulse_hz']:.1f} Hz, {result['pulses_percent_of_130Hz']:.0f} % of the pulses of 130 Hz")
    typer.echo(f"written: {out}")
