"""The readable nuclei as expressions: run a reference function on symbols instead of numbers and keep what it computed.

`trace` calls a function of `envs.plant.reference` (and through it the rate functions of the nucleus modules) with
symbols. What comes back is the definition itself, as a graph, from which `envs.plant.batch_derive` writes vector code.
So a constant, a rate or a current is changed in its nucleus module, and both kernels follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

from envs.plant import common


class Node(NamedTuple):
    """One operation: kind, operands (nodes), value (of a constant), name (of a variable)."""

    kind: str  # number, var, +, -, *, /, exp, log, linoid
    args: tuple[Node, ...] = ()
    value: float = 0.0
    name: str = ""

    def __add__(self, other: Operand) -> Node:  # type: ignore[override]
        return Node("+", (self, as_node(other)))

    def __radd__(self, other: Operand) -> Node:
        return Node("+", (as_node(other), self))

    def __sub__(self, other: Operand) -> Node:
        return Node("-", (self, as_node(other)))

    def __rsub__(self, other: Operand) -> Node:
        return Node("-", (as_node(other), self))

    def __mul__(self, other: Operand) -> Node:  # type: ignore[override]
        return Node("*", (self, as_node(other)))

    def __rmul__(self, other: Operand) -> Node:  # type: ignore[override]
        return Node("*", (as_node(other), self))

    def __truediv__(self, other: Operand) -> Node:
        return Node("/", (self, as_node(other)))

    def __rtruediv__(self, other: Operand) -> Node:
        return Node("/", (as_node(other), self))

    def __neg__(self) -> Node:
        return Node("*", (as_node(-1.0), self))


Operand: TypeAlias = "Node | float"


def as_node(value: Operand) -> Node:
    """A number as a node."""
    return value if isinstance(value, Node) else Node("number", value=float(value))


def variable(name: str) -> Node:
    """A symbol."""
    return Node("var", name=name)


class SymbolArray:
    """Stands for a state array whose last index is the cell: hands out symbols, remembers what is written."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.written: dict[int, Node] = {}

    @staticmethod
    def _row(key: Any) -> int:
        return int(key[0]) if isinstance(key, tuple) else 0

    def __getitem__(self, key: Any) -> Node:
        return variable(f"{self._prefix}{self._row(key)}")

    def __setitem__(self, key: Any, value: Operand) -> None:
        self.written[self._row(key)] = as_node(value)

    def results(self) -> list[Node]:
        """What was written, by row."""
        return [self.written[row] for row in sorted(self.written)]


def _exp(x: Operand) -> Operand:
    return Node("exp", (x,)) if isinstance(x, Node) else math.exp(x)


def _log(x: Operand) -> Operand:
    return Node("log", (x,)) if isinstance(x, Node) else math.log(x)


def _tanh(x: Operand) -> Operand:
    return 2.0 / (1.0 + Node("exp", (-2.0 * x,))) - 1.0 if isinstance(x, Node) else math.tanh(x)


def _linoid(x: Node, slope: float) -> Node:
    return Node("linoid", (x, as_node(slope)))


_MATH = SimpleNamespace(exp=_exp, log=_log, tanh=_tanh)
_traced: dict[int, Any] = {}


def _convert(value: Any) -> Any:
    """A global of a rate function as tracing needs it."""
    if value is math:
        return _MATH
    if value is common.linoid:
        return _linoid  # it branches on its argument
    if isinstance(value, ModuleType) and value.__name__.startswith("envs.plant"):
        return _Members(value)
    if hasattr(value, "py_func"):
        return _symbolic(value)
    return value


class _Members:
    """A nucleus module whose functions accept symbols."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return _convert(getattr(self._module, name))


class _Globals(dict[str, Any]):
    """The globals of a function, converted one by one when they are read."""

    def __init__(self, names: tuple[str, ...], of: dict[str, Any]) -> None:
        super().__init__({name: _convert(of[name]) for name in names if name in of})
        self["__builtins__"] = of["__builtins__"]


def _symbolic(compiled: Any) -> Callable[..., Any]:
    """The Python function behind a compiled one, accepting symbols."""
    function = compiled.py_func
    key = id(function)
    if key not in _traced:
        _traced[key] = FunctionType(
            function.__code__, _Globals(function.__code__.co_names, function.__globals__), function.__name__
        )
    traced: Callable[..., Any] = _traced[key]
    return traced


def trace(compiled: Any, *args: Any) -> Node:
    """Call a compiled reference function with symbols (and `SymbolArray`s); its result as a node."""
    return as_node(_symbolic(compiled)(*args))


def linear(node: Node) -> tuple[Fraction, Fraction] | None:
    """(a, b) if the node is a V + b with decimal constants, exactly; else None."""
    if node.kind == "number":
        return Fraction(0), Fraction(repr(node.value))
    if node.kind == "var":
        return (Fraction(1), Fraction(0)) if node.name == "V" else None
    if node.kind not in ("+", "-", "*", "/"):
        return None
    left, right = linear(node.args[0]), linear(node.args[1])
    if left is None or right is None:
        return None
    if node.kind in "+-":
        sign = 1 if node.kind == "+" else -1
        return left[0] + sign * right[0], left[1] + sign * right[1]
    if node.kind == "*" and left[0] == 0:
        return left[1] * right[0], left[1] * right[1]
    if node.kind in "*/" and right[0] == 0:
        factor = right[1] if node.kind == "*" else 1 / right[1]
        return left[0] * factor, left[1] * factor
    return None
