"""FP32 ONNX -> INT8 ONNX: static, per channel, calibrated on real observations, in QDQ form.

Activations are int8 with a zero point (after a ReLU it is -128: no half of the range is wasted), weights symmetric int8
per output channel, biases int32 at scale (input scale × weight scale). The observation is quantised once, after the
graph's own centring, so that a board can fuse both into one scale and zero point. The logits are not quantised: they
leave the last layer's int32 accumulators as float, since 256 levels would turn near decisions
into ties.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from envs.errors import UserError
from export.precision import centring

Float = NDArray[np.float32]
MAX_SAMPLES = 512  # observations used for calibration, evenly spread over those given
HEADROOM = 0.2  # a few plants do not show the extremes: what saturates costs more than a coarser step (docs/export.md)
LEVELS = 255.0  # steps of an int8 scale
LAYERS = frozenset({"Conv", "Gemm", "MatMul"})  # computed in integers, with the pools and moves between them
QUANTISED = sorted(LAYERS | {"AveragePool", "MaxPool", "Relu", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
THROUGH = frozenset(QUANTISED) - LAYERS | {"QuantizeLinear", "DequantizeLinear", "Identity"}


def to_int8(data: bytes, feeds: Mapping[str, Float], metadata: Mapping[str, str]) -> bytes:
    """INT8 QDQ bytes of an FP32 policy; equal input, equal bytes.

    Args:
        data: the FP32 ONNX file, its batch axis dynamic or 1.
        feeds: calibration values of each graph input, one a row of axis 0: real observations (n, n_obs), and the states
            that went with them.
        metadata: replaces the file's.

    Raises:
        UserError: calibration values that are missing or not finite, or a graph that cannot be quantised.
    """
    model = onnx.load_model_from_string(data)
    _check_feeds(model, feeds)
    feeds = _with_headroom(feeds, model.graph.input[0].name)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        quantised = _quantise(model, feeds, Path(folder))
    _quantise_input(quantised, feeds)
    _float_where_float(quantised)
    _lean_biases(quantised)
    _tidy(quantised, model, metadata)
    try:
        onnx.checker.check_model(quantised, full_check=True)
    except onnx.checker.ValidationError as error:
        raise UserError(f"the INT8 graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    return bytes(quantised.SerializeToString(deterministic=True))


def check_calibration(values: NDArray[Any], name: str) -> None:
    """Refuse calibration values that would make a scale meaningless.

    Raises:
        UserError: none at all, or NaN or infinity (the place is named).
    """
    if not values.size:
        raise UserError(f"the calibration data '{name}' is empty: INT8 scales need at least one real observation")
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise UserError(
            f"the calibration data '{name}' holds {values[place]} at index {place}: every value must be finite"
        )


def _check_feeds(model: onnx.ModelProto, feeds: Mapping[str, Float]) -> None:
    inputs = {value.name: value for value in model.graph.input}
    if set(inputs) != set(feeds):
        raise UserError(f"calibration gives values for {sorted(feeds)}, the graph takes {sorted(inputs)}")
    for name, values in feeds.items():
        check_calibration(values, name)
        width = inputs[name].type.tensor_type.shape.dim[-1].dim_value
        if values.ndim != 2 or values.shape[1] != width:
            raise UserError(f"the calibration data '{name}' has shape {values.shape}: (n, {width}) is needed")


def _with_headroom(feeds: Mapping[str, Float], first: str) -> dict[str, Float]:
    """At most `MAX_SAMPLES` rows, and the same again with a smaller and a larger observation."""
    n = len(feeds[first])
    rows = np.unique(np.linspace(0, n - 1, min(n, MAX_SAMPLES)).round().astype(int))
    factors = np.repeat(np.array([1.0 - HEADROOM, 1.0, 1.0 + HEADROOM], np.float32), len(rows))[:, None]
    tiled = {name: np.tile(values[rows], (3, 1)) for name, values in feeds.items()}
    return tiled | {first: tiled[first] * factors}


def _quantise(model: onnx.ModelProto, feeds: Mapping[str, Float], folder: Path) -> onnx.ModelProto:
    """What onnxruntime's quantiser makes of the graph."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(range(len(next(iter(feeds.values())))))

        def get_next(self) -> dict[str, Float] | None:
            row = next(self.rows, None)
            return None if row is None else {name: values[row : row + 1] for name, values in feeds.items()}

    try:
        quantize_static(
            onnx.shape_inference.infer_shapes(model),
            folder / "int8.onnx",
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,  # gates of a recurrent cell stay in float
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"the graph cannot be quantised to INT8: {reason[0]}") from error
    return onnx.load(folder / "int8.onnx")


# -- what the quantiser leaves to us ---------------------------------------------------------------------------------


def _quantise_input(model: onnx.ModelProto, feeds: Mapping[str, Float]) -> None:
    """Quantise the first input after its elementwise prefix, where the quantiser left it in float.

    It skips a pooling that comes first, since no quantised layer feeds it. A board takes int8 observations all the
    same; the pooled values keep the finer scale of their own.
    """
    graph = model.graph
    prefix = centring(graph)
    tensor = prefix[-1].output[0] if prefix else graph.input[0].name
    readers = [node for node in graph.node if tensor in node.input]
    if len(readers) != 1 or readers[0].op_type == "QuantizeLinear":
        return
    reader = readers[0]
    values = _prefix_values(model, tensor, feeds)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = np.float32((high - low) / LEVELS or 1.0)
    zero = np.int8(np.clip(np.rint(-128.0 - low / scale), -128, 127))
    names = [f"{tensor}_{part}" for part in ("scale", "zero_point", "QuantizeLinear_Output", "DequantizeLinear_Output")]
    graph.initializer.append(numpy_helper.from_array(np.array(scale), names[0]))
    graph.initializer.append(numpy_helper.from_array(np.array(zero), names[1]))
    pair = [
        onnx.helper.make_node("QuantizeLinear", [tensor, *names[:2]], [names[2]], f"{tensor}_QuantizeLinear"),
        onnx.helper.make_node("DequantizeLinear", [names[2], *names[:2]], [names[3]], f"{tensor}_DequantizeLinear"),
    ]
    at = list(graph.node).index(reader)
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == tensor:
                node.input[i] = names[3]
    for node in reversed(pair):
        graph.node.insert(at, node)


def _prefix_values(model: onnx.ModelProto, tensor: str, feeds: Mapping[str, Float]) -> NDArray[np.float32]:
    """All calibration values of the tensor behind the prefix."""
    from onnx.utils import Extractor

    name = model.graph.input[0].name
    if tensor == name:
        return feeds[name]
    part = Extractor(model).extract_model([name], [tensor])
    from export.runner import open_session

    values: NDArray[np.float32] = open_session(part.SerializeToString()).run([tensor], {name: feeds[name]})[0]
    return values


def _float_where_float(model: onnx.ModelProto) -> None:
    """Only integer layers read through Q/DQ pairs; logits, gates and a state that leaves keep their float value."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def integer(node: onnx.NodeProto) -> bool:
        if node.op_type in LAYERS:
            return True
        return node.op_type in THROUGH and any(integer(reader) for name in node.output for reader in readers[name])

    for name in [value.name for value in graph.output]:
        readers.setdefault(name, [])
    pairs = [
        (makers[node.input[0]], node)
        for node in graph.node
        if node.op_type == "DequantizeLinear" and getattr(makers.get(node.input[0]), "op_type", "") == "QuantizeLinear"
    ]
    kept = [any(map(integer, readers[dequantise.output[0]])) for _, dequantise in pairs]
    for (quantise, dequantise), keep in zip(pairs, kept, strict=True):
        source, result = quantise.input[0], dequantise.output[0]
        for node in readers[result]:
            if not (keep and integer(node)):
                _rename(node, result, source)
        if result in {value.name for value in graph.output}:  # the output keeps its name, and becomes the float value
            inner = f"{result}_DequantizeLinear_Output"
            for node in graph.node:
                _rename(node, result, inner)
                _rename(node, source, result)
        if not keep:
            graph.node.remove(quantise)
            graph.node.remove(dequantise)


def _rename(node: onnx.NodeProto, old: str, new: str) -> None:
    """Let a node read and write ``new`` where it did ``old``."""
    for names in (node.input, node.output):
        for i, name in enumerate(names):
            if name == old:
                names[i] = new


def _lean_biases(model: onnx.ModelProto) -> None:
    """Store of a bias its int32 values alone: its zero point is 0 and its scale follows from two that stand there.

    For the compact actor the quantiser's copies of both are 1.5 % of the FP32 file.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type in ("Conv", "Gemm") and len(n.input) == 3]:
        parts = [makers.get(name) for name in node.input]
        if any(part is None or part.op_type != "DequantizeLinear" for part in parts):
            continue
        value, weight, bias = [part for part in parts if part is not None]
        if bias.input[0] not in constants or constants[bias.input[0]].data_type != onnx.TensorProto.INT32:
            continue
        scale = bias.input[1]
        product = onnx.helper.make_node("Mul", [value.input[1], weight.input[1]], [scale], f"{scale}_Mul")
        graph.node.insert(list(graph.node).index(bias), product)
        for name in list(bias.input[1:]):
            graph.initializer.remove(constants.pop(name))
        del bias.input[2:]


def _tidy(model: onnx.ModelProto, original: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Only what the file needs: the original's opsets, our metadata, initialisers that are read, in order of name."""
    graph = model.graph
    used = {node.domain for node in graph.node}
    del model.opset_import[:]
    model.opset_import.extend(entry for entry in original.opset_import if entry.domain in used | {""})
    model.ir_version = original.ir_version
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    model.producer_name, model.producer_version = "sea-dbs", ""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = sorted((t for t in graph.initializer if t.name in read), key=lambda tensor: tensor.name)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser recommends its own preprocessing on every call."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
