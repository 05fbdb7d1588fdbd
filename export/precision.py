"""What a precision does to a network before it is traced. Inputs and outputs stay FP32 in every one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from envs.errors import UserError
from sea_dbs.networks import state_size

FP16_MAX = 65504.0  # largest finite binary16 number, IEEE 754-2019
ELEMENTWISE = frozenset({"Sub", "Div", "Add", "Mul", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Identity", "Cast"})
FP16_LEAST = 5.96e-8  # smallest positive binary16 number (subnormal), IEEE 754-2019


class Single(nn.Module):
    """The network as it was trained; only the argument gets the name of the graph's input."""

    def __init__(self, actor: nn.Module) -> None:
        super().__init__()
        self.actor = deepcopy(actor).eval()

    def forward(self, observation: Tensor) -> Tensor:
        """(batch, n_obs) float32 -> (batch, slots, 2) float32 logits."""
        return torch.as_tensor(self.actor(observation))


class SingleStep(Single):
    """The same for a recurrent network: one decision, state in and out."""

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(batch, n_obs), (batch, state) -> (batch, slots, 2), (batch, state), all float32."""
        logits, following = self.actor(observation, state)
        return logits, following


class Half(nn.Module):
    """Weights and arithmetic in FP16 between two casts; the observation is centred in FP32 before the first.

    Raises:
        UserError: a weight is not finite in FP16 (a cast would turn it into inf without a word).
    """

    def __init__(self, actor: nn.Module) -> None:
        super().__init__()
        for name, tensor in actor.state_dict().items():
            largest = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
            if not largest <= FP16_MAX:  # catches NaN too
                raise UserError(f"weight {name} reaches {largest:g}, FP16 holds at most ±{FP16_MAX:g}")
        self.actor = deepcopy(actor).eval().half()

    def forward(self, observation: Tensor) -> Tensor:
        """(batch, n_obs) float32 -> (batch, slots, 2) float32 logits."""
        return torch.as_tensor(self.actor(observation)).float()


class HalfStep(Half):
    """The same for a recurrent network: one decision, state in and out."""

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(batch, n_obs), (batch, state) -> (batch, slots, 2), (batch, state), all float32."""
        logits, following = self.actor(observation, state.half())
        return logits.float(), following.float()


PRECISIONS: dict[str, Callable[[nn.Module], nn.Module]] = {"fp32": Single, "fp16": Half}
STEPS: dict[str, Callable[[nn.Module], nn.Module]] = {"fp32": SingleStep, "fp16": HalfStep}


def wrap(actor: nn.Module, precision: str) -> nn.Module:
    """The network in a precision, fp32 or fp16, with the graph's argument names.

    Raises:
        UserError: a weight that the precision cannot hold.
    """
    return (STEPS if state_size(actor) else PRECISIONS)[precision](actor)


def centring(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The elementwise nodes between the first input and the first layer: the graph's own normalisation."""
    found: list[onnx.NodeProto] = []
    tensor = graph.input[0].name
    while True:
        readers = [node for node in graph.node if tensor in node.input]
        if len(readers) != 1 or readers[0].op_type not in ELEMENTWISE:
            return found
        found.append(readers[0])
        tensor = readers[0].output[0]


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """FP16 of an FP32 file that no network of ours stands behind; inputs and outputs stay FP32.

    Raises:
        UserError: a weight that FP16 cannot hold (the converter would clamp it without a word).
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
            if not largest <= FP16_MAX:
                raise UserError(f"weight {tensor.name} reaches {largest:g}, FP16 holds at most ±{FP16_MAX:g}")
    model = onnx.shape_inference.infer_shapes(model)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{i}"
    made: onnx.ModelProto = convert_float_to_float16(
        model,
        node_block_list=[node.name for node in centring(model.graph)],
        keep_io_types=True,
        min_positive_val=FP16_LEAST,
        max_finite_val=FP16_MAX,
    )
    _skip_round_trips(made.graph)
    OnnxModel(made).topological_sort()
    del made.graph.value_info[:]
    onnx.checker.check_model(made, full_check=True)
    return made


def _skip_round_trips(graph: onnx.GraphProto) -> None:
    """Give a node kept in FP32 the value itself, where the converter casts an input to FP16 and back before it."""
    halved = {n.output[0]: n.input[0] for n in graph.node if _casts_to(n, onnx.TensorProto.FLOAT16)}
    inputs = {value.name for value in graph.input}
    for node in list(graph.node):
        if _casts_to(node, onnx.TensorProto.FLOAT) and halved.get(node.input[0]) in inputs:
            for reader in graph.node:
                for i, name in enumerate(reader.input):
                    if name == node.output[0]:
                        reader.input[i] = halved[node.input[0]]
            if node.output[0] not in {value.name for value in graph.output}:
                graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for node in [n for n in graph.node if n.output[0] in halved and n.output[0] not in read]:
        graph.node.remove(node)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)
