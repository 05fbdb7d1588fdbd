"""The layers of an integer policy. Values carry no zero point: real = scale * value, kept in int16.

An int8 of the ONNX file with zero point z becomes value = int8 - z, between ``low`` = -128 - z and ``high`` = 127 - z:
so padding is 0, and the sums need no correction. Rows of weights are stored as they are read: position by position, and
at each position channel by channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STATE_BITS = 15  # a GRU's state is int16, 1.0 = 2^15: it lies between -1 and 1
GATE_BITS = 16  # sums before a gate's sigmoid or tanh: 1.0 = 2^16
ONE, ONE_SHIFT = 2**30, 30  # the scale factor 1: a pool with it gives the plain sum
ALIGN = 4  # weights a row are padded to whole words for the boards' SIMD


@dataclass(frozen=True)
class Input:
    """int8 observation -> values: value = int8 - zero."""

    name: str
    positions: int
    zero: int
    scale: float

    channels: int = 1
    low: int = -255
    high: int = 255


@dataclass(frozen=True)
class Pool:
    """Mean over ``window`` positions: out = clip(requantise(sum, multiplier, shift), low, high).

    With the factor `ONE` it is the sum, and the scale is that of the values divided by the window.
    """

    name: str
    channels: int
    positions: int
    window: int
    multiplier: int
    shift: int
    low: int
    high: int
    scale: float

    @property
    def outputs(self) -> int:
        """Positions left."""
        return self.positions // self.window


@dataclass(frozen=True)
class Dense:
    """Convolution (kernel over positions, zero padding) or linear layer (kernel = all positions, no padding).

    out = clip(requantise(weight · window + bias, multiplier[row], shift[row]), low, high). As the last layer
    (``mean`` > 0) it gives int32 logits: sums of ``mean`` neighbouring rows, times mean_multiplier / 2^mean_shift.

    Attributes:
        weight: int8 (rows, kernel * channels).
        bias: int32 (rows,), scale ``in_scale * weight_scale``.
        weight_scale: float64 (rows,), for the reader.
        scale: of the result.
    """

    name: str
    channels: int
    positions: int
    kernel: int
    pad: int
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    multiplier: NDArray[np.int32]
    shift: NDArray[np.uint8]
    low: int
    high: int
    scale: float
    weight_scale: NDArray[np.float64]
    mean: int = 0
    mean_multiplier: int = 0
    mean_shift: int = 1

    @property
    def rows(self) -> int:
        """Outputs a position."""
        return int(self.weight.shape[0])

    @property
    def outputs(self) -> int:
        """Positions of the result."""
        return self.positions + 2 * self.pad - self.kernel + 1

    @property
    def length(self) -> int:
        """Weights a row as a board stores them."""
        return -(-int(self.weight.shape[1]) // ALIGN) * ALIGN


@dataclass(frozen=True)
class Gru:
    """A GRU cell: six products in int8 x int16 -> int32, gates in fixed point, state int16.

    Attributes:
        weight_x, weight_h: int8 (3 hidden, inputs), (3 hidden, hidden); rows r, z, n.
        bias_x, bias_h, multiplier_x, multiplier_h, shift_x, shift_h: (3 hidden,); the products become Q16.
    """

    name: str
    inputs: int
    hidden: int
    weight_x: NDArray[np.int8]
    bias_x: NDArray[np.int32]
    multiplier_x: NDArray[np.int32]
    shift_x: NDArray[np.uint8]
    weight_h: NDArray[np.int8]
    bias_h: NDArray[np.int32]
    multiplier_h: NDArray[np.int32]
    shift_h: NDArray[np.uint8]

    @property
    def scale(self) -> float:
        """Of the state."""
        return 2.0**-STATE_BITS


Layer = Input | Pool | Dense | Gru
