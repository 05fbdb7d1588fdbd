"""The training loop: environments in lockstep, one update an environment step, resumable at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import envs
from envs.errors import UserError
from sea_dbs import checkpoint
from sea_dbs.config import TrainConfig, differing_keys, load_config
from sea_dbs.extras import need
from sea_dbs.files import atomic_write_text, prepare_output_dir, read_json, sha256_file, write_json
from sea_dbs.manifest import machine
from sea_dbs.networks import parameter_count
from sea_dbs.redrawn import RedrawnVectorEnv
from sea_dbs.rollout import PLANT_THREADS, Env, Vector
from sea_dbs.runlog import RunLog
from sea_dbs.trainer import MakeVector, Trainer, env_sizes, metrics_lines, policy_spec

CONFIG = "config.yaml"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class TrainResult:
    """What a training run ended with."""

    run: Path
    env_steps: int
    wall_s: float  # over all processes of the run


def make_env(config: TrainConfig) -> Env:
    """One environment of a run."""
    return envs.make_env(preset=config.preset, **config.env_overrides())


def make_vector(config: TrainConfig, n: int) -> Vector:
    """``n`` environments of a run that advance together, for training: one whose plant diverges gets another."""
    return RedrawnVectorEnv(
        n,
        config.preset,
        autoreset_mode="Disabled",
        threads=PLANT_THREADS,  # eight lanes are one block of the kernel: these are for their spectra
        precision=config.plant_precision,
        **config.env_overrides(),
    )


def train(
    config: TrainConfig,
    run: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    env_factory: MakeVector = make_vector,
) -> TrainResult:
    """Train a policy into the folder ``run``, or go on with a run that was stopped at any moment.

    Args:
        config: of the run.
        run: its folder.
        resume: go on with a run that is there.
        overwrite: empty the folder first.
        quiet: no progress on stderr.
        env_factory: makes n environments as one vector environment with autoreset mode "Disabled".

    Raises:
        UserError: the folder holds something else, a run with other values, or an unreadable checkpoint; the disk is
            full; or the config does not fit the environment.
    """
    check_searched(config)
    open_run(config, run, resume=resume, overwrite=overwrite)
    deterministic_torch()
    if config.learner == "evolution":
        return _evolve(config, run, quiet)
    if config.learner != "sea-dbs":
        return _train_outsider(config, run, env_factory, quiet)
    trainer = Trainer(config, env_factory)
    if (run / checkpoint.CHECKPOINT).exists():
        state = _read_checkpoint(run, config)
        try:
            trainer.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            path = run / checkpoint.CHECKPOINT
            raise UserError(
                f"{path} does not fit the networks of {run / CONFIG}: it was changed, or written by another version"
            ) from error
    with RunLog(run, trainer.t, trainer.total_steps, quiet=quiet) as log:
        _write_manifest(run, trainer, finished=False)
        saved = trainer.t
        for transition, losses in trainer.steps():
            log.write(metrics_lines(trainer, transition, losses))
            if trainer.t // config.checkpoint_steps > saved // config.checkpoint_steps:
                _save(run, trainer, log)
                saved = trainer.t
        _save(run, trainer, log)
    _write_manifest(run, trainer, finished=True)
    return TrainResult(run, trainer.t, trainer.wall_s)


def check_searched(config: TrainConfig) -> None:
    """Raise UserError where a search would not simulate the world that the config asks for, or cannot begin.

    Its policy may be evaluated in such a world all the same, so the config itself is none that is refused.
    """
    if config.learner != "evolution":
        return
    for key, value in {"obs": "gpi", "drift": "none", "artefact": "none", "delay_steps": 0}.items():
        if (found := getattr(config, key)) != value:
            raise UserError(f"learner=evolution searches with {key}={value} alone, not with {found}")
    from sea_dbs.evolution.kernels import Candidates
    from sea_dbs.evolution.search import begin

    world = config.world()
    begin(Candidates(world.n_obs, world.slot_ms), config, world.gap_slots)


def deterministic_torch() -> None:
    """Equal seeds, equal bytes: one thread, which such small networks want anyway."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it would fill each of 400 results an update


def open_run(config: TrainConfig, run: Path, *, resume: bool, overwrite: bool) -> None:
    """Make ``run`` the folder of this config's run, or check that it is.

    Raises:
        UserError: it holds a run with other values (named), this run without ``resume``, or other files.
    """
    if resume and overwrite:
        raise UserError("--resume goes on with a run and --overwrite removes it: give one of them")
    path = run / CONFIG
    if path.exists() and not overwrite:
        if different := differing_keys(load_config(path), config):
            raise UserError(f"{run} holds a run with other values, {'; '.join(different)}: choose another --out")
        if not resume:
            raise UserError(f"{run} already holds this run: pass --resume to go on with it, or --overwrite")
    if resume and run.is_dir():
        _sweep(run)
        if not path.exists() and any(run.iterdir()):
            raise UserError(f"{run} is not empty and holds no run to go on with: choose another --out")
    prepare_output_dir(run, overwrite=overwrite, resume=resume)
    if not path.exists():
        atomic_write_text(path, config.to_yaml())


def _sweep(run: Path) -> None:
    """Remove the half-written files that a killed process left behind."""
    for leftover in run.glob(".*.tmp"):
        leftover.unlink()


def _read_checkpoint(run: Path, config: TrainConfig) -> dict[str, Any]:
    state = checkpoint.load(run / checkpoint.CHECKPOINT)
    if state.get("config_sha256") != config.sha256():
        raise UserError(f"{run / checkpoint.CHECKPOINT} belongs to a run with other values than {run / CONFIG}")
    return state


def _save(run: Path, trainer: Trainer, log: RunLog) -> None:
    """Metrics first, then the checkpoint that counts on them; the policy last, for readers of the run."""
    log.sync()
    checkpoint.save(run / checkpoint.CHECKPOINT, trainer.state_dict())
    checkpoint.save_policy(run, trainer.learner.actor, trainer.spec())


def _write_manifest(run: Path, trainer: Trainer, *, finished: bool) -> None:
    parameters = parameter_count(trainer.learner.actor)
    _manifest(run, trainer.spec(), trainer.config, trainer.total_steps, parameters, trainer.wall_s, finished)


def _manifest(
    run: Path, spec: dict[str, Any], config: TrainConfig, total: int, parameters: int, wall_s: float, finished: bool
) -> None:
    policy = run / checkpoint.POLICY
    write_json(
        run / MANIFEST,
        {
            "kind": "run",
            "variant": config.variant,
            "machine": machine(),
            "seed": config.seed,
            "config_sha256": config.sha256(),
            "policy_sha256": sha256_file(policy) if policy.exists() else None,
            "env_steps": spec["step"],
            "total_steps": total,
            "n_obs": spec["n_obs"],
            "slots": spec["slots"],
            "parameters": parameters,
            "wall_s": round(wall_s, 3),
            "finished": finished,
        },
    )


def _train_outsider(config: TrainConfig, run: Path, env_factory: MakeVector, quiet: bool) -> TrainResult:
    """Train a learner of Stable-Baselines3; one that was stopped starts from scratch, a finished one stays."""
    need("baselines", "stable_baselines3", "sb3_contrib")
    from sea_dbs.baselines.outsiders import learn

    if (run / checkpoint.POLICY).exists():  # written last
        told = read_json(run / MANIFEST)
        return TrainResult(run, told["env_steps"], told["wall_s"])
    env = env_factory(config, min(config.n_envs, config.episodes))
    n_obs, slots = env_sizes(env)
    total = config.episodes * int(config.episode_steps or 0)
    actor, done, wall_s = learn(config, env, run, total, quiet=quiet)
    wall_s = round(wall_s, 3)
    spec = policy_spec(config, n_obs, slots, done)
    _manifest(run, spec, config, total, parameter_count(actor), wall_s, finished=False)
    checkpoint.save_policy(run, actor, spec)
    _manifest(run, spec, config, total, parameter_count(actor), wall_s, finished=True)
    return TrainResult(run, done, wall_s)


def _evolve(config: TrainConfig, run: Path, quiet: bool) -> TrainResult:
    """Search with an evolution strategy, or go on with a search."""
    need("train", "cmaes", "tensorboard")
    from sea_dbs.evolution.run import evolve

    actor, done, wall_s = evolve(config, run, quiet=quiet)
    spec = policy_spec(config, int(config.n_obs or 0), int(config.slots or 0), done)
    checkpoint.save_policy(run, actor, spec)
    _manifest(run, spec, config, done, parameter_count(actor), wall_s, finished=True)
    return TrainResult(run, done, round(wall_s, 3))
