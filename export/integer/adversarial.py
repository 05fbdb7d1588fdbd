"""Observations that a sensor would hardly give, made to find where two implementations part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError

Rows = NDArray[np.int64]
LOW, HIGH = -128, 127


def adversarial(n: int, n_obs: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """(n, n_obs) int8, the families below in turn, so that any prefix holds all of them.

    Raises:
        UserError: n or n_obs below 1.
    """
    if n < 1 or n_obs < 1:
        raise UserError(f"{n} observations of {n_obs} values: at least 1 of each is needed")
    families: tuple[Callable[[int, int, np.random.Generator], Rows], ...] = (
        _noise, _extremes, _constant, _alternating, _steps, _ramp, _impulse, _halves, _nearly_constant,
    )  # fmt: skip
    out = np.empty((n, n_obs), np.int64)
    for k, family in enumerate(families):
        rows = len(range(k, n, len(families)))
        if rows:
            out[k :: len(families)] = family(rows, n_obs, rng)
    return np.clip(out, LOW, HIGH).astype(np.int8)


def _noise(n: int, width: int, rng: np.random.Generator) -> Rows:
    """Every value anywhere."""
    return rng.integers(LOW, HIGH, (n, width), endpoint=True)


def _extremes(n: int, width: int, rng: np.random.Generator) -> Rows:
    """Every value at one end: the largest sums of either sign."""
    return np.where(rng.random((n, width)) < rng.random((n, 1)), LOW, HIGH)


def _constant(n: int, width: int, rng: np.random.Generator) -> Rows:
    """One value throughout: a flat or railed sensor."""
    return np.broadcast_to((np.arange(n) + rng.integers(256)) % 256 + LOW, (width, n)).T


def _alternating(n: int, width: int, rng: np.random.Generator) -> Rows:
    """Two values in turn, one to eight of each."""
    period = rng.integers(1, 8, (n, 1), endpoint=True)
    pair = rng.integers(LOW, HIGH, (n, 2), endpoint=True)
    return np.where((np.arange(width) // period) % 2 == 0, pair[:, :1], pair[:, 1:])


def _steps(n: int, width: int, rng: np.random.Generator) -> Rows:
    """From one end to the other at some place."""
    later = np.arange(width) >= rng.integers(0, width, (n, 1), endpoint=True)
    up = rng.random((n, 1)) < 0.5
    return np.where(later == up, HIGH, LOW)


def _ramp(n: int, width: int, rng: np.random.Generator) -> Rows:
    """Straight lines between any two values."""
    ends = rng.integers(LOW, HIGH, (n, 2), endpoint=True)
    part = np.linspace(0.0, 1.0, width) if width > 1 else np.zeros(1)
    return np.rint(ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * part).astype(np.int64)


def _impulse(n: int, width: int, rng: np.random.Generator) -> Rows:
    """One end throughout, and a single value at the other."""
    base = np.where(rng.random(n) < 0.5, LOW, HIGH)
    out = np.repeat(base[:, None], width, axis=1)
    out[np.arange(n), rng.integers(0, width, n)] = -1 - base  # LOW and HIGH sum to -1
    return out


def _halves(n: int, width: int, rng: np.random.Generator) -> Rows:
    """Neighbours one step apart: means that lie on the tie between two steps."""
    return rng.integers(LOW, HIGH, (n, 1), endpoint=True) + (np.arange(width) + rng.integers(2, size=(n, 1))) % 2


def _nearly_constant(n: int, width: int, rng: np.random.Generator) -> Rows:
    """One value, off by one step here and there."""
    return rng.integers(LOW, HIGH, (n, 1), endpoint=True) + (rng.random((n, width)) < 0.1)
