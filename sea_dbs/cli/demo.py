"""``sea-dbs demo``: the whole way, from plant to pulse, in one command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs demo --out out/demo"

CONDITIONS = (("healthy", 0.0), ("pd", 0.0), ("pd", 130.0))  # what the report's raster and spectra show
PLANT_SECONDS = 3.0  # s simulated of each
EVALUATION_SEEDS = 8  # held-out plants
EVALUATION_STEPS = 12  # decisions (s) on each
SESSION_STEPS = 30  # decisions (s), an episode of the paper
SESSION_SEED = 7  # of the plant in the session; training and evaluation use other blocks of seeds


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("demo", epilog=EXAMPLE)(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of everything that is made.")],
    config: Annotated[str, typer.Option("--config", metavar="FILE", help="Training settings.")] = "demo",
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that replace those of the file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped demo left off.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Train a policy on the plant, evaluate and export it, close the loop on a virtual board, and report.

    Each part is one of the other commands, with its own folder under --out. Research use only, not for human use.
    """
    from sea_dbs.config import load_config
    from sea_dbs.extras import need
    from sea_dbs.files import prepare_output_dir

    loaded = load_config(config, settings or [])
    need("train", "torch", "tensorboard")
    need("export", "onnx", "onnxruntime", "onnxscript")
    need("report", "matplotlib", "jinja2")
    prepare_output_dir(out, overwrite=overwrite, resume=resume)

    _stage(1, "plant: healthy, parkinsonian, 130 Hz", out / "plant", "simulation.png", lambda: _plant(out / "plant"))
    from sea_dbs.train import train

    typer.echo("\n== 2/6 training")
    train(loaded, out / "run", resume=(out / "run").exists())
    from sea_dbs.evaluate import EVALUATION

    _stage(3, "evaluation on held-out plants", out / "evaluation", EVALUATION, lambda: _evaluate(out))
    _stage(4, "export to ONNX, parity with torch", out / "export", "manifest.json", lambda: _export(out))
    _stage(5, "closed loop on a virtual board", out / "session", "summary.json", lambda: _session(out))
    typer.echo("\n== 6/6 report")
    _report(out)


def _stage(number: int, title: str, folder: Path, done: str, work: Callable[[], None]) -> None:
    """Run a part, unless a resumed demo finds its result; a half-finished one is made anew."""
    if (folder / done).exists():
        typer.echo(f"\n== {number}/6 {title}: there already")
        return
    typer.echo(f"\n== {number}/6 {title}")
    work()


def _plant(out: Path) -> None:
    from sea_dbs.files import atomic_write_bytes
    from sea_dbs.progress import progress
    from sea_dbs.report.plant_figure import draw
    from sea_dbs.simulate import Simulation, save, simulate

    simulations: list[Simulation] = []
    with progress("simulate", total=len(CONDITIONS)) as bar:
        for condition, stim_hz in CONDITIONS:
            *_, (_, simulation) = simulate(condition, stim_hz, PLANT_SECONDS, seed=0)
            assert simulation is not None
            save(simulation, out / f"{condition}-{stim_hz:g}Hz")
            simulations.append(simulation)
            bar.update(1, f"{condition} {stim_hz:g} Hz: P_beta {simulation.P_beta:.0f}")
    picture = draw(simulations)
    atomic_write_bytes(out / "simulation.png", picture)


def _evaluate(out: Path) -> None:
    from sea_dbs.cli.evaluate import print_table
    from sea_dbs.evaluate import evaluate
    from sea_dbs.evaluation_plan import Plan

    plan = Plan(seeds=EVALUATION_SEEDS, steps=EVALUATION_STEPS)
    print_table(evaluate(out / "run", out / "evaluation", plan, resume=True)["rows"])


def _export(out: Path) -> None:
    from export.run import export_run

    export_run(out / "run", out / "export", overwrite=True, targets=("c",))


def _session(out: Path) -> None:
    from firmware_bridge.plan import SessionPlan
    from firmware_bridge.session import run_session

    plan = SessionPlan(
        out=out / "session", policy=out / "export", steps=SESSION_STEPS, seed=SESSION_SEED, overwrite=True
    )
    run_session(plan)


def _report(out: Path) -> None:
    from sea_dbs.report.build import build_report

    page = build_report(out)
    typer.echo(f"open {page}")
