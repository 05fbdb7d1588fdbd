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
    """Weights and arithmetic in FP16 between two casts.

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
        return torch.as_tensor(self.actor(observation.half())).float()


class HalfStep(Half):
    """The same for a recurrent network: one decision, state in and out."""

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(batch, n_obs), (batch, state) -> (batch, slots, 2), (batch, state), all float32."""
        logits, following = self.actor(observation.half(), state.half())
        return logits.float(), following.float()


PRECISIONS: dict[str, Callable[[nn.Module], nn.Module]] = {"fp32": Single, "fp16": Half}
STEPS: dict[str, Callable[[nn.Module], nn.Module]] = {"fp32": SingleStep, "fp16": HalfStep}


def wrap(actor: nn.Module, precision: str) -> nn.Module:
    """The network in a precision, fp32 or fp16, with the graph's argument names.

    Raises:
        UserError: a weight that the precision cannot hold.
    """
    return (STEPS if state_size(actor) else PRECISIONS)[precision](actor)


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
    made: onnx.ModelProto = convert_float_to_float16(
        onnx.shape_inference.infer_shapes(model),
        keep_io_types=True,
        min_positive_val=FP16_LEAST,
        max_finite_val=FP16_MAX,
    )
    OnnxModel(made).topological_sort()
    del made.graph.value_info[:]
    onnx.checker.check_model(made, full_check=True)
    return made
