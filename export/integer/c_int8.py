"""IntegerModel -> one C11 file: constants, kernels, and the layers one after another. Equal models, equal text.

No libc, no heap, no float, no recursion: two static buffers that take turns, sized for what passes through them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from export.integer.c_text import descriptor, kernel, plain, table
from export.integer.layers import ALIGN, ONE, ONE_SHIFT, Dense, Gru, Input, Pool
from export.integer.model import IntegerModel, weight_bytes
from export.integer.tables import POINTS, SIGMOID_STEP_BITS, TANH_STEP_BITS, sigmoid_table, tanh_table

SIMD_ORDER = [0, 2, 1, 3]  # bytes of a word, so that SXTB16 gives (w0, w1) and, shifted by 8, (w2, w3)
POOLS = tuple(f"pool_{what}_{of}" for what in ("sum", "mean") for of in ("values", "observation"))
INT32_MIN_TEXT = "INT32_MIN"


def c_source(model: IntegerModel) -> str:
    """The whole sea_policy.c of an integer policy; compiles with sea_policy.h of the core and nothing else."""
    return _Writer(model).text()


def ram_bytes(model: IntegerModel) -> int:
    """Bytes of static memory of the generated policy."""
    writer = _Writer(model)
    writer.text()
    return 2 * sum(writer.sizes) + writer.gru_bytes


@dataclass
class _Writer:
    """Collects constants, statements and kernels while it walks over the layers."""

    model: IntegerModel
    constants: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    sizes: list[int] = field(default_factory=lambda: [0, 0])
    side: int = 0  # of the buffer that holds the newest values
    gru_bytes: int = 0

    def text(self) -> str:
        layers = self.model.layers
        self.constants, self.statements, self.kernels, self.sizes, self.side = [], [], set(), [0, 0], 0
        place = 1
        first = layers[0]
        assert isinstance(first, Input)
        if isinstance(layers[1], Pool):
            self._pool(1, layers[1], first.zero)
            place = 2
        else:
            self._take(first)
        for i in range(place, len(layers)):
            layer = layers[i]
            if isinstance(layer, Pool):
                self._pool(i, layer, None)
            elif isinstance(layer, Gru):
                self._gru(i, layer)
            else:
                assert isinstance(layer, Dense)
                self._dense(i, layer)
        return self._assemble()

    # -- layers --

    def _take(self, layer: Input) -> None:
        self.kernels.add("take")
        out = self._into(layer.positions, 0, turn=False)
        self.statements.append(f"take(observation, {layer.positions}, {layer.zero}, {out});")

    def _pool(self, i: int, layer: Pool, zero: int | None) -> None:
        plain_sum = (layer.multiplier, layer.shift) == (ONE, ONE_SHIFT)
        kind = "sum" if plain_sum else "mean"
        self.constants.append(
            f"/* {plain(layer.name)}: {kind} of {layer.window}, {layer.scale:.6g} a step */\n"
            f"static const pool_t POOL_{i} = {{{layer.channels}, {layer.outputs}, {layer.window}, {layer.multiplier}, "
            f"{layer.shift}, {layer.low}, {layer.high}}};\n"
        )
        came = self._from(0)
        out = self._into(layer.outputs * layer.channels, i, turn=zero is None)
        name = kind + ("_observation" if zero is not None else "_values")
        self.kernels |= {"pool", f"pool_{name}"}
        what = f"observation, {zero}" if zero is not None else came
        self.statements.append(f"pool_{name}(&POOL_{i}, {what}, {out});")

    def _dense(self, i: int, layer: Dense) -> None:
        what = f"{layer.rows} rows of {layer.weight.shape[1]}"
        if not layer.mean:
            what += f", {layer.outputs} places"
        steps = (
            f"weights {layer.weight_scale.min():.6g} to {layer.weight_scale.max():.6g}, result {layer.scale:.6g} a step"
        )
        self._rows(f"{i}", layer.weight, layer.bias, layer.multiplier, layer.shift, layer.low, layer.high,
                   f"{layer.name}: {what}; {steps}")  # fmt: skip
        width = layer.pad * layer.channels
        came, side = self._from(0), self.side
        if width:
            self.kernels.add("clear")
            after = width + layer.positions * layer.channels
            self.statements.append(f"clear({came}, {width});")
            self.statements.append(f"clear({self._from(after)}, {width});")
        read = (
            layer.outputs - 1
        ) * layer.channels + layer.length  # the zeros at a row's end read beyond the last value
        self.sizes[side] = max(self.sizes[side], 2 * width + layer.positions * layer.channels, read)
        if layer.mean > 1:
            self.kernels.add("mean")
            self.statements.append(
                f"dense_mean(&DENSE_{i}, {came}, {layer.mean}, {layer.mean_multiplier}, {layer.mean_shift}, logits);"
            )
        elif layer.mean:
            self.kernels.add("numbers")
            self.statements.append(f"dense_wide(&DENSE_{i}, {came}, logits);")
        else:
            self.kernels.add("values")
            out = self._into(layer.outputs * layer.rows, i)
            self.statements.append(f"dense(&DENSE_{i}, {came}, {layer.channels}, {layer.outputs}, {out});")

    def _gru(self, i: int, layer: Gru) -> None:
        self.kernels |= {"numbers", "gru"}
        for part, weight, bias, multiplier, shift in (
            ("x", layer.weight_x, layer.bias_x, layer.multiplier_x, layer.shift_x),
            ("h", layer.weight_h, layer.bias_h, layer.multiplier_h, layer.shift_h),
        ):
            limits = -(2**31), 2**31 - 1
            comment = f"{layer.name}: GRU cell, products of its {'input' if part == 'x' else 'state'}, rows r z n"
            self._rows(f"{i}{part}", weight, bias, multiplier, shift, *limits, comment)
        came = self._from(0)
        self.sizes[self.side] = max(self.sizes[self.side], -(-layer.inputs // ALIGN) * ALIGN)
        padded = -(-layer.hidden // ALIGN) * ALIGN
        out = self._into(layer.hidden, i)
        self.statements += [
            f"dense_wide(&DENSE_{i}x, {came}, products_x);",
            f"dense_wide(&DENSE_{i}h, state, products_h);",
            f"gru(products_x, products_h, {layer.hidden}, state);",
            f"copy(state, {layer.hidden}, {out});",
        ]
        self.gru_bytes = 2 * padded + 2 * 4 * 3 * layer.hidden

    # -- buffers: values of layer i + 1 begin where its padding ends --

    def _from(self, offset: int) -> str:
        return f"buffer_{'ab'[self.side]}" + (f" + {offset}" if offset else "")

    def _into(self, count: int, i: int, *, turn: bool = True) -> str:
        after = self.model.layers[i + 1]
        offset = after.pad * after.channels if isinstance(after, Dense) else 0
        if turn:
            self.side = 1 - self.side
        self.sizes[self.side] = max(self.sizes[self.side], offset + count)
        return self._from(offset)

    # -- constants --

    def _rows(
        self, name: str, weight: NDArray[np.int8], bias: NDArray[np.int32], multiplier: NDArray[np.int32],
        shift: NDArray[np.uint8], low: int, high: int, comment: str,
    ) -> None:  # fmt: skip
        rows, columns = weight.shape
        length = -(-columns // ALIGN) * ALIGN
        padded = np.zeros((rows, length), np.int8)
        padded[:, :columns] = weight
        packed = padded.reshape(rows, -1, ALIGN)[:, :, SIMD_ORDER].reshape(rows, length)
        into = "with SHIFT: steps of a sum to steps of the result"
        tables = [f"{what}_{name}" for what in ("WEIGHT", "BIAS", "MULTIPLIER", "SHIFT")]
        fields = ", ".join([*tables, str(rows), str(length), _int32(low), _int32(high)])
        self.constants += [
            table("int8_t", tables[0], f"[{rows * length}]", packed, comment),
            table("int32_t", tables[1], f"[{rows}]", bias[None], "in steps of input and weight"),
            table("int32_t", tables[2], f"[{rows}]", multiplier[None], into),
            table("uint8_t", tables[3], f"[{rows}]", shift[None], "bits"),
            f"static const dense_t DENSE_{name} = {{{fields}}};\n",
        ]

    def _assemble(self) -> str:
        m = self.model
        order = ("values", "numbers", "mean", "take", "pool", *POOLS, "clear", "gru")
        kernels = [kernel("dense")]
        for name in order:
            if name in self.kernels:
                kernels.append((_gru_tables() if name == "gru" else "") + kernel(name))
        head = (
            f"/* Generated, not for editing: an int8 policy, {m.n_obs} values -> {m.slots} slots x (no pulse, pulse).\n"
            f" * {weight_bytes(m):,} bytes of constants. One step of P_beta/1000 is {m.obs_scale:.6g},\n"
            f" * a logit of 1.0 is 2^{m.logit_bits}. Research use only, not for human use. */\n"
        )
        includes = '#include "sea_policy.h"\n' + ("\n#include <stdbool.h>\n" if "mean" in self.kernels else "")
        memory = [
            f"static _Alignas(4) int16_t buffer_{'ab'[k]}[{_even(size)}];" for k, size in enumerate(self.sizes) if size
        ]
        reset = ["    /* no recurrent state */"]
        gru = next((layer for layer in m.layers if isinstance(layer, Gru)), None)
        if gru is not None:
            memory += [
                f"static _Alignas(4) int16_t state[{-(-gru.hidden // ALIGN) * ALIGN}];",
                f"static int32_t products_x[{3 * gru.hidden}];",
                f"static int32_t products_h[{3 * gru.hidden}];",
            ]
            reset = [f"    for (uint32_t i = 0; i < {gru.hidden}; i++) {{", "        state[i] = 0;", "    }"]
            kernels.append(_COPY)
        infer = [f"    {statement}" for statement in self.statements]
        functions = [
            "static void reset(void)", "{", *reset, "}", "",
            "static void infer(const int8_t *observation, int32_t *logits)", "{", *infer, "}", "",
        ]  # fmt: skip
        described = descriptor(
            meaning=m.meaning, n_obs=m.n_obs, slots=m.slots, format_name="SEA_POLICY_INT8", logit_bits=m.logit_bits,
            margin_shift=m.margin_shift, q_zero=m.q_zero, q_shift=m.q_shift, q_multiplier=m.q_multiplier,
            q_centre=m.q_centre,
        )  # fmt: skip
        return "\n".join([head + includes, *kernels, *self.constants, *memory, "", *functions, described])


_COPY = """
static void copy(const int16_t *from, uint32_t count, int16_t *to)
{
    for (uint32_t i = 0; i < count; i++) {
        to[i] = from[i];
    }
}
"""


def _gru_tables() -> str:
    lines = [
        "",
        f"#define TABLE_POINTS {POINTS}u",
        f"#define SIGMOID_STEP_BITS {SIGMOID_STEP_BITS}u /* points 1/16 apart, from -16 to 16 */",
        f"#define TANH_STEP_BITS {TANH_STEP_BITS}u /* 1/32 apart, from -8 to 8 */",
        "",
        table("int16_t", "SIGMOID", "[TABLE_POINTS]", sigmoid_table()[None], "1/(1 + exp(-x)), Q15"),
        table("int16_t", "TANH", "[TABLE_POINTS]", tanh_table()[None], "tanh(x), Q15"),
    ]
    return "\n".join(lines)


def _int32(value: int) -> str:
    return INT32_MIN_TEXT if value == -(2**31) else str(value)


def _even(count: int) -> int:
    return count + count % 2
