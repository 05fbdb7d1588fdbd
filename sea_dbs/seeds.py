"""Which plant seed is used for what. Training, search and held-out plants never meet."""

from __future__ import annotations

import numpy as np

from envs.errors import UserError

HELD_OUT = 500_000  # evaluation plants: HELD_OUT + k
SEARCH = 600_000  # plants on which a baseline's rate, or a setting of ours, is chosen
BLOCK = 10_000  # size of a block of seeds, and the largest number of episodes of a run
TRAINING = 1_000_000  # TRAINING + run seed · BLOCK + episode


def training_seed(run_seed: int, episode: int) -> int:
    """Plant seed of one training episode; no two runs or episodes share one."""
    if not 0 <= episode < BLOCK:
        raise UserError(f"episode {episode} was asked for: a run has episodes 0 to {BLOCK - 1}")
    return TRAINING + run_seed * BLOCK + episode


def held_out_seeds(n: int) -> list[int]:
    """The first ``n`` evaluation plants; every controller meets the same ones.

    Raises:
        UserError: ``n`` below 1 or above 10,000.
    """
    if not 1 <= n <= BLOCK:
        raise UserError(f"{n} evaluation seeds were asked for: from 1 to {BLOCK} are allowed")
    return [HELD_OUT + k for k in range(n)]


def search_seeds(n: int) -> list[int]:
    """The first ``n`` plants for choosing a baseline's parameters."""
    return [SEARCH + k for k in range(n)]


def stream(run_seed: int, purpose: str) -> int:
    """Seed of one of a run's own generators, such as ``exploration``: independent of the others'."""
    words = np.random.SeedSequence([run_seed, *purpose.encode()]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1
