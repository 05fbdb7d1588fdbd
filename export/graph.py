"""Network -> ONNX bytes: the same network gives the same bytes in every process and folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import onnx
import torch
from torch import nn
from torch.export import Dim

from envs.errors import UserError

OPSET = 20
INPUT = "observation"
OUTPUT = "logits"
BATCH = "batch"
MAX_BATCH = 4096


def to_onnx(module: nn.Module, *, n_obs: int, slots: int, metadata: Mapping[str, str]) -> bytes:
    """Trace ``module`` (forward(observation): (batch, n_obs) -> (batch, slots, 2), both float32) into ONNX.

    The file is self-contained, its batch axis dynamic (asserted, since the exporter fixes an axis without a word),
    checked in full by onnx.checker, and free of paths of the machine that built it.

    Raises:
        UserError: the network cannot be traced, or its graph has other names or shapes than the interface.
    """
    example = torch.zeros(2, n_obs)  # a batch of 1 would be taken for a constant
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: Dim(BATCH, min=1, max=MAX_BATCH)}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except (RuntimeError, ValueError, TypeError) as error:  # TorchExportError is a RuntimeError of many lines
        reason = str(error).strip().splitlines() or ["no reason given"]
        raise UserError(f"the network cannot be written as ONNX: {reason[0]}") from error
    if program is None:
        raise UserError("the network cannot be written as ONNX: the exporter returned nothing")
    model = program.model_proto
    strip_build_traces(model)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    check_interface(model, n_obs=n_obs, slots=slots)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def weight_bytes(data: bytes) -> int:
    """Bytes of the numbers that an ONNX file holds, without its description of the graph."""
    model = onnx.load_model_from_string(data)
    return sum(int(onnx.numpy_helper.to_array(tensor).nbytes) for tensor in model.graph.initializer)


def strip_build_traces(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about its source files: stack traces with paths, which change the hash."""
    model.doc_string = ""
    model.graph.doc_string = ""
    parts: tuple[Iterable[onnx.NodeProto | onnx.ValueInfoProto | onnx.TensorProto], ...] = (
        model.graph.node,
        model.graph.value_info,
        model.graph.input,
        model.graph.output,
        model.graph.initializer,
    )
    for part in parts:
        for item in part:
            item.doc_string = ""
            del item.metadata_props[:]
    del model.graph.metadata_props[:]
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]


def check_interface(model: onnx.ModelProto, *, n_obs: int, slots: int) -> None:
    """Assert names, types and axes of the one input and the one output.

    Raises:
        UserError: they differ from observation (batch, n_obs) -> logits (batch, slots, 2), float32.
    """
    wanted = ([(INPUT, "float32", [BATCH, n_obs])], [(OUTPUT, "float32", [BATCH, slots, 2])])
    found = ([_describe(v) for v in model.graph.input], [_describe(v) for v in model.graph.output])
    if found != wanted:
        raise UserError(f"the ONNX graph maps {found[0]} to {found[1]}, wanted {wanted[0]} to {wanted[1]}")


def _describe(value: onnx.ValueInfoProto) -> tuple[str, str, list[str | int]]:
    tensor = value.type.tensor_type
    axes: list[str | int] = [d.dim_param or int(d.dim_value) for d in tensor.shape.dim]
    return value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, axes


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: it reports operators of packages that are not installed and its own deprecations."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
