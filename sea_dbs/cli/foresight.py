"""``sea-dbs foresight``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs foresight --rate 45.5 --plants 8 --out runs/foresight-45"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(foresight)


def foresight(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for foresight.json and foresight.png.")],
    rate: Annotated[
        float,
        typer.Option("--rate", help="Most pulses a second since the start (2 to 130 Hz); 45.5 is 35 % of 130 Hz."),
    ] = 45.5,
    plants: Annotated[int, typer.Option("--plants", help="Held-out plants, 2 or more.")] = 8,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Simulated on each plant (3 to 600 s); the first second is not counted.")
    ] = 6.0,
    segment_ms: Annotated[
        float, typer.Option("--segment-ms", help="Time between two choices (20 to 1000 ms).")
    ] = 100.0,
    candidates: Annotated[int, typer.Option("--candidates", help="Pulse trains tried at each choice, 2 to 4096.")] = 64,
    beam: Annotated[int, typer.Option("--beam", help="Futures that go on after each choice.")] = 6,
    seed: Annotated[int, typer.Option("--seed", help="Of the chance in the trains that are tried.")] = 0,
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="Processors to simulate on.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """How much lower than under a regular train beta gets if pulses are timed with the future known.

    At each choice many pulse trains are tried on the very plant, with the inputs that it is going to get, and the best
    go on. No controller knows as much. The search is greedy and is no bound: other timing or a longer search can bring
    beta lower. Simulated in float32.
    """
    from sea_dbs.extras import need
    from sea_dbs.foresight.run import foresight as run
    from sea_dbs.foresight.search import ForesightPlan

    need("report", "matplotlib")
    plan = ForesightPlan(rate, plants, seconds, segment_ms, candidates, beam, seed)
    result = run(plan, out, resume=resume, overwrite=overwrite, threads=threads)
    for name, words in (("regular", "regular train"), ("best", "with foresight"), ("difference", "difference")):
        one = result[name]
        low, high = one["ci95"]
        pulses = f", {one['pulse_hz']:.1f} pulses a second" if "pulse_hz" in one else ""
        typer.echo(f"{words}: P_beta {one['change']:+.1f} % of untreated ({low:+.1f} to {high:+.1f}){pulses}")
    typer.echo(f"written: {out}")
