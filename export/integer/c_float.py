"""FP32 ONNX -> one C11 file in single or half precision, with the interface of the integer policy.

Both take the integer policy's int8 observation. FP32 gives the same bits from every compiler that neither fuses nor
reorders (gcc with -std=c11 or -ffp-contract=off; no fast-math). FP16 stores weights and values in half precision and
multiplies in it, on cores that can (Cortex-M55); elsewhere it stops the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export.integer.c_text import descriptor, kernel, plain, table
from export.integer.graph import Weights
from export.integer.gru import GruStep
from export.integer.model import Q16, IntegerModel
from export.integer.reader import Chain, DenseStep, PoolStep, read_chain

Precision = Literal["fp32", "fp16"]
DTYPES: dict[str, Any] = {"fp32": np.float32, "fp16": np.float16}
LOGIT_BITS = 16
MARGIN_SHIFT = 8


def float_c_source(onnx: bytes, precision: Precision, model: IntegerModel) -> str:
    """The whole sea_policy.c of a policy in floating point.

    Args:
        onnx: the FP32 ONNX file.
        precision: "fp32" or "fp16".
        model: the same policy in integers: its scale of the observation and the meaning of its decisions are taken.

    Raises:
        UserError: a node that is not understood, another interface than the model's, or a weight that FP16 cannot hold.
    """
    if precision not in DTYPES:
        raise UserError(f"the precision of a C source is '{precision}': fp32 or fp16 are allowed")
    chain = read_chain(onnx)
    if (chain.n_obs, chain.slots) != (model.n_obs, model.slots):
        raise UserError(
            f"the ONNX policy maps {chain.n_obs} values to {chain.slots} slots, the integer policy {model.n_obs} to "
            f"{model.slots}"
        )
    return _Writer(chain, precision, model).text()


@dataclass
class _Writer:
    chain: Chain
    precision: Precision
    model: IntegerModel
    constants: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    sizes: list[int] = field(default_factory=lambda: [0, 0])
    side: int = 0
    hidden: int = 0

    def text(self) -> str:
        chain = self.chain
        out = self._into(chain.n_obs, -1, turn=False)
        self.statements.append(f"centre(observation, {out});")
        for i, step in enumerate(chain.steps):
            if isinstance(step, PoolStep):
                self._pool(i, step)
            elif isinstance(step, GruStep):
                self._gru(i, step)
            else:
                self._dense(i, step)
        return self._assemble()

    def _pool(self, i: int, step: PoolStep) -> None:
        self.kernels.add("pool")
        came, left = self._from(0), step.positions // step.window
        out = self._into(left * step.channels, i)
        self.statements.append(f"pool({came}, {step.channels}, {left}, {step.window}, {out});")

    def _dense(self, i: int, step: DenseStep) -> None:
        value = (
            step.weight.value.reshape(step.rows, step.channels, step.kernel).transpose(0, 2, 1).reshape(step.rows, -1)
        )
        self._rows(f"{i}", value, step.bias, step.name)
        width = step.pad * step.channels
        came, side = self._from(0), self.side
        if width:
            self.kernels.add("clear")
            after = width + step.positions * step.channels
            self.statements += [f"clear({came}, {width});", f"clear({self._from(after)}, {width});"]
            self.sizes[side] = max(self.sizes[side], after + width)
        places = step.positions + 2 * step.pad - step.kernel + 1
        if i < len(self.chain.steps) - 1:
            self.kernels.add("values")
            out = self._into(places * step.rows, i)
            relu = "true" if step.relu else "false"
            self.statements.append(f"dense(&DENSE_{i}, {relu}, {came}, {step.channels}, {places}, {out});")
        elif self.chain.mean > 1:
            self.kernels.add("mean")
            self.statements.append(f"dense_mean(&DENSE_{i}, {came}, {self.chain.mean}, logits);")
        else:
            self.kernels.add("numbers")
            self.statements.append(f"dense_wide(&DENSE_{i}, {came}, logits);")

    def _gru(self, i: int, step: GruStep) -> None:
        self.kernels |= {"numbers", "gru"}
        self.hidden = step.hidden
        for part, weight, bias in (("x", step.weight_x, step.bias_x), ("h", step.weight_h, step.bias_h)):
            self._rows(f"{i}{part}", weight.value, bias, f"{step.name}: GRU cell, {part}, rows r z n")
        came = self._from(0)
        out = self._into(step.hidden, i)
        self.statements += [
            f"dense_wide(&DENSE_{i}x, {came}, products_x);",
            f"dense_wide(&DENSE_{i}h, state, products_h);",
            f"gru(products_x, products_h, {step.hidden}, state);",
            f"copy(state, {step.hidden}, {out});",
        ]

    def _from(self, offset: int) -> str:
        return f"buffer_{'ab'[self.side]}" + (f" + {offset}" if offset else "")

    def _into(self, count: int, i: int, *, turn: bool = True) -> str:
        after = self.chain.steps[i + 1]
        offset = after.pad * after.channels if isinstance(after, DenseStep) else 0
        if turn:
            self.side = 1 - self.side
        self.sizes[self.side] = max(self.sizes[self.side], offset + count)
        return self._from(offset)

    def _rows(self, name: str, weight: NDArray[np.float32], bias: Weights | None, comment: str) -> None:
        rows, length = weight.shape
        biases = np.zeros(rows, np.float32) if bias is None else bias.value
        self.constants += [
            table("number_t", f"WEIGHT_{name}", f"[{rows * length}]", self._texts(weight, comment), comment),
            table("number_t", f"BIAS_{name}", f"[{rows}]", self._texts(biases[None], comment), "its biases"),
            f"static const dense_t DENSE_{name} = {{WEIGHT_{name}, BIAS_{name}, {rows}, {length}}};\n",
        ]

    def _texts(self, values: NDArray[np.float32], name: str) -> list[list[str]]:
        with np.errstate(over="ignore"):
            held = values.astype(DTYPES[self.precision])
        if not np.isfinite(held).all():
            raise UserError(f"{name}: a weight reaches {np.abs(values).max():g}, FP16 holds at most ±65504")
        write = _hexadecimal if self.precision == "fp32" else _half
        return [[write(value) for value in row] for row in held.astype(np.float64).tolist()]

    def _assemble(self) -> str:
        m, single = self.model, self.precision == "fp32"
        order = ("values", "numbers", "mean", "pool", "clear", "gru")
        kernels = [kernel("float_single" if single else "float_half"), kernel("float_dense")]
        kernels += [kernel(f"float_{name}") for name in order if name in self.kernels]
        kernels.append(kernel("float_logits"))
        memory = [f"static number_t buffer_{'ab'[k]}[{size}];" for k, size in enumerate(self.sizes) if size]
        reset = ["    /* no recurrent state */"]
        if self.hidden:
            kernels.append(_COPY)
            memory += [
                f"static number_t state[{self.hidden}];",
                *(f"static float products_{part}[{3 * self.hidden}];" for part in "xh"),
            ]
            reset = [f"    for (uint32_t i = 0; i < {self.hidden}; i++) {{", "        state[i] = 0;", "    }"]
        body = _BODY.format(
            n_obs=m.n_obs, count=2 * m.slots, zero=m.q_zero, step=_hexadecimal(float(np.float32(m.obs_scale))),
            middle=_hexadecimal(float(np.float32(m.q_centre / Q16))),
            centre=_hexadecimal(float(np.float32(self.chain.centre))),
            scale=_hexadecimal(float(np.float32(self.chain.scale))),
            statements="\n".join(f"    {statement}" for statement in self.statements), reset="\n".join(reset),
            memory="\n".join(memory),
        )  # fmt: skip
        head = (
            f"/* Generated, not for editing: a policy in {'single' if single else 'half'} precision,\n"
            f" * {m.n_obs} values -> {m.slots} slots x (no pulse, pulse): {plain(_shape(self.chain))}.\n"
            " * Research use only, not for human use. */\n"
            '#include "sea_policy.h"\n\n#include <stdbool.h>\n\n'
            "/* The same in floating point, for comparison: n_obs values of P_beta/1000, 2 * slots logits. */\n"
            "void sea_policy_infer_float(const float *observation, float *logits);\n"
        )
        described = descriptor(
            meaning=m.meaning, n_obs=m.n_obs, slots=m.slots, format_name=f"SEA_POLICY_{self.precision.upper()}",
            logit_bits=LOGIT_BITS, margin_shift=MARGIN_SHIFT, q_zero=m.q_zero, q_shift=m.q_shift,
            q_multiplier=m.q_multiplier, q_centre=m.q_centre,
        )  # fmt: skip
        return "\n".join([head, *kernels, "", *self.constants, body, described])


def _shape(chain: Chain) -> str:
    return ", ".join(
        f"pool {s.window}"
        if isinstance(s, PoolStep)
        else f"GRU {s.hidden}"
        if isinstance(s, GruStep)
        else f"{s.rows} rows"
        for s in chain.steps
    )


def _hexadecimal(value: float) -> str:
    """A C float literal that holds every bit."""
    mantissa, exponent = value.hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}f" if value else "0.0f"


def _half(value: float) -> str:
    """The same for half precision; GCC takes its subnormal numbers for inexact unless they are cast."""
    text = _hexadecimal(value)
    return f"(number_t){text}" if 0.0 < abs(value) < 2.0**-14 else text


_COPY = """
static void copy(const number_t *from, uint32_t count, number_t *to)
{
    for (uint32_t i = 0; i < count; i++) {
        to[i] = from[i];
    }
}
"""

_BODY = """{memory}
static float values[{n_obs}];
static float numbers[{count}];

/* The graph's own centring. */
static void centre(const float *observation, number_t *out)
{{
    for (uint32_t i = 0; i < {n_obs}; i++) {{
        out[i] = (number_t)((observation[i] - {centre}) / {scale});
    }}
}}

static void reset(void)
{{
{reset}
}}

void sea_policy_infer_float(const float *observation, float *logits)
{{
{statements}
}}

static void infer(const int8_t *observation, int32_t *logits)
{{
    for (uint32_t i = 0; i < {n_obs}; i++) {{
        values[i] = (float)(observation[i] - ({zero})) * {step} + {middle}; /* int8 steps to P_beta/1000 */
    }}
    sea_policy_infer_float(values, numbers);
    for (uint32_t i = 0; i < {count}; i += 2) {{
        bool both = finite(numbers[i]) && finite(numbers[i + 1]);
        logits[i] = both ? fixed_point(numbers[i]) : SEA_LOGIT_NOT_FINITE;
        logits[i + 1] = both ? fixed_point(numbers[i + 1]) : SEA_LOGIT_NOT_FINITE;
    }}
}}
"""
