"""Many real observations for a policy: 32 plants at once, stimulated in four ways."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export.manifest import Manifest
from sea_dbs.controllers import Controller
from sea_dbs.progress import progress
from sea_dbs.seeds import SEARCH

LANES = 32
QUARTER = LANES // 4
FIRST_SEED = SEARCH + 1000  # plants that neither calibration nor the export's own parity has met
REDRAW = 5  # decisions between two draws of a random lane's duty
THREADS = 2


def real_observations(
    manifest: Manifest, policy: Controller, n: int, *, seed: int = 0, quiet: bool = False
) -> NDArray[np.float32]:
    """(n, n_obs) float32 of P_beta/1000 from the policy's own environment (float32 plant), in the order of time.

    Of 32 plants, eight are never stimulated, eight always, eight at random with a duty that changes, and eight by the
    policy.

    Raises:
        UserError: n below 1, or an environment that the manifest describes wrongly.
    """
    if n < 1:
        raise UserError(f"{n} observations were asked for: at least 1 is needed")
    from envs.vector import BasalGangliaVectorEnv

    steps = math.ceil(n / LANES)
    settings = {**manifest.environment, "precision": "float32", "kernel": "fast", "episode_steps": 10_000}
    envs = BasalGangliaVectorEnv(LANES, manifest.preset, threads=THREADS, **settings)
    rng = np.random.default_rng(seed)
    policy.init_state(QUARTER)
    first = FIRST_SEED + seed * LANES
    observation, _ = envs.reset(seed=list(range(first, first + LANES)))
    seen: list[NDArray[np.float32]] = []
    duty = rng.random(QUARTER)
    with progress("real observations", n, quiet=quiet) as bar:
        for step in range(steps):
            seen.append(observation.copy())
            bar.update(min(LANES, n - step * LANES))
            if step % REDRAW == 0:
                duty = rng.random(QUARTER)
            action = np.zeros((LANES, manifest.slots), np.int8)
            action[QUARTER : 2 * QUARTER] = 1
            action[2 * QUARTER : 3 * QUARTER] = rng.random((QUARTER, manifest.slots)) < duty[:, None]
            action[3 * QUARTER :] = policy.act(observation[3 * QUARTER :])
            if step + 1 < steps:
                observation = envs.step(action)[0]
    return np.concatenate(seen)[:n]
