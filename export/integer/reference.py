"""The integer policy in NumPy: the yardstick of the C source, vectorised over observations.

Products are done in float64 by BLAS, which is exact here: every sum stays below 2^31 (`check_sums`), far below 2^53.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from envs.errors import UserError
from export.integer.fixed import requantise
from export.integer.layers import Dense, Gru, Input, Layer, Pool
from export.integer.model import Q16, IntegerModel
from export.integer.tables import SIGMOID_STEP_BITS, TANH_STEP_BITS, look_up, sigmoid_table, tanh_table

BLOCK_VALUES = 4_000_000  # values of the widest layer that are held at once
Values = NDArray[np.int32]


def quantise(model: IntegerModel, observation: NDArray[np.float32]) -> NDArray[np.int8]:
    """(n, n_obs) of P_beta/1000 -> int8 at the policy's input scale; ``sea_policy_quantise`` in C.

    Raises:
        UserError: wrong shape, or a value that is not finite or does not fit Q16 (±32,767).
    """
    obs = np.asarray(observation, np.float64)
    if obs.ndim != 2 or obs.shape[1] != model.n_obs:
        raise UserError(f"an observation has the shape {obs.shape}: (n, {model.n_obs}) needed")
    if not (np.abs(obs) < 2**15).all():  # false for NaN too
        place = tuple(int(i) for i in np.argwhere(~(np.abs(obs) < 2**15))[0])
        raise UserError(f"an observation holds {obs[place]} at {place}: finite values below 32,768 are needed")
    q16 = np.rint(obs * Q16).astype(np.int64)
    distance = np.clip(q16 - model.q_centre, -(2**31), 2**31 - 1)
    steps = requantise(distance, model.q_multiplier, model.q_shift).astype(np.int64)
    return np.clip(steps + model.q_zero, -128, 127).astype(np.int8)


def dequantise(model: IntegerModel, observation: NDArray[np.int8]) -> NDArray[np.float32]:
    """int8 observation -> P_beta/1000, as the float formats see it, bit by bit."""
    steps = (observation.astype(np.int32) - model.q_zero).astype(np.float32)
    found: NDArray[np.float32] = steps * np.float32(model.obs_scale) + np.float32(model.q_centre / Q16)
    return found


def run(model: IntegerModel, observation: NDArray[np.int8]) -> NDArray[np.int32]:
    """(n, n_obs) int8 -> logits (n, slots, 2) int32, what a board gives for these observations in this order.

    A recurrent policy starts from its state at rest and carries it from row to row; others see each row alone.
    """
    if not model.hidden:
        return step(model, observation, None)[0]
    state = np.zeros((1, model.hidden), np.int16)
    place = next(i for i, layer in enumerate(model.layers) if isinstance(layer, Gru))
    seen = forward(model, _checked(model, observation), model.layers[:place])
    states = np.empty((len(seen), model.hidden), np.int32)
    cell = model.layers[place]
    assert isinstance(cell, Gru)
    for i in range(len(seen)):
        state = _cell(cell, seen[i : i + 1], state)
        states[i] = state[0]
    return forward(model, states, model.layers[place + 1 :]).reshape(-1, model.slots, 2)


def step(
    model: IntegerModel, observation: NDArray[np.int8], state: NDArray[np.int16] | None
) -> tuple[NDArray[np.int32], NDArray[np.int16] | None]:
    """One decision for each of n environments: logits (n, slots, 2) and the states after it.

    Args:
        observation: (n, n_obs) int8.
        state: (n, hidden) int16, 1.0 = 2^15; None is rest. Stays None without a recurrent layer.
    """
    value = _checked(model, observation)
    if model.hidden and state is None:
        state = np.zeros((len(value), model.hidden), np.int16)
    place = next((i for i, layer in enumerate(model.layers) if isinstance(layer, Gru)), None)
    if place is not None:
        cell = model.layers[place]
        assert isinstance(cell, Gru)
        assert state is not None
        state = _cell(cell, forward(model, value, model.layers[:place]), state)
        value = forward(model, state.astype(np.int32), model.layers[place + 1 :])
    else:
        value = forward(model, value, model.layers)
    return value.reshape(-1, model.slots, 2), state


def _checked(model: IntegerModel, observation: NDArray[np.int8]) -> Values:
    if observation.dtype != np.int8 or observation.ndim != 2 or observation.shape[1] != model.n_obs:
        raise UserError(f"an observation is int8 (n, {model.n_obs}) here, not {observation.dtype} {observation.shape}")
    return observation.astype(np.int32)


def forward(model: IntegerModel, value: Values, layers: tuple[Layer, ...]) -> Values:
    """Some layers over all rows, a block at a time. (n, inputs) -> (n, outputs)."""
    widest = max([_width(layer) for layer in layers], default=1)
    rows = max(1, BLOCK_VALUES // widest)
    weights: dict[int, Any] = {}
    parts = []
    for start in range(0, max(1, len(value)), rows):
        part = value[start : start + rows]
        for i, layer in enumerate(layers):
            part = _layer(layer, part, weights, i)
        parts.append(part.reshape(len(part), -1))
    return np.concatenate(parts)


def _width(layer: Layer) -> int:
    if isinstance(layer, Dense):
        return max(layer.outputs * layer.kernel * layer.channels, layer.outputs * layer.rows)
    return layer.positions * layer.channels if isinstance(layer, Input | Pool) else layer.hidden


def _layer(layer: Layer, value: Values, weights: dict[int, Any], i: int) -> Values:
    n = len(value)
    if isinstance(layer, Input):
        return value - np.int32(layer.zero)
    if isinstance(layer, Pool):
        kept = value.reshape(n, layer.positions, layer.channels)[:, : layer.outputs * layer.window]
        total = kept.reshape(n, layer.outputs, layer.window, layer.channels).sum(axis=2)
        return np.clip(requantise(total, layer.multiplier, layer.shift), layer.low, layer.high)
    assert isinstance(layer, Dense)
    if i not in weights:
        weights[i] = layer.weight.T.astype(np.float64)
    padded = np.pad(value.reshape(n, layer.positions, layer.channels), ((0, 0), (layer.pad, layer.pad), (0, 0)))
    windows = sliding_window_view(padded, layer.kernel, axis=1).transpose(0, 1, 3, 2)  # kernel before channel
    columns = windows.reshape(n * layer.outputs, -1).astype(np.float64)
    total = (columns @ weights[i]).astype(np.int64) + layer.bias
    out = np.clip(requantise(total, layer.multiplier, layer.shift), layer.low, layer.high)
    if layer.mean > 1:
        sums = out.astype(np.int64).reshape(n, -1, layer.mean).sum(axis=2)
        return requantise(sums, layer.mean_multiplier, layer.mean_shift)
    return out.reshape(n, layer.outputs, layer.rows)


def _cell(cell: Gru, value: Values, state: NDArray[np.int16]) -> NDArray[np.int16]:
    """One step of the GRU cell: states (n, hidden) int16."""
    h = state.astype(np.int32)
    parts = []
    for weight, bias, multiplier, shift, inputs in (
        (cell.weight_x, cell.bias_x, cell.multiplier_x, cell.shift_x, value),
        (cell.weight_h, cell.bias_h, cell.multiplier_h, cell.shift_h, h),
    ):
        total = (inputs.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.int64) + bias
        parts.append(requantise(total, multiplier, shift).astype(np.int64).reshape(-1, 3, cell.hidden))
    x, from_state = parts
    r = look_up(sigmoid_table(), SIGMOID_STEP_BITS, _saturate(x[:, 0] + from_state[:, 0]))
    z = look_up(sigmoid_table(), SIGMOID_STEP_BITS, _saturate(x[:, 1] + from_state[:, 1]))
    reset = requantise(from_state[:, 2], r, 15).astype(np.int64)
    n = look_up(tanh_table(), TANH_STEP_BITS, _saturate(x[:, 2] + reset))
    new = n + requantise(h - n, z, 15)
    clipped: NDArray[np.int16] = np.clip(new, -(2**15), 2**15 - 1).astype(np.int16)
    return clipped


def _saturate(value: NDArray[np.int64]) -> Values:
    return np.clip(value, -(2**31), 2**31 - 1).astype(np.int32)
