"""Somebody else's graph in the form that is quantised and written as C: each linear layer a Gemm, a row an output.

The numbers stay: constants are transposed or reshaped, never computed with, and MatMul + Add is one Gemm. What cannot
be rewritten exactly stays as it is, for the reader of policies to name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from export.integer.graph import name_by_position


def house_form(model: onnx.ModelProto) -> None:
    """Rewrite a checked model in place; names of nodes and tensors that remain are kept, nodes without one get one.

    - Constant, and Identity or Transpose of a constant: an initialiser of the same name.
    - MatMul(x, W), x (batch, k) and W (k, n) constant: Gemm.
    - Gemm with constant W (k, n), transB=0: W transposed, transB=1.
    - Gemm without bias, its result read only by Add with a constant of one number, (n,) or (1, n): that is its bias.
    - a Gemm's constant bias of one number or (1, n): (n,).
    """
    name_by_position(model.graph)
    _Rewrite(model).run()


class _Rewrite:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        found = onnx.shape_inference.infer_shapes(model).graph
        self.ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in (*found.input, *found.value_info, *found.output)
            if value.type.tensor_type.HasField("shape")
        }

    def run(self) -> None:
        for node in list(self.graph.node):
            self._fold(node)
        for node in list(self.graph.node):
            if node.op_type == "MatMul":
                self._product(node)
        for node in [node for node in self.graph.node if node.op_type == "Gemm"]:
            self._turn(node)
            self._add(node)
            self._bias(node)
        self._forget()

    def _fold(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node)
        value: NDArray[Any] | None = None
        if node.op_type == "Constant" and "value" in attributes:
            value = numpy_helper.to_array(attributes["value"])
        elif node.op_type == "Identity" and node.input[0] in self.constants:
            value = self.constants[node.input[0]]
        elif node.op_type == "Transpose" and node.input[0] in self.constants:
            value = self.constants[node.input[0]].transpose(attributes.get("perm"))
        if value is not None:
            self.graph.node.remove(node)
            self._keep(node.output[0], value)

    def _product(self, node: onnx.NodeProto) -> None:
        weight = self.constants.get(node.input[1])
        if weight is not None and weight.ndim == 2 and self.ranks.get(node.input[0]) == 2:
            node.op_type = "Gemm"

    def _turn(self, node: onnx.NodeProto) -> None:
        weight = self.constants.get(node.input[1])
        if weight is None or _attributes(node).get("transB", 0):
            return
        node.input[1] = self._changed(node.input[1], weight.T, "transposed")
        _set(node, "transB", 1)

    def _add(self, node: onnx.NodeProto) -> None:
        """Take a constant that is added to the result for the bias."""
        weight, result = self.constants.get(node.input[1]), node.output[0]
        readers = [other for other in self.graph.node if result in other.input]
        bare = len(node.input) < 3 or not node.input[2]
        alone = len(readers) == 1 and result not in {value.name for value in self.graph.output}
        if weight is None or not (bare and alone) or readers[0].op_type != "Add":
            return
        name = next((name for name in readers[0].input if name != result), "")
        bias = self.constants.get(name)
        if bias is None or not _fits(bias, len(weight)) or _attributes(node).get("beta", 1.0) != 1.0:
            return
        del node.input[2:]
        node.input.append(name)
        node.output[0] = readers[0].output[0]
        self.graph.node.remove(readers[0])
        for value in [value for value in self.graph.value_info if value.name == result]:
            self.graph.value_info.remove(value)

    def _bias(self, node: onnx.NodeProto) -> None:
        weight, bias = self.constants.get(node.input[1]), self.constants.get(node.input[2] if node.input[2:] else "")
        if weight is not None and bias is not None and bias.shape != (len(weight),) and _fits(bias, len(weight)):
            row = np.broadcast_to(bias.reshape(-1), (len(weight),))
            node.input[2] = self._changed(node.input[2], row, "row")

    def _changed(self, name: str, value: NDArray[Any], how: str) -> str:
        """The name of a constant's changed form: its own where nothing else reads it."""
        others = sum(list(node.input).count(name) for node in self.graph.node) > 1
        if others or name in {value.name for value in self.graph.output}:
            name = f"{name}_{how}"
            taken = set(self.constants) | {out for node in self.graph.node for out in node.output}
            taken |= {value.name for value in self.graph.input}
            while name in taken and not np.array_equal(self.constants.get(name, np.zeros(0)), value):
                name += "_"
        self._keep(name, value)
        return name

    def _keep(self, name: str, value: NDArray[Any]) -> None:
        tensor = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        old = next((found for found in self.graph.initializer if found.name == name), None)
        if old is None:
            self.graph.initializer.append(tensor)
        else:
            old.CopyFrom(tensor)
        self.constants[name] = value
        for stale in [found for found in self.graph.value_info if found.name == name]:
            self.graph.value_info.remove(stale)

    def _forget(self) -> None:
        """Drop the constants that nothing reads any more."""
        read = {name for node in self.graph.node for name in node.input} | {value.name for value in self.graph.output}
        for tensor in [tensor for tensor in self.graph.initializer if tensor.name not in read]:
            self.graph.initializer.remove(tensor)


def _fits(bias: NDArray[Any], outputs: int) -> bool:
    """Adding it to (batch, outputs) is adding one number to each output."""
    return bias.ndim <= 2 and (bias.size == 1 or bias.shape in ((outputs,), (1, outputs)))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _set(node: onnx.NodeProto, name: str, value: int) -> None:
    for old in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(old)
    node.attribute.append(onnx.helper.make_attribute(name, value))
