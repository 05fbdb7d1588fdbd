"""The integer policy: what the NumPy reference runs and the C source is written from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from envs.errors import UserError
from export.integer.build import MARGIN_BITS, build_layers, check_sums
from export.integer.fixed import INT32_MAX, MAX_SHIFT, fixed
from export.integer.layers import STATE_BITS, Dense, Gru, Input, Layer, Pool
from export.integer.reader import read_chain

Q16 = 65536  # an observation comes as rint(P_beta/1000 * 65536), int32
MAX_OBS = 1024  # SEA_POLICY_MAX_OBS in sea_policy.h
MAX_SLOTS = 256  # SEA_POLICY_MAX_SLOTS: bits of a mask


@dataclass(frozen=True)
class Meaning:
    """What a decision orders: µs from slot to slot, µA, µs of each phase."""

    slot_period_us: int
    amplitude_uA: int
    width_us: int

    def __post_init__(self) -> None:
        for name, most in (("slot_period_us", 2**32 - 1), ("amplitude_uA", 2**32 - 1), ("width_us", 2**16 - 1)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"a policy's {name} is {getattr(self, name)}: from 0 to {most} are allowed")

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str]) -> Meaning:
        """From the ONNX file's sea_dbs.slot_us, .amplitude_uA, .width_us.

        Raises:
            UserError: one is missing or no number.
        """
        values = []
        for key in ("slot_us", "amplitude_uA", "width_us"):
            try:
                value = float(metadata[f"sea_dbs.{key}"])
                if not math.isfinite(value):
                    raise ValueError
            except KeyError as error:
                raise UserError(f"the ONNX metadata lacks sea_dbs.{key}: what a decision means is not known") from error
            except ValueError as error:
                raise UserError(
                    f"the ONNX metadata's sea_dbs.{key} is '{metadata[f'sea_dbs.{key}']}': no number"
                ) from error
            values.append(round(value))
        return cls(*values)


@dataclass(frozen=True)
class IntegerModel:
    """A policy in integers.

    Attributes:
        layers: first `Input`, last the `Dense` that gives the logits.
        logit_bits: a logit of 1.0 is 2^logit_bits.
        q_centre, q_multiplier, q_shift: see `quantise`; its zero point is the first layer's.
        obs_scale: P_beta/1000 a step of the int8 observation.
    """

    n_obs: int
    slots: int
    meaning: Meaning
    q_centre: int
    q_multiplier: int
    q_shift: int
    obs_scale: float
    logit_bits: int
    layers: tuple[Layer, ...]

    @classmethod
    def from_onnx(cls, data: bytes, *, meaning: Meaning | None = None) -> IntegerModel:
        """Build from the bytes of an INT8 QDQ file; its metadata says what a decision means, unless ``meaning`` does.

        Raises:
            UserError: not such a file, a node that is not understood (named), or a sum that could overflow (named).
        """
        chain = read_chain(data)
        layers, bits = build_layers(chain)
        first = layers[0]
        assert isinstance(first, Input)
        obs_scale = first.scale * chain.scale
        multiplier, shift = fixed(1.0 / (obs_scale * Q16), "the observation")
        centre = round(chain.centre * Q16)
        model = cls(
            chain.n_obs, chain.slots, meaning or Meaning.of_metadata(chain.metadata), centre, multiplier, shift,
            obs_scale, bits, layers,
        )  # fmt: skip
        check_model(model)
        return model

    @property
    def q_zero(self) -> int:
        """int8 value of an observation at the centre."""
        first = self.layers[0]
        assert isinstance(first, Input)
        return first.zero

    @property
    def margin_shift(self) -> int:
        """A margin is (logit of pulse - logit of no pulse) >> margin_shift, saturated to int16."""
        return max(0, self.logit_bits - MARGIN_BITS)

    @property
    def hidden(self) -> int:
        """Values of the recurrent state; 0: there is none."""
        return sum(layer.hidden for layer in self.layers if isinstance(layer, Gru))

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the saved bytes."""
        from export.integer.storage import to_bytes

        return hashlib.sha256(to_bytes(self)).hexdigest()

    def save(self, path: Path) -> None:
        """Write as npz: equal models, equal bytes."""
        from export.integer.storage import to_bytes
        from sea_dbs.files import atomic_write_bytes

        atomic_write_bytes(path, to_bytes(self))

    @classmethod
    def load(cls, path: Path) -> IntegerModel:
        """Read what `save` wrote.

        Raises:
            UserError: missing, damaged, of another format, or a model that could overflow.
        """
        from export.integer.storage import read

        return read(path)


def weight_bytes(model: IntegerModel) -> int:
    """Bytes of constants that the C source of a policy holds: weights as padded, biases, multipliers, shifts."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, Dense):
            total += layer.rows * layer.length + layer.bias.nbytes + layer.multiplier.nbytes + layer.shift.nbytes
        elif isinstance(layer, Gru):
            padded = -(-layer.inputs // 4) * 4 + -(-layer.hidden // 4) * 4
            total += 3 * layer.hidden * (padded + 2 * (4 + 4 + 1)) + 2 * 513 * 2  # two tables
    return total


def check_model(model: IntegerModel) -> None:
    """Every shape fits the next, every constant lies in its range, no sum can overflow: also for a file from elsewhere.

    Raises:
        UserError: one does not; the layer is named.
    """
    if not (1 <= model.n_obs <= MAX_OBS and 1 <= model.slots <= MAX_SLOTS):
        raise UserError(
            f"the policy has {model.n_obs} values an observation and {model.slots} slots: a board takes 1 to {MAX_OBS} "
            f"and 1 to {MAX_SLOTS}"
        )
    head = model.layers[-1]
    if not isinstance(model.layers[0], Input) or not isinstance(head, Dense) or head.mean < 1:
        raise UserError("an integer policy begins with its observation and ends in the layer of its logits")
    ranges = (
        ("q_multiplier", model.q_multiplier, 1, INT32_MAX), ("q_shift", model.q_shift, 1, MAX_SHIFT),
        ("q_centre", model.q_centre, -INT32_MAX, INT32_MAX), ("q_zero", model.q_zero, -128, 127),
        ("logit_bits", model.logit_bits, 0, 31), ("mean", head.mean * 2 * model.slots, head.rows, head.rows),
    )  # fmt: skip
    for name, value, least, most in ranges:
        _between("the policy", name, value, least, most)
    channels, positions, low, high = 1, model.n_obs, -255, 255
    for i, layer in enumerate(model.layers):
        if (i == 0) != isinstance(layer, Input) or (isinstance(layer, Dense) and (layer.mean > 0) != (layer is head)):
            raise UserError(f"{layer.name}: a layer of this kind cannot stand at place {i}")
        channels, positions = _check_layer(layer, channels, positions, low, high)
        low, high = (-(2**STATE_BITS), 2**STATE_BITS - 1) if isinstance(layer, Gru) else (layer.low, layer.high)


def _check_layer(layer: Layer, channels: int, positions: int, low: int, high: int) -> tuple[int, int]:
    """Check one layer against what comes in; what goes out: channels, positions."""
    name = layer.name
    if isinstance(layer, Gru):
        _equal(name, "inputs", layer.inputs, channels * positions)
        parts = (
            (layer.weight_x, layer.bias_x, layer.multiplier_x, layer.shift_x, layer.inputs, low, high),
            (layer.weight_h, layer.bias_h, layer.multiplier_h, layer.shift_h, layer.hidden, -(2**15), 2**15 - 1),
        )
        for weight, bias, multiplier, shift, columns, least, most in parts:
            for what, found, wanted in (
                ("weights", weight.shape, (3 * layer.hidden, columns)), ("biases", bias.shape, (3 * layer.hidden,)),
                ("multipliers", multiplier.shape, bias.shape), ("shifts", shift.shape, bias.shape),
            ):  # fmt: skip
                _equal(name, what, found, wanted)
            _scales(name, multiplier.min(initial=0), shift.min(initial=1), shift.max(initial=1))
            check_sums(weight, bias, least, most, name)
        return layer.hidden, 1
    _equal(name, "positions", layer.positions, positions)
    _equal(name, "channels", layer.channels, channels)
    if not -32768 <= layer.low <= layer.high <= 32767 and not (isinstance(layer, Dense) and layer.mean):
        raise UserError(f"{name}: its values lie between {layer.low} and {layer.high}: int16 needed")
    if isinstance(layer, Input):
        return 1, positions
    if isinstance(layer, Pool):
        _between(name, "window", layer.window, 1, positions)
        _between(name, "sum", layer.window * max(-low, high), 0, INT32_MAX)
        _scales(name, layer.multiplier, layer.shift, layer.shift)
        return channels, layer.outputs
    _between(name, "pad", layer.pad, 0, layer.kernel // 2)
    _between(name, "kernel", layer.kernel, 1, positions + 2 * layer.pad)
    shape = (layer.rows, layer.kernel * channels)
    for what, found, wanted in (
        ("weights", layer.weight.shape, shape), ("biases", layer.bias.shape, shape[:1]),
        ("multipliers", layer.multiplier.shape, shape[:1]), ("shifts", layer.shift.shape, shape[:1]),
    ):  # fmt: skip
        _equal(name, what, found, wanted)
    _scales(name, layer.multiplier.min(initial=0), layer.shift.min(initial=1), layer.shift.max(initial=1))
    bound = check_sums(layer.weight, layer.bias, low, high, name)
    if layer.mean:
        _equal(name, "positions of the last layer", layer.outputs, 1)
        largest = (bound * layer.multiplier.astype(float) / 2.0 ** layer.shift.astype(float)).max(initial=0.0) + 1.0
        _between(name, "largest logit", int(largest) * (layer.mean if layer.mean > 1 else 1), 0, INT32_MAX + 1)
        _scales(name, layer.mean_multiplier, layer.mean_shift, layer.mean_shift)
    return layer.rows, layer.outputs


def _equal(name: str, what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise UserError(f"{name}: {what} are {found}, the layer before needs {wanted}")


def _between(name: str, what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UserError(f"{name}: {what} is {value}, from {least} to {most} are allowed")


def _scales(name: str, multiplier: int, least: int, most: int) -> None:
    _between(name, "a multiplier", int(multiplier), 0, INT32_MAX)
    _between(name, "a shift", int(least), 1, MAX_SHIFT)
    _between(name, "a shift", int(most), 1, MAX_SHIFT)
