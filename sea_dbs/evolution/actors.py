"""What a search found, as a network that everything else can use."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sea_dbs.evolution.kernels import Candidates
from sea_dbs.evolution.search import Evolution
from sea_dbs.networks import GatedActor, LinearActor, RelativeActor

# The mean, and what lies above its threshold, in numbers of the size of the map's: INT8 has one scale for the values of
# a layer. Decisions do not depend on either.
MEAN_SCALE = 20.0  # of the long mean (per 100 Hz a cell), ours: 0.4 becomes 8
GATE_SCALE = 40.0  # of its distance from the threshold, ours: 1 Hz a cell becomes 0.4

_LEAST = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, -1.0]])  # the smaller of a, b from relu(a), relu(-a), relu(a - b)

Floats = NDArray[np.float64]


def policy_of(search: Evolution) -> nn.Module:
    """The policy that the search stands at."""
    if search.config.actor == "relative":
        return relative_actor_of(search.candidates, search.mean, search.config.gate_hz)
    return actor_of(search.weights(), search.gate)


def relative_actor_of(candidates: Candidates, candidate: Floats, gate_hz: float) -> RelativeActor:
    """The policy of this candidate, (size,), behind a gate that opens above ``gate_hz`` (Hz a cell).

    A long mean below 0 counts as 0, where the gate is shut anyway.
    """
    rate, pulse = candidates.filters(candidate)
    when, mean = np.concatenate([rate, pulse]), candidates.long_mean()
    threshold = -candidates.above(gate_hz)[-1]
    actor = RelativeActor(len(when), 1)
    first, second = (cast(nn.Linear, actor.hidden[place]) for place in (0, 2))
    a = np.array([1.0, -1.0, -rate.sum() / MEAN_SCALE])  # of relu(map), relu(-map) and the scaled mean
    b = np.array([0.0, 0.0, GATE_SCALE / MEAN_SCALE])
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(np.stack([when, -when, MEAN_SCALE * mean])))
        first.bias.copy_(torch.tensor([candidate[-1], -candidate[-1], 0.0]))
        second.weight.copy_(torch.from_numpy(np.stack([a, -a, a - b])))
        second.bias.copy_(torch.tensor([0.0, 0.0, GATE_SCALE * threshold]))
        actor.head.bias.zero_()
        actor.head.weight.copy_(_LEAST)
    return actor.eval()


def actor_of(weights: Floats, gate: Floats | None = None) -> LinearActor | GatedActor:
    """The linear policy with these weights, (n_obs + 1,), behind a gate where there is one: "no pulse" stands at 0."""
    if gate is not None:
        return _gated(weights, gate)
    actor = LinearActor(len(weights) - 1, 1)
    with torch.no_grad():
        actor.head.weight.zero_()
        actor.head.bias.zero_()
        actor.head.weight[1] = torch.from_numpy(weights[:-1])
        actor.head.bias[1] = float(weights[-1])
    return actor.eval()


def _gated(when: Floats, whether: Floats) -> GatedActor:
    actor = GatedActor(len(when) - 1, 1)
    layer = cast(nn.Linear, actor.hidden[0])
    with torch.no_grad():
        for row, weights in enumerate((when, -when, when - whether)):
            layer.weight[row] = torch.from_numpy(weights[:-1])
            layer.bias[row] = float(weights[-1])
        actor.head.bias.zero_()
        actor.head.weight.copy_(_LEAST)
    return actor.eval()
