"""``sea-dbs simulate``: one network under a fixed condition."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(
        "simulate",
        epilog="Example: sea-dbs simulate --condition pd --stim-hz 130 --seconds 2 --seed 0 --out out/pd130",
    )(simulate)


def simulate(
    out: Annotated[Path, typer.Option(help="Folder for simulation.npz, summary.json and simulation.png.")],
    condition: Annotated[str, typer.Option(help="pd, or healthy (con).")] = "pd",
    stim_hz: Annotated[float, typer.Option(help="Rate of a regular train into the STN (Hz); 0 is none.")] = 0.0,
    seconds: Annotated[float, typer.Option(help="Simulated time (s).")] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of the network and its inputs.")] = 0,
    dt_ms: Annotated[float, typer.Option(help="Step of the integration (ms).")] = 0.02,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty a non-empty --out first.")] = False,
) -> None:
    """Simulate a network: spikes, GPi spectrum, P_beta, and a picture of them."""
    from sea_dbs.files import atomic_write_bytes, prepare_output_dir
    from sea_dbs.progress import progress
    from sea_dbs.report.plant_figure import draw
    from sea_dbs.simulate import save
    from sea_dbs.simulate import simulate as run

    done = 0.0
    result = None
    total = max(1, round(seconds)) if math.isfinite(seconds) else 1  # the simulation refuses what is no number
    with progress("simulate", total=total) as bar:
        for now, simulation in run(condition, stim_hz, seconds, seed, dt_ms):
            if done == 0.0:
                prepare_output_dir(out, overwrite=overwrite)
            bar.update(round(now) - round(done), f"{now:.1f} s simulated")
            done, result = now, simulation
    assert result is not None
    save(result, out)
    picture = draw([result])
    atomic_write_bytes(out / "simulation.png", picture)
    rates = "  ".join(f"{name} {rate:.1f}" for name, rate in result.rates_hz.items())
    typer.echo(f"P_beta {result.P_beta:.1f}   rates (Hz): {rates}")
    typer.echo(f"wrote {out}/simulation.npz, summary.json, simulation.png")
