"""Recognise a GRU cell that the exporter took apart into matrix products, sigmoids and a tanh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envs.errors import UserError
from export.integer.graph import Graph, Weights, describe

Expression = Any  # nested tuples: (operator, operand, ...); the operands of Add and Mul are sorted

# PyTorch's GRUCell (torch.nn.GRUCell): r, z, n in the order of its weights; h the old state.
_X0, _X1, _X2 = (("x", k) for k in range(3))
_H0, _H1, _H2 = (("h", k) for k in range(3))


def _commutative(operator: str, *operands: Expression) -> Expression:
    return (operator, *sorted(operands, key=repr))


_R = ("Sigmoid", _commutative("Add", _X0, _H0))
_Z = ("Sigmoid", _commutative("Add", _X1, _H1))
_N = ("Tanh", _commutative("Add", _X2, _commutative("Mul", _R, _H2)))
_STATE = ("state",)
_FORMS = (
    _commutative("Add", _commutative("Mul", ("Sub", _STATE, _N), _Z), _N),
    _commutative("Add", _commutative("Mul", ("Sub", ("one",), _Z), _N), _commutative("Mul", _Z, _STATE)),
)


@dataclass(frozen=True)
class GruStep:
    """r = σ(Wxr x + Whr h), z = σ(Wxz x + Whz h), n = tanh(Wxn x + r (Whn h)), h' = n + z (h - n); biases in each.

    Weights (3 hidden, inputs) and (3 hidden, hidden), rows in the order r, z, n.
    """

    name: str
    inputs: int
    hidden: int
    weight_x: Weights
    bias_x: Weights | None
    weight_h: Weights
    bias_h: Weights | None
    output: str


def read_gru(graph: Graph, gemm: Any, inputs: int) -> GruStep:
    """The GRU cell whose input product is ``gemm``.

    Raises:
        UserError: the nodes around it are not a GRU cell, or its sizes do not fit.
    """
    if len(graph.inputs) != 2 or len(graph.outputs) != 2:
        raise UserError(
            f"{describe(gemm)} feeds a GRU cell, but the graph has no second input and output for its state"
        )
    state, axes = list(graph.inputs.items())[1]
    output = list(graph.outputs)[1]
    hidden = axes[-1]
    products: dict[str, Any] = {"x": gemm}
    found = _Expressions(graph, state, products).of(output)
    if found not in _FORMS:
        raise UserError(f"{describe(gemm)} is read by a Split, and what follows is not a GRU cell as PyTorch writes it")
    parts = {}
    for key, columns in (("x", inputs), ("h", hidden)):
        node = products[key]
        a = graph.attributes(node)
        weight = graph.weights(node.input[1], node)
        if not a.get("transB", 0) or a.get("alpha", 1.0) != 1.0 or weight.value.shape != (3 * hidden, columns):
            raise UserError(
                f"{describe(node)} must be y = W x + b, W ({3 * hidden}, {columns}); it is {weight.value.shape}"
            )
        parts[key] = weight, graph.weights(node.input[2], node) if len(node.input) > 2 else None
    return GruStep(gemm.name, inputs, hidden, *parts["x"], *parts["h"], output)


class _Expressions:
    """Writes a tensor as an expression of the cell's six products and its state."""

    def __init__(self, graph: Graph, state: str, products: dict[str, Any]) -> None:
        self.graph = graph
        self.state = state
        self.products = products

    def of(self, tensor: str, depth: int = 0) -> Expression:
        tensor = self.graph.origin(tensor)
        if tensor == self.state:
            return _STATE
        constant = self.graph.constant(tensor)
        if constant is not None:
            return ("one",) if constant.size == 1 and float(constant.reshape(())) == 1.0 else ("constant", tensor)
        node = self.graph.maker.get(tensor)
        if node is None or depth > 12:  # a GRU cell is 8 deep
            return ("input", tensor)
        if node.op_type == "Split":
            return self._part(node, tensor)
        operands = [self.of(name, depth + 1) for name in node.input]
        return _commutative(node.op_type, *operands) if node.op_type in ("Add", "Mul") else (node.op_type, *operands)

    def _part(self, split: Any, tensor: str) -> Expression:
        gemm = self.graph.maker.get(self.graph.origin(split.input[0]))
        sizes = self.graph.constant(split.input[1]) if len(split.input) > 1 else None
        equal = sizes is None or len(set(sizes.tolist())) == 1
        if gemm is None or gemm.op_type != "Gemm" or len(split.output) != 3 or not equal:
            return ("Split", tensor)
        key = "h" if self.graph.origin(gemm.input[0]) == self.state else "x"
        if self.products.setdefault(key, gemm) is not gemm:
            return ("Gemm", gemm.name)
        return key, list(split.output).index(tensor)
