"""A controller on many plants in lockstep, by the one rollout loop; all plants advance together where they can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sea_dbs.config import TrainConfig
from sea_dbs.controllers import Controller
from sea_dbs.rollout import PLANT_THREADS, Env, Start, Transition, begin, check_action, rollout
from sea_dbs.train import make_env

EnvFactory = Callable[[TrainConfig], Env]


def lockstep(
    config: TrainConfig, controller: Controller, seeds: Sequence[int], steps: int, env_factory: EnvFactory = make_env
) -> Iterator[Start | Transition]:
    """First where the plants stand, then up to ``steps`` transitions of all of them; the controller starts afresh.

    The real environment runs as one vector environment (float64: spike for spike the single one), any other
    ``env_factory`` as single environments.

    Raises:
        UserError: what the environments or the controller raise.
    """
    controller.init_state(len(seeds))
    if env_factory is not make_env:
        single = [env_factory(config) for _ in seeds]
        start = begin(single, seeds)
        yield start
        yield from rollout(single, controller, steps, start=start)
        return
    from envs.vector import BasalGangliaVectorEnv

    envs = BasalGangliaVectorEnv(len(seeds), config.preset, threads=PLANT_THREADS, **config.env_overrides())
    observation, infos = envs.reset(seed=list(seeds))
    yield Start(observation, tuple({"P_beta": float(value)} for value in infos["P_beta"]))
    lanes = [envs.lane(i) for i in range(len(seeds))]
    for step in range(1, steps + 1):
        action = check_action(controller.act(observation), controller.name, lanes)
        following, reward, _, truncated, infos = envs.step(action)
        kept = ("P_beta", "pulses", "duty", "charge_nC_cm2")
        each = tuple({key: infos[key][i].item() for key in kept} for i in range(len(seeds)))
        yield Transition(step, observation, action, reward.astype(np.float32), following, truncated, each)
        if truncated.all():
            return
        observation = following
