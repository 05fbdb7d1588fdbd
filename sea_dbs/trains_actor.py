"""Decisions between pulse trains: an actor that chooses one of a few for each decision, and its exploration.

Slots that are drawn one by one hardly ever make a train: at a price on pulses most of what a coin in each slot gives
earns less than no pulse at all (docs/RESULTS.md, "What a coin in each slot earns"). Here Gumbel-Softmax (Eqs. 11-13 of
the paper) draws from whole trains. All of this is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot, relu, softmax

from sea_dbs.gumbel import sample_gumbel
from sea_dbs.pulse_trains import ONE_GROUP, TRAINS, Train, masks
from sea_dbs.trunk import CompactTrunk, MeansTrunk

Floats = NDArray[np.float64]


def bank(slots: int, trains: Sequence[Train] = TRAINS) -> Tensor:
    """The trains as actions of 0.0 and 1.0, (trains, slots).

    Raises:
        UserError: a decision too short for the longest period.
    """
    return torch.from_numpy(masks(slots, trains)).float()


def draw_train(scores: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """A train for each row, drawn with softmax(scores) by Gumbel noise, one-hot (n, trains).

    The hard sample forward, the soft one's gradient backward, as `sea_dbs.gumbel.gumbel_softmax` has it for two.
    """
    soft = softmax((scores + sample_gumbel(scores.shape, generator)) / tau, dim=-1)
    hard = one_hot(soft.argmax(dim=-1), scores.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())


class TrainsActor(nn.Module):
    """Scores of the trains, and the logits of the slots of the best: (n, n_obs) -> (n, slots, 2).

    A slot's logit of "pulse" is the best score among the trains with a pulse there, that of "no pulse" the best among
    those without, so that the larger logits of all slots together are the best train. The greatest of several scores
    comes from fixed layers of differences, max(a, b) = b + relu(a - b): linear maps and ReLUs alone, which every
    export and board has.

    Raises:
        UserError: a decision too short for the trains.
    """

    bank: Tensor
    trains = TRAINS

    def __init__(self, n_obs: int, slots: int, own: int = 0) -> None:
        super().__init__()
        self.slots = slots
        self.register_buffer("bank", bank(slots, self.trains), persistent=False)
        self.trunk, self.hidden = self.body(n_obs, own)
        self.head = nn.Linear(64, len(self.trains))
        weights = selection(self.bank.numpy() > 0.5)
        self.layers = len(weights)
        for k, weight in enumerate(weights):  # no weights of the policy's: made anew with every actor
            self.register_buffer(f"fixed_{k}", torch.from_numpy(weight).float(), persistent=False)

    def body(self, n_obs: int, own: int) -> tuple[nn.Module, nn.Module]:
        """What sees, (n, n_obs) -> (n, width), and what follows it, to the 64 values that the scores are made of."""
        del own
        return CompactTrunk(n_obs, 64), nn.Sequential(nn.Linear(64, 64), nn.ReLU())

    def scores(self, observation: Tensor) -> Tensor:
        """(n, n_obs) -> (n, trains)."""
        return cast(Tensor, self.head(self.hidden(self.trunk(observation))))

    def forward(self, observation: Tensor) -> Tensor:
        """(n, n_obs) -> logits (n, slots, 2)."""
        x = self.scores(observation)
        for k in range(self.layers):
            x = linear(relu(x) if k else x, self.get_buffer(f"fixed_{k}"))
        return x.reshape(-1, self.slots, 2)


class FlatTrainsActor(TrainsActor):
    """`TrainsActor` without convolutions, for observations that begin with the policy's own duties; one group a second.

    Means of the windows, one each 20 ms, and the duties go through two hidden layers together: no value needs a layer
    of its own, and the graph is linear maps and ReLUs from end to end.

    Args:
        n_obs: values of an observation.
        slots: of a decision.
        own: how many of the values, the first, are duties (`envs.wrappers.OwnDuties`).

    Raises:
        UserError: a decision too short for the trains, or no value beside the duties.
    """

    trains = ONE_GROUP

    def body(self, n_obs: int, own: int) -> tuple[nn.Module, nn.Module]:
        trunk = MeansTrunk(n_obs, own)
        return trunk, nn.Sequential(nn.Linear(trunk.width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())


def selection(has_pulse: NDArray[np.bool_]) -> list[Floats]:
    """Weights of the layers, ReLU between them, from scores (trains,) to two logits a slot (2 x slots,).

    Args:
        has_pulse: (trains, slots); each slot needs a train with a pulse and one without.
    """
    trains, slots = has_pulse.shape
    sets = [frozenset(np.flatnonzero(has_pulse[:, j] == pulse)) for j in range(slots) for pulse in (False, True)]
    # What is left of each set, as sums over the last layer's units: halved by each layer, to one that is its maximum.
    left = {one: [np.eye(trains)[i] for i in sorted(one)] for one in dict.fromkeys(sets)}
    layers: list[Floats] = []
    while any(len(rows) > 1 for rows in left.values()):
        units: dict[bytes, int] = {}
        rows_of_layer: list[Floats] = []

        def unit(row: Floats, units: dict[bytes, int] = units, rows: list[Floats] = rows_of_layer) -> int:
            key = (row + 0.0).tobytes()  # -0.0 and 0.0 are one
            if key not in units:
                units[key] = len(rows)
                rows.append(row)
            return units[key]

        # max(a, b) = relu(a - b) + relu(b) - relu(-b); one without a partner is carried on as relu(b) - relu(-b).
        terms = {
            one: [
                (
                    [unit(rows[i] - rows[i + 1])] if i + 1 < len(rows) else [],
                    unit(b := rows[min(i + 1, len(rows) - 1)]),
                    unit(-b),
                )
                for i in range(0, len(rows), 2)
            ]
            for one, rows in left.items()
        }
        layers.append(np.array(rows_of_layer))
        left = {one: [_sum(own, len(rows_of_layer)) for own in rows] for one, rows in terms.items()}
    return [*layers, np.array([left[one][0] for one in sets])]


def _sum(term: tuple[list[int], int, int], units: int) -> Floats:
    """relu(a - b) + relu(b) - relu(-b) as a row over a layer's units."""
    differences, plus, minus = term
    row = np.zeros(units)
    row[[*differences, plus]] = 1.0
    row[minus] = -1.0
    return row
