"""An ONNX graph as the reader of policies sees it: constants folded, Q/DQ pairs looked through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError

Array = NDArray[Any]
MAX_BYTES = 512 * 2**20  # an ONNX file beyond is no policy for a board


@dataclass(frozen=True)
class Quant:
    """An activation's quantisation: real = scale * (int8 - zero)."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Weights:
    """Weights or a bias, float32, and how the file holds them: int8 with a scale for each row, or None."""

    value: NDArray[np.float32]
    stored: NDArray[np.int8] | None = None
    scale: NDArray[np.float64] | None = None


class Graph:
    """Names -> nodes of a loaded ONNX file.

    Raises:
        UserError: not an ONNX file.
    """

    def __init__(self, data: bytes) -> None:
        import onnx

        from export.untrusted import check_model

        if len(data) > MAX_BYTES:
            raise UserError(f"the ONNX file has {len(data):,} bytes: at most {MAX_BYTES:,} are read")
        try:
            self.model = onnx.load_model_from_string(data)
        except Exception as error:  # protobuf's DecodeError, by whichever of its implementations is installed
            raise UserError(f"this is no ONNX file, or one cut short: {str(error).splitlines()[0]}") from error
        graph = self.model.graph
        if not graph.node or not graph.input or not graph.output:
            raise UserError("this ONNX file holds no graph with an input and an output")
        check_model(self.model, "this ONNX file")
        name_by_position(graph)
        self._helper = onnx
        self._constants: dict[str, Array] = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        self.maker: dict[str, Any] = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self.inputs = {v.name: _axes(v) for v in graph.input if v.name not in self._constants}
        self.outputs = {v.name: _axes(v) for v in graph.output}
        self.metadata = {p.key: p.value for p in self.model.metadata_props}

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's attributes as Python values."""
        return {a.name: self._helper.helper.get_attribute_value(a) for a in node.attribute}

    def readers(self, tensor: str) -> list[Any]:
        """The nodes that read a tensor."""
        return self._readers.get(tensor, [])

    def constant(self, name: str) -> Array | None:
        """A tensor that does not depend on the inputs, or None."""
        if name in self._constants:
            return self._constants[name]
        node = self.maker.get(name)
        if node is None:
            return None
        found: Array | None = None
        if node.op_type == "Constant":
            found = self._helper.numpy_helper.to_array(self.attributes(node)["value"])
        elif node.op_type in ("Mul", "Identity", "DequantizeLinear"):
            values = [self.constant(item) for item in node.input]
            if all(value is not None for value in values):
                found = self._fold(node, [value for value in values if value is not None])
        if found is not None:
            self._constants[name] = found
        return found

    def _fold(self, node: Any, values: list[Array]) -> Array:
        if node.op_type == "Identity":
            return values[0]
        if node.op_type == "Mul":
            return np.asarray(values[0] * values[1])
        scale, zero = _along(values, self.attributes(node).get("axis", 1), node)
        return ((values[0].astype(np.int64) - zero).astype(np.float32) * scale).astype(np.float32)

    def weights(self, name: str, node: Any) -> Weights:
        """Weights of a layer, rows first as stored.

        Raises:
            UserError: they depend on an input, are not finite, or are quantised otherwise than symmetric int8.
        """
        value = self.constant(name)
        if value is None:
            raise UserError(f"{describe(node)} has weights that are computed: only constant ones are understood")
        if not np.isfinite(value).all():
            raise UserError(f"{describe(node)} has a weight that is not finite")
        maker = self.maker.get(name)
        if maker is None or maker.op_type != "DequantizeLinear" or (stored := self.constant(maker.input[0])) is None:
            return Weights(value.astype(np.float32))
        if stored.dtype != np.int8:
            return Weights(value.astype(np.float32))
        scale = np.asarray(self.constant(maker.input[1]), np.float64)
        zero = self.constant(maker.input[2]) if len(maker.input) > 2 else np.zeros(1)
        axis = self.attributes(maker).get("axis", 1)
        if np.any(zero) or (scale.size > 1 and axis != 0):
            raise UserError(
                f"{describe(node)} has weights that are not symmetric int8 with one scale an output channel"
            )
        return Weights(value, stored, np.broadcast_to(scale.reshape(-1), (stored.shape[0],)).copy())

    def look_through(self, tensor: str) -> tuple[str, Quant | None]:
        """Follow a tensor forward through its Q/DQ pairs: (what is read, the last pair's quantisation or None)."""
        quant = None
        while True:
            pairs = [n for n in self.readers(tensor) if n.op_type == "QuantizeLinear"]
            if len(pairs) != 1 or len(self.readers(tensor)) != 1:
                return tensor, quant
            quant = self._quant(pairs[0])
            after = self.readers(pairs[0].output[0])
            if len(after) != 1 or after[0].op_type != "DequantizeLinear":
                raise UserError(f"{describe(pairs[0])} is not followed by one DequantizeLinear")
            tensor = after[0].output[0]

    def origin(self, tensor: str) -> str:
        """Follow a tensor back through its Q/DQ pairs to what was computed."""
        while True:
            node = self.maker.get(tensor)
            if node is None or node.op_type not in ("DequantizeLinear", "QuantizeLinear", "Identity"):
                return tensor
            tensor = node.input[0]

    def _quant(self, node: Any) -> Quant:
        scale, zero = self.constant(node.input[1]), self.constant(node.input[2]) if len(node.input) > 2 else None
        if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype != np.int8:
            raise UserError(f"{describe(node)} must have one constant scale and one int8 zero point")
        if not (np.isfinite(scale).all() and float(scale.reshape(())) > 0):
            raise UserError(f"{describe(node)} has the scale {float(scale.reshape(())):g}: it must be above 0")
        return Quant(float(scale.reshape(())), int(zero.reshape(())))


def name_by_position(graph: Any) -> None:
    """Name the nodes that have no name ``#1``, ``#2``... by their place in the file."""
    for i, node in enumerate(graph.node, 1):
        node.name = node.name or f"#{i}"


def describe(node: Any) -> str:
    """How an error names a node: by its name, or where it stands in the file."""
    if node.name.startswith("#"):
        return f"the ONNX node {node.name} ({node.op_type}, without a name)"
    return f"the ONNX node '{node.name}' ({node.op_type})"


def _axes(value: Any) -> tuple[int, ...]:
    """Axis lengths; -1 where dynamic."""
    return tuple(int(d.dim_value) if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)


def _along(values: list[Array], axis: int, node: Any) -> tuple[Array, Array]:
    """Scale and zero point of a DequantizeLinear, shaped to broadcast along its axis."""
    shape = [1] * values[0].ndim
    if values[1].size > 1:
        if values[0].ndim == 0 or values[1].size != values[0].shape[axis]:
            raise UserError(f"{describe(node)} has {values[1].size} scales for the shape {values[0].shape}")
        shape[axis] = values[1].size
    zero = values[2] if len(values) > 2 else np.zeros(1, np.int64)
    return values[1].reshape(shape), zero.astype(np.int64).reshape(shape if zero.size > 1 else [1] * values[0].ndim)
