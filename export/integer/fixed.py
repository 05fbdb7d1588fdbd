"""Fixed-point arithmetic, bit by bit what ``sea_policy.h`` does on a board. Rounding: to nearest, halves to even.

Halves to even, because ONNX Runtime rounds so and the mean of two neighbouring int8 values is a half every other time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError

Int = NDArray[np.integer[Any]]
INT32_MAX = 2**31 - 1
MAX_SHIFT = 62  # multiplier < 2^31, value <= 2^31: the product stays below 2^62


def requantise(value: Int, multiplier: Int | int, shift: Int | int) -> NDArray[np.int32]:
    """value * multiplier / 2^shift, rounded half to even, saturated to int32; ``sea_requantise`` in C.

    Args:
        value: int32, any shape.
        multiplier: 0 to 2^31 - 1, broadcast against ``value``.
        shift: 1 to 62, broadcast.
    """
    product = np.asarray(value, np.int64) * np.asarray(multiplier, np.int64)
    bits = np.asarray(shift, np.int64)
    half = np.left_shift(np.int64(1), bits - 1)
    rounded = (product + (half - 1) + ((product >> bits) & 1)) >> bits
    saturated: NDArray[np.int32] = np.clip(rounded, -INT32_MAX - 1, INT32_MAX).astype(np.int32)
    return saturated


def fixed(real: float, place: str) -> tuple[int, int]:
    """(multiplier, shift) with multiplier / 2^shift closest to ``real``, 30 significant bits where the shift allows.

    Raises:
        UserError: not a positive finite number, or 2^30 and above.
    """
    if not (math.isfinite(real) and 0.0 < real < 2.0**30):
        raise UserError(f"{place}: the scale factor is {real:g}, fixed point holds 0 (exclusive) to 2^30")
    fraction, exponent = math.frexp(real)  # real = fraction * 2^exponent, fraction 0.5 .. 1
    shift = 31 - exponent
    if shift > MAX_SHIFT:
        return round(math.ldexp(real, MAX_SHIFT)), MAX_SHIFT
    multiplier = round(math.ldexp(fraction, 31))
    if multiplier > INT32_MAX:  # rounded up to 2^31
        multiplier, shift = multiplier // 2, shift - 1
    if shift < 1:
        multiplier, shift = INT32_MAX, 1
    return multiplier, shift


def fixed_array(real: NDArray[np.float64], place: str) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """`fixed` for each value of a vector: (multipliers int32, shifts uint8)."""
    pairs = [fixed(float(value), f"{place}, channel {i}") for i, value in enumerate(real)]
    return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.uint8)
