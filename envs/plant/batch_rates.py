"""One update of one cell of each nucleus, on vectors: derived from the scalar reference kernel, never written by hand.

`python -m envs.plant.batch_rates` prints the derived source.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from typing import Any

from envs.plant import reference, synapses
from envs.plant.batch_derive import derive
from envs.plant.batch_symbols import SymbolArray, trace, variable
from envs.plant.batch_vector import clamp, clamp_single, exp2, log, select, vector_rate

V, I_IN, DT = variable("V"), variable("I_in"), variable("dt")


def thalamus_source() -> str:
    """(V, h, r) of the next sample."""
    gates = SymbolArray("x")
    result = trace(reference._thalamus, 0, V, gates, I_IN, DT)
    return derive("thalamus", ["V", "x0", "x1", "I_in", "dt"], [result, *gates.results()])


def stn_source() -> str:
    """(V, eleven gates in the order of envs.plant.stn, Ca) of the next sample."""
    gates, calcium = SymbolArray("x"), SymbolArray("Ca")
    result = trace(reference._stn, 0, V, gates, calcium, I_IN, DT)
    names = ["V", *(f"x{i}" for i in range(11)), "Ca0", "I_in", "dt"]
    return derive("stn", names, [result, *gates.results(), *calcium.results()])


def pallidum_source() -> str:
    """(V, n, h, r, Ca) of the next sample."""
    gates, calcium = SymbolArray("x"), SymbolArray("Ca")
    result = trace(reference._pallidum, 0, V, gates, calcium, I_IN, DT)
    return derive(
        "pallidum", ["V", "x0", "x1", "x2", "Ca0", "I_in", "dt"], [result, *gates.results(), *calcium.results()]
    )


def striatum_source() -> str:
    """(V, m, h, n, p) of the next sample."""
    gates = SymbolArray("x")
    result = trace(reference._striatum, 0, V, gates, variable("g_m"), I_IN, DT)
    return derive("striatum", ["V", "x0", "x1", "x2", "x3", "g_m", "I_in", "dt"], [result, *gates.results()])


def gaba_opening_source() -> str:
    """Opening of a striatal GABA gate (1/ms); the quotient makes one fraction of 1 + tanh, which else cancels."""
    return derive("gaba_opening", ["V"], [trace(synapses.gaba_opening, V) / 1.0])


def compile_source(source: str) -> Callable[..., Any]:
    """The vector function of a derived source; its lines show in tracebacks."""
    name = source[len("def ") : source.index("(")]
    filename = f"<derived {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope: dict[str, Any] = {"clamp": clamp, "clamp_single": clamp_single, "exp2": exp2, "log": log, "select": select}
    exec(compile(source, filename, "exec"), scope)
    function: Callable[..., Any] = vector_rate(scope[name])
    return function


SOURCES = {
    "thalamus": thalamus_source(),
    "stn": stn_source(),
    "pallidum": pallidum_source(),
    "striatum": striatum_source(),
    "gaba_opening": gaba_opening_source(),
}
thalamus = compile_source(SOURCES["thalamus"])
stn = compile_source(SOURCES["stn"])
pallidum = compile_source(SOURCES["pallidum"])
striatum = compile_source(SOURCES["striatum"])
gaba_opening = compile_source(SOURCES["gaba_opening"])
