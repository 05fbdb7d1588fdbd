"""What the fast kernel computes, function by function, against the readable definitions it was derived from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from envs.plant import batch_rates as rates
from envs.plant import pallidum, reference, stn, striatum, synapses, thalamus
from envs.plant.batch_derive import derive
from envs.plant.batch_symbols import trace, variable
from envs.plant.batch_vector import exp2, load, log, store, vector_rate, vector_width

V = np.concatenate([np.linspace(-120.0, 60.0, 4001), [-54.0, -52.0, -30.0, -27.0, -54.0 + 1e-7, -27.0 - 1e-3]])
NUCLEI = (thalamus, stn, pallidum, striatum, synapses)

# Largest error allowed, relative to the readable value and to the largest one over all voltages. float64: powers of one
# exponential grow its rounding of 3e-16 up to 24-fold. float32: the same of 6e-8, a slope of 1/(2 mV) and exponents of
# up to 60 multiply the rounding of V; and x/(e^x - 1) is taken as x/(1 - e^-x) - x, which cancels where it is small.
TOLERANCE = {"float64": (1e-12, 0.0), "float32": (2e-4, 3e-7)}
# Below this, a saturated gate may be anything: steep sigmoids are clamped at e^-40, and the readable opening of a
# GABA gate, 2 (1 + tanh), is itself rounded to 4e-16.
FLOOR = {"synapses": 1e-15}


def _vectors(function: Callable[..., Any], arguments: Sequence[Any], dtype: str) -> NDArray[Any]:
    """A vector function of several results, called on arrays; numbers are passed as they are."""
    width = vector_width(np.dtype(dtype))
    n = next(len(a) for a in arguments if isinstance(a, np.ndarray))
    size = -(-n // width) * width
    rows = [np.pad(a.astype(dtype), (0, size - n), mode="edge") for a in arguments if isinstance(a, np.ndarray)]
    names = iter(range(len(rows)))
    call = ", ".join(f"load(A, {next(names)} * size + x)" if isinstance(a, np.ndarray) else repr(a) for a in arguments)
    text = (
        "def run(A, out, size, width):\n"
        "    for x in range(0, size, width):\n"
        f"        r = function({call})\n"
        "        for i in range(len(r)):\n"
        "            store(out, i * size + x, r[i])\n"
    )
    scope: dict[str, Any] = {"load": load, "store": store, "function": function}
    exec(text, scope)
    out = np.full((32, size), np.nan, dtype=dtype)
    numba.njit(error_model="numpy")(scope["run"])(np.concatenate(rows), out.reshape(-1), size, width)
    return out[:, :n]


def _readable(module: ModuleType) -> dict[str, Any]:
    """Its rate functions: what is compiled and takes a voltage alone."""
    found = {name: f for name, f in vars(module).items() if hasattr(f, "py_func") and f.__module__ == module.__name__}
    return {name: f for name, f in found.items() if f.py_func.__code__.co_varnames[:1] == ("V",) and _arity(f) == 1}


def _arity(function: Any) -> int:
    return int(function.py_func.__code__.co_argcount)


def _exact_linoid(x: float, slope: float) -> float:
    """As `envs.plant.common.linoid`, without its loss of digits around 0/0, which the fast one does not have either."""
    return slope if x == 0.0 else x / -math.expm1(-x / slope)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("module", NUCLEI, ids=lambda m: m.__name__.rsplit(".", 1)[1])
def test_every_rate_is_its_definition(module: ModuleType, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = _readable(module)
    one = variable("V")
    # A quotient makes one fraction of it, as where the kernel divides by it or by its time constant.
    nodes = [trace(f, one) / 1.0 for f in functions.values()]
    fast = rates.compile_source(derive("fast", ["V"], [*nodes, one]))
    monkeypatch.setattr(striatum, "linoid", _exact_linoid)
    voltages = V.astype(dtype).astype(np.float64)  # both get the same ones
    out = _vectors(fast, [V], dtype)
    relative, of_largest = TOLERANCE[dtype]
    for row, (name, f) in zip(out, functions.items(), strict=False):
        expected = np.array([f.py_func(v) for v in voltages])
        size = np.abs(expected)
        allowed = relative * size + of_largest * size.max() + FLOOR.get(module.__name__.rsplit(".", 1)[1], 1e-17)
        worst = int(np.argmax(np.abs(row - expected) / allowed))
        assert abs(row[worst] - expected[worst]) <= allowed[worst], (name, voltages[worst], row[worst], expected[worst])


def test_the_rates_of_all_nuclei_were_found() -> None:
    assert [len(_readable(module)) for module in NUCLEI] == [6, 20, 7, 8, 1]


@vector_rate
def _both(x: Any, y: Any) -> Any:
    return exp2(x), log(y)


def test_own_exponential_and_logarithm() -> None:
    x, y = np.linspace(-120.0, 120.0, 20_001), np.geomspace(1e-30, 1e30, 20_001)
    for dtype, tolerance in (("float64", 1e-14), ("float32", 3e-7)):
        powers, logs = _vectors(_both, [x, y], dtype)[:2]
        exact = np.exp2(x.astype(dtype).astype(np.float64))
        assert np.abs(powers / exact - 1.0).max() < tolerance
        np.testing.assert_allclose(logs, np.log(y.astype(dtype).astype(np.float64)), rtol=tolerance, atol=tolerance)


# -- whole updates: the fractions that the kernel makes of gates and time constants -----------------------------------

DT = 1.0  # ms; a long step, so that what is added is not lost beside what it is added to


def _scalar(nucleus: str, args: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One update by the reference kernel of every column of arguments: V, gates, (Ca or g_m), I_in."""
    update = getattr(reference, f"_{nucleus}").py_func
    results = []
    for values in zip(*args, strict=True):
        gates = np.array(values[1 : 1 + _GATES[nucleus]])[:, None]
        extra = list(values[1 + _GATES[nucleus] : -1])
        calcium = np.array(extra)
        middle = [calcium] if nucleus in ("stn", "pallidum") else extra
        new = update(0, values[0], gates, *middle, values[-1], DT)
        results.append([new, *gates[:, 0], *(calcium if nucleus in ("stn", "pallidum") else [])])
    return np.array(results).T


_GATES = {"thalamus": 2, "stn": 11, "pallidum": 3, "striatum": 4}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("nucleus", list(_GATES))
def test_a_whole_update_is_the_reference_kernels(nucleus: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    n = 800
    extra = {"stn": (0.001, 0.5), "pallidum": (0.0, 2.0), "striatum": (1.5, 2.6)}.get(nucleus)
    args = [rng.uniform(-120.0, 60.0, n), *rng.uniform(0.0, 1.0, (_GATES[nucleus], n))]
    args += [rng.uniform(*extra, n)] if extra else []
    args = [a.astype(dtype).astype(np.float64) for a in [*args, rng.uniform(-20.0, 20.0, n)]]
    expected = _scalar(nucleus, args)
    fast = _vectors(getattr(rates, nucleus), [*args, DT], dtype)[: len(expected)]
    # Currents of up to 1e4 µA/cm² cancel in the voltage, so it is measured against them.
    scale = np.maximum(np.abs(expected), 1.0)
    scale[0] = np.maximum(scale[0], 1e4)
    assert (np.abs(fast - expected) / scale).max() < {"float64": 1e-12, "float32": 2e-5}[dtype]
