"""Sigmoid and tanh for a GRU cell in fixed point: 513 points each, straight lines between them.

Argument Q16 (1.0 = 65536), result Q15. The error against the exact functions, over all arguments, is at most 7e-5 for
the sigmoid (points 1/16 apart, clamped at ±16) and 1.3e-4 for tanh (1/32 apart, clamped at ±8): measured by
tests/test_integer_gru.py over every argument. A result of 1 is 32767/32768.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
from numpy.typing import NDArray

POINTS = 513
ONE = 32768  # Q15
SIGMOID_STEP_BITS = 12  # 2^12 of Q16: 1/16
TANH_STEP_BITS = 11  # 1/32
HALF = POINTS // 2


@cache
def sigmoid_table() -> NDArray[np.int16]:
    """1/(1 + exp(-x)) in Q15 at x = -16, -15.9375, …, 16."""
    return _table(lambda x: 1 / (1 + (-x).exp()), SIGMOID_STEP_BITS)


@cache
def tanh_table() -> NDArray[np.int16]:
    """tanh(x) in Q15 at x = -8, -7.96875, …, 8."""
    return _table(lambda x: 1 - 2 / ((2 * x).exp() + 1), TANH_STEP_BITS)


def _table(function: Callable[[Decimal], Decimal], step_bits: int) -> NDArray[np.int16]:
    """Exact to the last bit on every machine: decimal arithmetic, not the C library's exp."""
    with localcontext() as context:
        context.prec = 40
        step = Decimal(2**step_bits) / Decimal(2**16)
        values = [int((function(step * (i - HALF)) * ONE).to_integral_value()) for i in range(POINTS)]
    table: NDArray[np.int16] = np.clip(np.array(values), -ONE + 1, ONE - 1).astype(np.int16)
    return table


def look_up(table: NDArray[np.int16], step_bits: int, x: NDArray[np.int32]) -> NDArray[np.int32]:
    """The table's function of x (Q16) in Q15; ``look_up`` of the generated C, bit by bit."""
    limit = HALF << step_bits
    place = np.clip(x.astype(np.int64), -limit, limit - 1) + limit
    index, fraction = place >> step_bits, place & ((1 << step_bits) - 1)
    left = table[index].astype(np.int64)
    rise = table[index + 1] - left
    found: NDArray[np.int32] = (left + ((rise * fraction + (1 << (step_bits - 1))) >> step_bits)).astype(np.int32)
    return found
