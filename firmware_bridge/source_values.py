"""What every source of observations is checked for: finite values of P_beta, at the preset's rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import OBSERVATION_MAX, OBSERVATION_SCALE
from envs.config import EnvConfig
from envs.errors import UserError

UNIT = "spikes²/s²"
RATE_SHARE = 1e-3  # share by which a stated rate may differ from the preset's
Observation = NDArray[np.float32]


def check_values(values: NDArray[Any], place: str, first: int = 0) -> None:
    """Refuse what is no P_beta/1000: values that are not finite, negative or beyond the observation's bound.

    Raises:
        UserError: names the value (as P_beta) and its place: ``place`` and index from ``first``.
    """
    values = np.asarray(values, np.float64)
    wrong = np.argwhere(~(np.isfinite(values) & (values >= 0.0) & (values <= OBSERVATION_MAX)))
    if len(wrong):
        at = int(wrong[0][0])
        value = values[at] * OBSERVATION_SCALE
        top = OBSERVATION_MAX * OBSERVATION_SCALE
        raise UserError(f"{place}: sample {first + at} is {value:g}: P_beta is finite, from 0 to {top:g} {UNIT}")


def check_rate(rate_hz: float, place: str, config: EnvConfig) -> None:
    """Refuse another sampling rate than the preset's.

    Raises:
        UserError: names both.
    """
    wanted = 1000.0 / config.stride_ms
    if not (math.isfinite(rate_hz) and abs(rate_hz - wanted) <= RATE_SHARE * wanted):
        raise UserError(f"{place} has {rate_hz:g} samples a second, the preset '{config.preset}' takes {wanted:g}")
