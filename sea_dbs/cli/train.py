"""``sea-dbs train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs train --config configs/paper.yaml seed=3 episodes=20 gamma=0.95 --out runs/seed3"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(train)


def train(
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")],
    config: Annotated[
        str, typer.Option("--config", metavar="FILE", help="A YAML file of settings, or the name of a preset.")
    ] = "paper",
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that replace those of the file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Train a policy in simulation.

    variant=sea-dbs, gs-only, pm-only or ddpg ablates SEA-DBS; variant=recurrent gives it memory; the preset
    efficient-trains gives it whole pulse trains to choose from, efficient-memory its own last duties too. variant=ppo,
    dqn or qr-dqn trains a learner of Stable-Baselines3 on the same environments. --config timing searches when to
    pulse.
    """
    from sea_dbs.config import load_config
    from sea_dbs.extras import need

    loaded = load_config(config, settings or [])
    need("train", "torch", "tensorboard")
    from sea_dbs.train import train as run_training

    result = run_training(loaded, out, resume=resume, overwrite=overwrite)
    typer.echo(f"trained {result.env_steps} environment steps in {result.wall_s:.0f} s: {result.run}")
    typer.echo(f"next: sea-dbs evaluate {result.run} --out {result.run}-evaluation")
