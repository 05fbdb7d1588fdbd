"""What runs inside a job's process: files in, files out."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.config import EnvConfig
from sea_dbs.benchmark.jobs import Job
from sea_dbs.benchmark.store import RESULT, SERIES, Files
from sea_dbs.manifest import machine

POLICY = "policy.pt"
CURVE = ("step", "episode", "P_beta", "reward", "duty")  # of a training run, a value an environment step


def run_job(job: Job, inputs: list[Files], scratch: Path) -> Files:
    """Run a job and give its files; ``scratch`` is its own folder, kept if it is killed so that training goes on.

    Raises:
        UserError: what the job raises.
    """
    begun = time.monotonic()
    if job.kind == "train":
        result, files = _train(job, scratch)
    else:
        result, files = _play(job, inputs, scratch)
    facts = {"kind": job.kind, "name": job.name, "spec": job.spec, "code": job.code_hash, "machine": machine()}
    result = {**facts, "wall_s": round(time.monotonic() - begun, 3), **result}
    shutil.rmtree(scratch, ignore_errors=True)
    return {**files, RESULT: (json.dumps(result, indent=1, sort_keys=True) + "\n").encode()}


def _train(job: Job, scratch: Path) -> tuple[dict[str, Any], Files]:
    from sea_dbs.benchmark.world import make_training_world
    from sea_dbs.config import TrainConfig, config_from_mapping
    from sea_dbs.runlog import read_metrics
    from sea_dbs.tasks import find_task
    from sea_dbs.train import train

    config = config_from_mapping(job.spec["config"], f"the job '{job.name}'")
    world = EnvConfig.model_validate(job.spec["world"])
    people = find_task(job.spec["task"]).patients("train")

    def factory(_: TrainConfig, lanes: int) -> Any:
        return make_training_world(world, lanes, people)

    trained = train(config, scratch / "run", resume=True, quiet=True, env_factory=factory)
    lines = read_metrics(trained.run)
    curve = {key: np.array([line[key] for line in lines], np.float32) for key in CURVE}
    result = {"env_steps": trained.env_steps, "train_wall_s": round(trained.wall_s, 3)}
    return result, {POLICY: (trained.run / POLICY).read_bytes(), SERIES: _npz(curve)}


def _play(job: Job, inputs: Sequence[Files], scratch: Path) -> tuple[dict[str, Any], Files]:
    from sea_dbs.benchmark.play import play_job

    policy, thresholds = None, None
    for files in inputs:
        if POLICY in files:
            scratch.mkdir(parents=True, exist_ok=True)
            (scratch / POLICY).write_bytes(files[POLICY])
            policy = scratch
        else:
            thresholds = json.loads(files[RESULT]).get("burst_thresholds")
    result, arrays = play_job(job.spec, policy, thresholds)
    return result, {SERIES: _npz(arrays)}


def _npz(arrays: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
