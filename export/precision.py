"""What a precision does to a network before it is traced. Inputs and outputs stay FP32 in every one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from envs.errors import UserError

FP16_MAX = 65504.0  # largest finite binary16 number, IEEE 754-2019


class Single(nn.Module):
    """The network as it was trained; only the argument gets the name of the graph's input."""

    def __init__(self, actor: nn.Module) -> None:
        super().__init__()
        self.actor = deepcopy(actor).eval()

    def forward(self, observation: Tensor) -> Tensor:
        """(batch, n_obs) float32 -> (batch, slots, 2) float32 logits."""
        return torch.as_tensor(self.actor(observation))


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


PRECISIONS: dict[str, Callable[[nn.Module], nn.Module]] = {"fp32": Single, "fp16": Half}
