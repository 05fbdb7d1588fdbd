"""What the networks make of an observation: centred, and the compact trunk of convolutions that most of them share."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as functional_linear
from torch.nn.functional import pad, relu

from envs.errors import UserError

OBS_CENTRE = 0.35  # P_beta/1000: the reward's threshold b, Eq. 7
OBS_SCALE = 0.1  # P_beta/1000: about the distance between untreated (0.44) and 50 Hz stimulation (0.29)
COMPACT_LENGTH = 50  # values that the compact networks look at: one each 20 ms of a 1,000-value trace


def centre(observation: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(n, n_obs) of P_beta/1000 -> (n, 1, n_obs), about -2.5 to 3, zero at the reward's threshold.

    Computed in the observation's type and then cast: half precision would shift every value by its rounding of 0.35.
    """
    return ((observation - OBS_CENTRE) / OBS_SCALE).unsqueeze(1).to(dtype)


class CompactTrunk(nn.Module):
    """Average pool to 50 values, conv 1->16 k3, pool 2, conv 16->32 k3, pool 2, linear. (n, n_obs) -> (n, width)."""

    def __init__(self, n_obs: int, width: int) -> None:
        super().__init__()
        pool = max(1, n_obs // COMPACT_LENGTH)
        self.layers = nn.Sequential(
            nn.AvgPool1d(pool) if pool > 1 else nn.Identity(),
            nn.Conv1d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Conv1d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Flatten(),
            nn.Linear(32 * (n_obs // pool // 2 // 2), width),
            nn.ReLU(),
        )

    def forward(self, observation: Tensor) -> Tensor:
        if self.training:
            return self._forward_fast(observation)
        return cast(Tensor, self.layers(centre(observation, next(self.parameters()).dtype)))

    def _forward_fast(self, observation: Tensor) -> Tensor:
        """The same but for rounding, half as long: convolutions as products of matrices, (n, length, channels)."""
        n, linear = len(observation), cast(nn.Linear, self.layers[8])
        first = self.layers[0]
        if isinstance(first, nn.AvgPool1d):
            pool = cast(tuple[int], first.kernel_size)[0]
            observation = observation[:, : observation.shape[1] // pool * pool].view(n, -1, pool).mean(dim=2)
        x = centre(observation).transpose(1, 2)
        for conv in (cast(nn.Conv1d, self.layers[1]), cast(nn.Conv1d, self.layers[4])):
            neighbours = pad(x, (0, 0, 1, 1)).unfold(1, 3, 1)  # (n, length, channels, 3)
            x = relu(functional_linear(neighbours.flatten(2), conv.weight.flatten(1), conv.bias))
            half = x.shape[1] // 2
            x = x[:, : 2 * half].view(n, half, 2, -1).sum(dim=2) * 0.5
        return relu(functional_linear(x.transpose(1, 2).flatten(1), linear.weight, linear.bias))


class MeansTrunk(nn.Module):
    """Own duties and means of the windows behind them, centred: (n, n_obs) -> (n, width). Nothing is learnt.

    Duties are centred by beta's constants too, so that all of it is one linear map: 0 becomes -3.5 and 1 becomes 6.5.

    Args:
        n_obs: values of an observation.
        own: how many of them, the first, are duties.

    Raises:
        UserError: no value is left beside the duties.
    """

    def __init__(self, n_obs: int, own: int) -> None:
        super().__init__()
        means = averages(n_obs, own) / OBS_SCALE
        self.width = len(means)
        self.register_buffer("means", means, persistent=False)
        self.register_buffer("shift", -OBS_CENTRE * means.sum(dim=1), persistent=False)

    def forward(self, observation: Tensor) -> Tensor:
        means = self.get_buffer("means")
        return functional_linear(observation.to(means.dtype), means, self.get_buffer("shift"))


def averages(n_obs: int, own: int) -> Tensor:
    """Weights (own + about 50, n_obs): the first ``own`` values, then means of neighbours; a rest is left out.

    Raises:
        UserError: no value is left beside the duties.
    """
    windows = n_obs - own
    if windows < 1:
        raise UserError(f"an observation of {n_obs} values with {own} own duties holds nothing that was sensed")
    pool = max(1, windows // COMPACT_LENGTH)
    rows = windows // pool
    weights = torch.zeros(own + rows, n_obs)
    weights[:own, :own] = torch.eye(own)
    weights[own:, own : own + rows * pool] = torch.kron(torch.eye(rows), torch.full((1, pool), 1.0 / pool))
    return weights
