"""Chain of an INT8 QDQ file -> integer layers, with the proof that no sum of theirs overflows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export.integer.fixed import INT32_MAX, fixed, fixed_array
from export.integer.graph import Quant, Weights
from export.integer.gru import GruStep
from export.integer.layers import GATE_BITS, ONE, ONE_SHIFT, STATE_BITS, Dense, Gru, Input, Layer, Pool
from export.integer.reader import Chain, DenseStep, PoolStep

INT16_MAX = 32767
LOGIT_BITS_MAX = 24  # finer than any product of two int8 scales
MARGIN_BITS = 8  # a margin of 1.0 is 2^8 where the logits are fine enough: int16 holds ±128 in steps of 1/256


def build_layers(chain: Chain) -> tuple[tuple[Layer, ...], int]:
    """The integer layers of a chain, and the bits of the logits: 1.0 is 2^bits.

    Raises:
        UserError: a layer is not quantised, a scale cannot be held, or a sum could overflow 32 bits.
    """
    first = chain.input_quant
    if first is None and chain.steps and isinstance(chain.steps[0], PoolStep):
        first = chain.steps[0].quant
    if first is None:
        raise UserError("the ONNX graph does not quantise its observation: an INT8 QDQ file is needed, not FP32")
    layers: list[Layer] = [
        Input("observation", chain.n_obs, first.zero, first.scale, low=-128 - first.zero, high=127 - first.zero)
    ]
    scale, low, high = first.scale, -128 - first.zero, 127 - first.zero
    bits = 0
    for step in chain.steps[:-1]:
        layer: Pool | Dense | Gru
        if isinstance(step, PoolStep):
            layer = _pool(step, scale, low, high)
        elif isinstance(step, GruStep):
            layer = _gru(step, scale, low, high)
        else:
            layer = _dense(step, scale, low, high)
        layers.append(layer)
        scale = layer.scale
        low, high = (-(2**STATE_BITS), 2**STATE_BITS - 1) if isinstance(layer, Gru) else (layer.low, layer.high)
    head = chain.steps[-1]
    assert isinstance(head, DenseStep)
    logits, bits = _logits(head, chain.mean, scale, low, high)
    return (*layers, logits), bits


def _pool(step: PoolStep, scale: float, low: int, high: int) -> Pool:
    """The sum itself where int16 holds it: finer than the file's int8 mean, and with nothing to round."""
    shape = (step.name, step.channels, step.positions, step.window)
    if step.window * max(-low, high) <= INT16_MAX:
        return Pool(*shape, ONE, ONE_SHIFT, step.window * low, step.window * high, scale / step.window)
    quant = step.quant or Quant(scale, -128 - low)
    multiplier, shift = fixed(scale / (quant.scale * step.window), step.name)
    if step.window * max(-low, high) > INT32_MAX:
        raise UserError(f"{step.name}: the sum of {step.window} values may exceed 32 bits")
    return Pool(*shape, multiplier, shift, -128 - quant.zero, 127 - quant.zero, quant.scale)


def _dense(step: DenseStep, scale: float, low: int, high: int) -> Dense:
    if step.quant is None:
        raise UserError(f"{step.name}: its result is not quantised, the INT8 file gives no scale for it")
    weight, weight_scale = _rows(step)
    bias = _bias(step.bias, scale * weight_scale, step.name)
    check_sums(weight, bias, low, high, step.name)
    multiplier, shift = fixed_array(scale * weight_scale / step.quant.scale, step.name)
    floor = -128 - step.quant.zero
    return Dense(
        step.name, step.channels, step.positions, step.kernel, step.pad, weight, bias, multiplier, shift,
        max(floor, 0) if step.relu else floor, 127 - step.quant.zero, step.quant.scale, weight_scale,
    )  # fmt: skip


def _logits(step: DenseStep, mean: int, scale: float, low: int, high: int) -> tuple[Dense, int]:
    """The last layer: as many bits as the largest logit that can occur leaves room for."""
    weight, weight_scale = _rows(step)
    bias = _bias(step.bias, scale * weight_scale, step.name)
    bound = check_sums(weight, bias, low, high, step.name)
    largest = float((bound * scale * weight_scale).max())
    bits = min(
        LOGIT_BITS_MAX, math.floor(math.log2(INT32_MAX / ((largest or 1.0) * mean))) if largest else LOGIT_BITS_MAX
    )
    if bits < 0:
        raise UserError(f"{step.name}: a logit may reach {largest:g}, the sum of {mean} of them does not fit 32 bits")
    while float(np.ceil(largest * 2.0**bits)) * mean > INT32_MAX:  # the rounding of each row
        bits -= 1
    multiplier, shift = fixed_array(scale * weight_scale * 2.0**bits, step.name)
    mean_multiplier, mean_shift = fixed(1.0 / mean, step.name) if mean > 1 else (0, 1)
    layer = Dense(
        step.name, step.channels, step.positions, step.kernel, step.pad, weight, bias, multiplier, shift,
        -INT32_MAX - 1, INT32_MAX, 2.0**-bits, weight_scale, mean, mean_multiplier, mean_shift,
    )  # fmt: skip
    return layer, bits


def _gru(step: GruStep, scale: float, low: int, high: int) -> Gru:
    parts = []
    spans = (
        (step.weight_x, step.bias_x, scale, low, high),
        (step.weight_h, step.bias_h, 2.0**-STATE_BITS, -(2**15), 2**15 - 1),
    )
    for weights, biases, in_scale, least, most in spans:
        if weights.stored is None or weights.scale is None:
            raise UserError(f"{step.name}: the weights of the GRU cell are not int8 in the ONNX file")
        bias = _bias(biases, in_scale * weights.scale, step.name)
        check_sums(weights.stored, bias, least, most, step.name)
        parts.append((weights.stored, bias, *fixed_array(in_scale * weights.scale * 2.0**GATE_BITS, step.name)))
    return Gru(step.name, step.inputs, step.hidden, *parts[0], *parts[1])


def _rows(step: DenseStep) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Weights (rows, kernel * channels), position by position, and their scales."""
    stored, scale = step.weight.stored, step.weight.scale
    if stored is None or scale is None:
        raise UserError(f"{step.name}: its weights are not int8 in the ONNX file")
    rows = stored.reshape(step.rows, step.channels, step.kernel).transpose(0, 2, 1).reshape(step.rows, -1)
    return np.ascontiguousarray(rows), scale


def _bias(bias: Weights | None, scale: NDArray[np.float64], name: str) -> NDArray[np.int32]:
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise UserError(f"{name}: a scale of its sums is {float(scale.min()):g}: it must be above 0")
    if bias is None:
        return np.zeros(scale.shape, np.int32)
    value = np.rint(bias.value.astype(np.float64) / scale)
    if np.abs(value).max() > INT32_MAX:
        raise UserError(f"{name}: a bias is {np.abs(value).max():.3g} steps of its scale, 32 bits hold {INT32_MAX:,}")
    return value.astype(np.int32)


def check_sums(weight: NDArray[np.int8], bias: NDArray[np.int32], low: int, high: int, name: str) -> NDArray[np.int64]:
    """The largest magnitude that each row's sum, and each part of it, can reach with inputs from low to high.

    Raises:
        UserError: it exceeds 32 bits.
    """
    largest = max(-low, high)
    bound: NDArray[np.int64] = np.abs(weight.astype(np.int64)).sum(axis=1) * largest + np.abs(bias.astype(np.int64))
    if bound.max() > INT32_MAX:
        raise UserError(
            f"{name}: the sum of row {int(bound.argmax())} may reach {int(bound.max()):,}, 32 bits hold {INT32_MAX:,}: "
            "make the layer narrower, or its bias smaller"
        )
    return bound
