"""All weights of a network as one vector: what would be a hundred small operations an update becomes a few."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def as_vector(network: nn.Module) -> Tensor:
    """Move a network's weights into one vector that they are views of; returns it."""
    parameters = list(network.parameters())
    vector = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    for parameter, view in zip(parameters, _views(vector, parameters), strict=True):
        parameter.data = view
    return vector


class Descent:
    """Adam on a network, its gradient clipped to an L2 norm.

    Args:
        network: its weights are moved into one vector.
        lr: learning rate.
        clip: largest norm of the gradient.
    """

    def __init__(self, network: nn.Module, lr: float, clip: float) -> None:
        self.network, self.clip = network, clip
        self.vector = as_vector(network)
        self._whole = nn.Parameter(self.vector)
        self._gradient = torch.zeros_like(self.vector)
        self._whole.grad = self._gradient
        parameters = list(network.parameters())
        for parameter, view in zip(parameters, _views(self._gradient, parameters), strict=True):
            parameter.grad = view
        self._adam = torch.optim.Adam([self._whole], lr=lr, fused=True)

    def step(self, loss: Tensor) -> None:
        """One step down the loss."""
        self._gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        self._gradient.mul_((self.clip / (self._gradient.norm() + 1e-6)).clamp(max=1.0))
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments; the network keeps its weights itself."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._adam.load_state_dict(state)


def _views(vector: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    pieces = torch.split(vector, [parameter.numel() for parameter in parameters])
    return [piece.view(parameter.shape) for piece, parameter in zip(pieces, parameters, strict=True)]
