"""Network -> ONNX bytes: the same network gives the same bytes in every process and folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import Dim

from envs.errors import UserError

OPSET = 20
INPUT = "observation"
OUTPUT = "logits"
STATE = "state"
NEXT_STATE = "next_state"
BATCH = "batch"
MAX_BATCH = 4096

Described = tuple[str, str, list[str | int]]  # name, type, axes


@dataclass(frozen=True)
class Interface:
    """What a policy's graph takes and gives; ``state`` counts the values a recurrent one carries (0: none)."""

    n_obs: int
    slots: int
    state: int = 0

    @property
    def inputs(self) -> list[Described]:
        """observation (batch, n_obs), and the state (batch, state)."""
        found: list[Described] = [(INPUT, "float32", [BATCH, self.n_obs])]
        return found + ([(STATE, "float32", [BATCH, self.state])] if self.state else [])

    @property
    def outputs(self) -> list[Described]:
        """logits (batch, slots, 2), and the next state (batch, state)."""
        found: list[Described] = [(OUTPUT, "float32", [BATCH, self.slots, 2])]
        return found + ([(NEXT_STATE, "float32", [BATCH, self.state])] if self.state else [])


def to_onnx(module: nn.Module, *, n_obs: int, slots: int, metadata: Mapping[str, str], state: int = 0) -> bytes:
    """Trace ``module`` into ONNX.

    It maps observation (batch, n_obs) to logits (batch, slots, 2), all float32; with ``state``, it takes a state
    (batch, state) too and returns (logits, next_state): one step of a recurrent policy.

    The file is self-contained, its batch axis dynamic (asserted, since the exporter fixes an axis without a word),
    checked in full by onnx.checker, and free of paths of the machine that built it.

    Raises:
        UserError: the network cannot be traced, or its graph has other names or shapes than the interface.
    """
    interface = Interface(n_obs, slots, state)
    names = [name for name, *_ in interface.inputs]
    batch = Dim(BATCH, min=1, max=MAX_BATCH)
    # The examples hold a batch of 2: one of 1 would be taken for a constant.
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                tuple(torch.zeros(2, width) for width in ((n_obs, state) if state else (n_obs,))),
                input_names=names,
                output_names=[name for name, *_ in interface.outputs],
                dynamic_shapes={name: {0: batch} for name in names},
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
    check_interface(model, interface)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def stamp(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same file with other metadata, in order of their names."""
    model = onnx.load_model_from_string(data)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    return bytes(model.SerializeToString(deterministic=True))


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


def check_interface(model: onnx.ModelProto, interface: Interface) -> None:
    """Assert names, types and axes of inputs and outputs.

    Raises:
        UserError: they differ from the interface's.
    """
    wanted = (interface.inputs, interface.outputs)
    found = ([_describe(v) for v in model.graph.input], [_describe(v) for v in model.graph.output])
    if found != wanted:
        raise UserError(
            f"the ONNX graph maps {_words(found[0])} to {_words(found[1])}, wanted {_words(wanted[0])} to "
            f"{_words(wanted[1])}"
        )


def batch_of_one(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same graph with its batch axis fixed at 1, for generators of C that take no dynamic one."""
    model = onnx.load_model_from_string(data)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == BATCH:
                axis.dim_value = 1
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return bytes(model.SerializeToString(deterministic=True))


def multiplications(data: bytes) -> int:
    """Multiply-accumulates of one decision: each weight of a Conv, Gemm or MatMul once for every position it serves."""
    model = onnx.load_model_from_string(batch_of_one(data, {}))
    shapes = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    sizes = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            size = sizes.get(node.input[1], 0)
            axes = shapes[node.output[0]].type.tensor_type.shape.dim if node.op_type == "Conv" else []
            total += size * int(np.prod([axis.dim_value for axis in axes[2:]]))
    return total


def _words(tensors: list[Described]) -> str:
    return ", ".join(f"{name} {dtype} ({', '.join(map(str, axes))})" for name, dtype, axes in tensors)


def _describe(value: onnx.ValueInfoProto) -> Described:
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
