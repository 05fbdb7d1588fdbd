"""An ONNX file from elsewhere: a plain graph of ONNX's own operators, whole in itself, that takes a bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from envs.errors import UserError
from export.manifest import MAX_BYTES

MAX_NODES = 10_000
MAX_VALUES = 1 << 24  # of one tensor between two operators, at one observation: 64 MB of float32
DOMAINS = ("", "ai.onnx")
#: Operators that hold graphs of their own, run for a time that nobody knows, or give what no policy needs.
REFUSED = frozenset({"If", "Loop", "Scan", "SequenceMap", "Optional", "StringConcat", "StringSplit", "RegexFullMatch",
                     "ImageDecoder", "TfIdfVectorizer", "StringNormalizer"})  # fmt: skip


def check_onnx(data: bytes, place: str) -> onnx.ModelProto:
    """The model of a file's bytes; ``place`` names it.

    Raises:
        UserError: no ONNX, too large, an operator of another domain or with graphs inside, a function of its own, data
            in another file, or a tensor too large to be computed.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"{place} has {len(data):,} bytes: a policy of at most {MAX_BYTES:,} is taken")
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise UserError(f"{place} is no ONNX file, or one cut short ({len(data):,} bytes)") from error
    check_model(model, place)
    return model


def check_model(model: onnx.ModelProto, place: str) -> None:
    """`check_onnx` for a model that is loaded already.

    Raises:
        UserError: as there.
    """
    if not model.graph.node or len(model.graph.node) > MAX_NODES:
        raise UserError(f"{place} holds {len(model.graph.node)} operators: 1 to {MAX_NODES:,} are taken")
    if model.functions:
        raise UserError(f"{place} defines a function of its own, {model.functions[0].name!r}: inline it first")
    for node in model.graph.node:
        if node.domain not in DOMAINS:
            raise UserError(
                f"{place} uses the operator {node.op_type} of the domain '{node.domain}': only ONNX's own are taken"
            )
        inside = any(a.HasField("g") or a.graphs or a.HasField("sparse_tensor") for a in node.attribute)
        if inside or node.op_type in REFUSED or node.op_type.startswith("Sequence"):
            raise UserError(f"{place} uses the operator {node.op_type}: no policy needs it, and it is not taken")
    if model.graph.sparse_initializer:
        raise UserError(f"{place} holds sparse weights, whose size nothing bounds: save them dense")
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise UserError(f"{place} keeps '{tensor.name}' in another file: save it as a single file")
        if math.prod(tensor.dims) > MAX_BYTES or min(tensor.dims, default=0) < 0:
            raise UserError(f"{place} says that '{tensor.name}' has the shape {list(tensor.dims)}: too large")
    _check_sizes(model, place)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_sizes(model: onnx.ModelProto, place: str) -> None:
    """Refuse a graph whose tensors are known to be huge; a free axis counts as one observation."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in (*single.graph.input, *single.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value"):
                axis.dim_value = 1
    try:
        inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise UserError(f"{place} is not valid ONNX: {' '.join(str(error).split())[:200]}") from error
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim if axis.HasField("dim_value")]
        if math.prod(sizes) > MAX_VALUES or min(sizes, default=0) < 0:
            raise UserError(
                f"{place} computes '{value.name}' of {sizes} values: a policy's tensors have at most {MAX_VALUES:,}"
            )
