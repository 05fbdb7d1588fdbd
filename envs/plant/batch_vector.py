"""Vectors inside Numba: a value that stands for several cells at once; the fast kernel then reads like the scalar one.

LLVM's vectoriser decides on its own whether a loop over cells becomes vector code. Here it is not asked: `load` gives a
vector of neighbouring entries of a flat array, arithmetic on it is vector arithmetic, `store` puts it back. A Python
number (or any scalar) in an expression takes the vector's precision, so that one source serves float32 and float64.

Operations may be contracted, reassociated and use reciprocals; none of them assumes that values are finite.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import extending, imputils
from numba.core import types as numba_types
from numba.core.typing import templates

# Numba's own annotations do not describe what its decorators return.
types: Any = numba_types
intrinsic: Any = extending.intrinsic
lower_builtin: Any = extending.lower_builtin
models: Any = extending.models
register_model: Any = extending.register_model
infer_global: Any = templates.infer_global
signature: Any = templates.signature
AbstractTemplate: Any = templates.AbstractTemplate
impl_ret_untracked: Any = imputils.impl_ret_untracked

FLAGS = ("contract", "reassoc", "arcp", "nsz", "afn")  # no "nnan", no "ninf": a non-finite voltage must stay visible


def _vector_bytes() -> int:
    """Width of a vector: what the processor (or NUMBA_CPU_NAME) has."""
    name = os.environ.get("NUMBA_CPU_NAME", "")
    if name:
        return 64 if name in ("znver4", "znver5", "skylake-avx512", "icelake-server", "sapphirerapids") else 32
    return 64 if llvm.get_host_cpu_features().get("avx512f", False) else 32


VECTOR_BYTES = int(os.environ.get("SEA_DBS_VECTOR_BYTES", "0")) or _vector_bytes()


def vector_width(dtype: np.dtype[Any] | type) -> int:
    """Entries of a vector of this precision."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


class VectorType(types.Type):  # type: ignore[misc]
    """A vector of floats."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.width = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"vector({dtype}, {self.width})")


class MaskType(types.Type):  # type: ignore[misc]
    """The outcome of a comparison of vectors."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"mask({width})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, _ir_vector(fe_type))


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: MaskType) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), fe_type.width))


def _ir_vector(t: VectorType) -> ir.VectorType:
    return ir.VectorType(ir.DoubleType() if t.dtype == types.float64 else ir.FloatType(), t.width)


def _ir_bits(t: VectorType) -> ir.VectorType:
    return ir.VectorType(ir.IntType(t.dtype.bitwidth), t.width)


def _splat(builder: Any, value: Any, t: VectorType) -> Any:
    if isinstance(value, (int, float)):
        return ir.Constant(_ir_vector(t), [ir.Constant(_ir_vector(t).element, float(value))] * t.width)
    undefined = ir.Constant(_ir_vector(t), ir.Undefined)
    zero = ir.Constant(ir.IntType(32), 0)
    first = builder.insert_element(undefined, value, zero)
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), t.width), [0] * t.width))


def _as_vector(context: Any, builder: Any, value: Any, given: types.Type, t: VectorType) -> Any:
    if isinstance(given, VectorType):
        return value
    return _splat(builder, context.cast(builder, value, given, t.dtype), t)


def _vector_of(args: tuple[types.Type, ...]) -> VectorType | None:
    vectors = [a for a in args if isinstance(a, VectorType)]
    others = [a for a in args if not isinstance(a, (VectorType, types.Number, types.IntegerLiteral))]
    return vectors[0] if vectors and not others and all(v == vectors[0] for v in vectors) else None


def _define(op: Callable[..., Any], emit: Callable[..., Any], *, result_mask: bool = False) -> None:
    """Teach Numba one binary operator on vectors (vector with vector, vector with scalar)."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            t = _vector_of(args)
            if t is None or len(args) != 2:
                return None
            return signature(MaskType(t.width) if result_mask else t, *args)

    infer_global(op)(Template)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        t = _vector_of(sig.args)
        a, b = (_as_vector(context, builder, v, g, t) for v, g in zip(args, sig.args, strict=True))  # type: ignore[arg-type]
        return impl_ret_untracked(context, builder, sig.return_type, emit(builder, a, b))

    for pair in ((VectorType, VectorType), (VectorType, types.Number), (types.Number, VectorType)):
        lower_builtin(op, *pair)(lower)


for _op, _iop, _name in (
    (operator.add, operator.iadd, "fadd"),
    (operator.sub, operator.isub, "fsub"),
    (operator.mul, operator.imul, "fmul"),
    (operator.truediv, operator.itruediv, "fdiv"),
):
    for _o in (_op, _iop):
        _define(_o, lambda b, x, y, name=_name: getattr(b, name)(x, y, flags=FLAGS))
for _op, _sign in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _define(_op, lambda b, x, y, sign=_sign: b.fcmp_ordered(sign, x, y), result_mask=True)


@infer_global(operator.neg)
class _Neg(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(args[0], args[0]) if isinstance(args[0], VectorType) else None


@lower_builtin(operator.neg, VectorType)
def _lower_neg(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fneg(args[0])


@infer_global(operator.and_)
class _And(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(args[0], *args) if isinstance(args[0], MaskType) and args[0] == args[1] else None


@lower_builtin(operator.and_, MaskType, MaskType)
def _lower_and(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.and_(*args)


def _pointer(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array = context.make_array(sig.args[0])(context, builder, args[0])
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    vector = _ir_vector(VectorType(sig.args[0].dtype))
    return builder.bitcast(builder.gep(array.data, [index]), vector.as_pointer())


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """The vector at array[index:]; the array is flat, nothing is checked."""
    t = VectorType(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig, args)
        return builder.load(pointer, align=t.dtype.bitwidth // 8)

    return signature(t, array, index), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Put a vector to array[index:]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig, args)
        builder.store(args[2], pointer, align=sig.args[2].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature(types.void, array, index, value), codegen


@intrinsic
def select(typingctx: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask is set, else b (vectors or scalars)."""
    t = _vector_of((a, b))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x = _as_vector(context, builder, args[1], sig.args[1], t)  # type: ignore[arg-type]
        y = _as_vector(context, builder, args[2], sig.args[2], t)  # type: ignore[arg-type]
        return builder.select(args[0], x, y)

    return signature(t, mask, a, b), codegen


@intrinsic
def bits(typingctx: Any, mask: Any) -> Any:
    """A mask as an integer: bit i = entry i."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        small = builder.bitcast(args[0], ir.IntType(mask.width))
        return builder.zext(small, ir.IntType(64))

    return signature(types.int64, mask), codegen


@intrinsic
def lowest_bit(typingctx: Any, value: Any) -> Any:
    """Index of the lowest set bit of a non-zero integer."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return signature(types.int64, types.int64), codegen


@intrinsic
def clamp(typingctx: Any, x: Any, low: Any, high: Any) -> Any:
    """x limited to [low, high]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lo = _as_vector(context, builder, args[1], low, x)
        hi = _as_vector(context, builder, args[2], high, x)
        v = builder.select(builder.fcmp_ordered(">", args[0], lo), args[0], lo)
        return builder.select(builder.fcmp_ordered("<", v, hi), v, hi)

    return signature(x, x, low, high), codegen


@intrinsic
def clamp_single(typingctx: Any, x: Any, low: Any, high: Any) -> Any:
    """x limited to [low, high] in float32, whose exponents overflow early; x as it is in float64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if x.dtype == types.float64:
            return args[0]
        lo = _as_vector(context, builder, args[1], low, x)
        hi = _as_vector(context, builder, args[2], high, x)
        v = builder.select(builder.fcmp_ordered(">", args[0], lo), args[0], lo)
        return builder.select(builder.fcmp_ordered("<", v, hi), v, hi)

    return signature(x, x, low, high), codegen


# -- exponential and logarithm -----------------------------------------------------------------------------------------


def _exp2_coefficients(degree: int) -> list[float]:
    """2^f on [-1/2, 1/2] as a polynomial that is exact at 0, near-minimax in relative error, lowest power first."""
    nodes = 0.5 * np.cos(np.pi * (np.arange(4 * degree) + 0.5) / (4 * degree))
    nodes = nodes[np.abs(nodes) > 1e-3]
    matrix = nodes[:, None] ** np.arange(degree)[None, :]
    weight = nodes * np.exp2(-nodes)
    solved, *_ = np.linalg.lstsq(matrix * weight[:, None], np.expm1(nodes * math.log(2.0)) / nodes * weight, rcond=None)
    return [1.0, *(float(c) for c in solved)]


EXP2 = {types.float32: _exp2_coefficients(5), types.float64: _exp2_coefficients(10)}
_MANTISSA = {types.float32: 23, types.float64: 52}


@intrinsic
def exp2(typingctx: Any, x: Any) -> Any:
    """2^x for |x| < 1000 (float32: < 125); outside the result is wrong, so that callers clamp where they must."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        mantissa = _MANTISSA[x.dtype]
        # Adding 1.5 × 2^mantissa rounds to an integer and leaves it in the low bits; not to be reassociated.
        shifted = builder.fadd(args[0], _splat(builder, 1.5 * 2.0**mantissa, x))
        whole = builder.fsub(shifted, _splat(builder, 1.5 * 2.0**mantissa, x))
        f = builder.fsub(args[0], whole)
        coefficients = EXP2[x.dtype]
        p = _splat(builder, coefficients[-1], x)
        for c in coefficients[-2::-1]:
            p = builder.fadd(builder.fmul(p, f, flags=FLAGS), _splat(builder, c, x), flags=FLAGS)
        integers = _ir_bits(x)
        shift = ir.Constant(integers, [mantissa] * x.width)
        exponent = builder.shl(builder.bitcast(shifted, integers), shift)
        return builder.bitcast(builder.add(builder.bitcast(p, integers), exponent), _ir_vector(x))

    return signature(x, x), codegen


@intrinsic
def log_parts(typingctx: Any, x: Any) -> Any:
    """x = 2^e · m with m in [3/4, 3/2): (e, m), for positive normal x; others give NaN."""
    pair = types.UniTuple(x, 2)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        mantissa, width = _MANTISSA[x.dtype], x.dtype.bitwidth
        integers = _ir_bits(x)

        def constant(value: int) -> Any:
            return ir.Constant(integers, [value] * x.width)

        bias = (1 << (width - 2 - mantissa)) - 1
        raw = builder.bitcast(args[0], integers)
        # Take 3/4 off in the integer picture: the exponent then counts from 3/4.
        three_quarters = ((bias - 1) << mantissa) | (1 << (mantissa - 1))
        rest = builder.sub(raw, constant(three_quarters))
        exponent = builder.ashr(rest, constant(mantissa))
        m = builder.bitcast(builder.sub(raw, builder.shl(exponent, constant(mantissa))), _ir_vector(x))
        e = builder.sitofp(exponent, _ir_vector(x))
        positive = builder.fcmp_ordered(">", args[0], _splat(builder, 0.0, x))
        m = builder.select(positive, m, _splat(builder, math.nan, x))
        return context.make_tuple(builder, pair, (e, m))

    return signature(pair, x), codegen


def vector_rate(function: Any) -> Any:
    """Compile a function on vectors; it is always inlined into its caller."""
    return numba.njit(forceinline=True, nogil=True, error_model="numpy")(function)


LN2 = math.log(2.0)


@vector_rate
def log(x: Any) -> Any:
    """Natural logarithm of a positive vector, from 2 artanh((m-1)/(m+1))."""
    e, m = log_parts(x)
    t = (m - 1.0) / (m + 1.0)
    w = t * t
    p = 1.0 / 17.0 + w * (1.0 / 19.0 + w * (1.0 / 21.0))
    p = 1.0 / 9.0 + w * (1.0 / 11.0 + w * (1.0 / 13.0 + w * (1.0 / 15.0 + w * p)))
    p = 1.0 / 3.0 + w * (1.0 / 5.0 + w * (1.0 / 7.0 + w * p))
    return e * LN2 + 2.0 * (t + t * w * p)
