"""Actor, critic and reward model. The paper states no topology; the actor ``paper`` is the released code's.

Every network takes the raw observation (P_beta/1000) and centres it itself with the two constants below, so that
the exported graph, and a board, take what the sensor gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from envs.errors import UserError
from sea_dbs.trains_actor import FlatTrainsActor, TrainsActor
from sea_dbs.trunk import COMPACT_LENGTH, CompactTrunk, centre

TINY_LENGTH = 10  # values that the tiny actor looks at
PAPER_POSITIONS = 1000  # released code: the head holds 1,000 outputs a slot


class PaperActor(nn.Module):
    """The released code's actor, (n, n_obs) -> (n, slots, 2): 17.0 M parameters, 64.9 MiB FP32 (the paper's "65 MB").

    conv 1->32 k3, average pool 2, conv 32->64 k3, average pool 2, linear 256, linear 256, linear slots×1000.
    The release never says how 1,000 numbers a slot become a decision (its policy never acts). Here the mean of the
    first 500 is the logit of "no pulse" and the mean of the last 500 the logit of "pulse".
    """

    def __init__(self, n_obs: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.trunk = nn.Sequential(
            nn.Conv1d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Conv1d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Flatten(),
            nn.Linear(64 * (n_obs // 2 // 2), 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
        )
        self.head = nn.Linear(256, slots * PAPER_POSITIONS)

    def forward(self, observation: Tensor) -> Tensor:
        positions = self.head(self.trunk(centre(observation, self.head.weight.dtype)))
        return cast(Tensor, positions.reshape(-1, self.slots, 2, PAPER_POSITIONS // 2).mean(dim=3))


class CompactActor(nn.Module):
    """The default actor: two logits a slot from 37 k parameters and 76 k multiplications, for a small controller.

    (n, n_obs) -> (n, slots, 2); index 1 of the last axis is "pulse".
    """

    def __init__(self, n_obs: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.trunk = CompactTrunk(n_obs, 64)
        self.hidden = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, slots * 2)

    def forward(self, observation: Tensor) -> Tensor:
        logits = self.head(self.hidden(self.trunk(observation)))
        return cast(Tensor, logits.reshape(-1, self.slots, 2))


class RecurrentActor(nn.Module):
    """A policy with memory: the compact trunk, one GRU cell, two logits a slot. One call is one decision.

    (n, n_obs), (n, state_size) -> (n, slots, 2), (n, state_size). The state is zero before the first decision and lies
    in (-1, 1) ever after.
    """

    state_size = 32

    def __init__(self, n_obs: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.trunk = CompactTrunk(n_obs, 32)
        self.cell = nn.GRUCell(32, self.state_size)
        self.head = nn.Linear(self.state_size, slots * 2)

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        following = self.cell(self.trunk(observation), state)
        return cast(Tensor, self.head(following).reshape(-1, self.slots, 2)), following

    def unroll(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Many decisions at once: (n, t, n_obs), (n, state_size) -> logits (n, t, slots, 2), the last state."""
        n, t = observations.shape[:2]
        seen = self.trunk(observations.flatten(0, 1)).view(n, t, -1)
        states = remember(self.cell, seen, state)
        return cast(Tensor, self.head(states).view(n, t, self.slots, 2)), states[:, -1]


def remember(cell: nn.GRUCell, inputs: Tensor, state: Tensor) -> Tensor:
    """A GRU cell over a sequence: (n, t, inputs), (n, size) -> the states after each input, (n, t, size)."""
    weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    return torch.gru(inputs, state.unsqueeze(0), weights, True, 1, 0.0, False, False, True)[0]


class SmallActor(nn.Module):
    """For the question how small an actor may be: 10 k parameters for 50 slots, one convolution to 8 channels."""

    def __init__(self, n_obs: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        pool = max(1, n_obs // COMPACT_LENGTH)
        self.layers = nn.Sequential(
            nn.AvgPool1d(pool) if pool > 1 else nn.Identity(),
            nn.Conv1d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Flatten(),
            nn.Linear(8 * (n_obs // pool // 2), 32),
            nn.ReLU(),
            nn.Linear(32, slots * 2),
        )

    def forward(self, observation: Tensor) -> Tensor:
        trace = centre(observation, next(self.parameters()).dtype)
        return cast(Tensor, self.layers(trace).reshape(-1, self.slots, 2))


class TinyActor(nn.Module):
    """The same question, further: ten means of the observation, 16 hidden values; 1.9 k parameters for 50 slots."""

    def __init__(self, n_obs: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        pool = max(1, n_obs // TINY_LENGTH)
        self.layers = nn.Sequential(
            nn.AvgPool1d(pool) if pool > 1 else nn.Identity(),
            nn.Flatten(),
            nn.Linear(n_obs // pool, 16),
            nn.ReLU(),
            nn.Linear(16, slots * 2),
        )

    def forward(self, observation: Tensor) -> Tensor:
        trace = centre(observation, next(self.parameters()).dtype)
        return cast(Tensor, self.layers(trace).reshape(-1, self.slots, 2))


class LinearActor(nn.Module):
    """One linear map, the least of all: two logits a slot, each a weighted sum of the raw observation.

    (n, n_obs) -> (n, slots, 2). What `sea_dbs.evolution` searches: a filter over the last slots.
    """

    def __init__(self, n_obs: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.head = nn.Linear(n_obs, slots * 2)

    def forward(self, observation: Tensor) -> Tensor:
        return cast(Tensor, self.head(observation.to(self.head.weight.dtype)).reshape(-1, self.slots, 2))


class GatedActor(nn.Module):
    """A linear map that says when, and another that says whether: a pulse where both speak for one.

    (n, n_obs) -> (n, slots, 2). With a, b for the two, the logit of "pulse" can be their minimum, a - relu(a - b), from
    three hidden values a slot: relu(a), relu(-a), relu(a - b). What `sea_dbs.evolution` searches with ``actor=gated``.
    """

    def __init__(self, n_obs: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.hidden = nn.Sequential(nn.Linear(n_obs, 3 * slots), nn.ReLU())
        self.head = nn.Linear(3 * slots, 2 * slots)

    def forward(self, observation: Tensor) -> Tensor:
        seen = observation.to(self.head.weight.dtype)
        return cast(Tensor, self.head(self.hidden(seen)).reshape(-1, self.slots, 2))


class RelativeActor(nn.Module):
    """A linear map of what is seen relative to a long mean of it says when, the mean itself says whether.

    (n, n_obs) -> (n, slots, 2). The first layer makes the map's value (two signs of it) and the mean, the second takes
    the mean off the value and compares it with a threshold; then as `GatedActor`. The mean is a row of its own, taken
    off in the second layer: folded into the map's weights INT8 would round it away. What `sea_dbs.evolution` searches
    with ``actor=relative``.
    """

    def __init__(self, n_obs: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.hidden = nn.Sequential(nn.Linear(n_obs, 3 * slots), nn.ReLU(), nn.Linear(3 * slots, 3 * slots), nn.ReLU())
        self.head = nn.Linear(3 * slots, 2 * slots)

    def forward(self, observation: Tensor) -> Tensor:
        seen = observation.to(self.head.weight.dtype)
        return cast(Tensor, self.head(self.hidden(seen)).reshape(-1, self.slots, 2))


class StateActionNetwork(nn.Module):
    """A number for a state and an action: the critic Q(s, a), and the reward model f(s, a) of Eq. 8. -> (n,).

    Beside the trace's features it sees two plain summaries, the mean and the newest value of the observation. The
    action comes as its duty, as the duty of each of up to five sections of the decision, and as eight pattern features:
    a convolution over neighbouring slots, averaged over the decision (what regular and irregular pulses of one duty
    differ in). No slot has weights of its own: the slots are nearly exchangeable, weights for each of 50 would fit the
    noise of a few hundred decisions, and an actor that climbs them saturates slot by slot in random directions.

    ``own``: so many values of the observation, the first, are the policy's own duties (`envs.wrappers.OwnDuties`).
    """

    SECTIONS = 5

    def __init__(self, n_obs: int, slots: int, hidden: int, memory: int = 0, own: int = 0) -> None:
        super().__init__()
        sections = min(self.SECTIONS, slots)
        self.own = own
        self.trunk = CompactTrunk(n_obs - own, hidden)
        self.pattern = nn.Sequential(nn.Conv1d(1, 8, 5, padding=2), nn.ReLU())
        self.sections = nn.AdaptiveAvgPool1d(sections)
        self.first = nn.Linear(memory + own + hidden + 2 + 8 + 1 + sections, hidden)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        with torch.no_grad():
            self.first.weight[:, -sections:] = 0.0  # no section is preferred before something is learnt

    def forward(self, observation: Tensor, action: Tensor, memory: Tensor | None = None) -> Tensor:
        seen = [memory] if memory is not None else []
        return self._value([*seen, *self._seen(observation), *self._given(action)])

    def of_each(self, observation: Tensor, actions: Tensor) -> Tensor:
        """What each of k actions is worth at each observation: (n, n_obs), (k, slots) -> (n, k)."""
        n, k = len(observation), len(actions)
        seen = [one.repeat_interleave(k, dim=0) for one in self._seen(observation)]
        given = [one.repeat(n, 1) for one in self._given(actions)]
        return self._value([*seen, *given]).view(n, k)

    def _seen(self, observation: Tensor) -> list[Tensor]:
        windows = observation[:, self.own :]
        trace = centre(windows)
        own = [centre(observation[:, : self.own]).squeeze(1)] if self.own else []
        return [*own, self.trunk(windows), trace.mean(dim=2), trace[:, :, -1]]

    def _given(self, action: Tensor) -> list[Tensor]:
        pulses = (2.0 * action - 1.0).unsqueeze(1)
        return [self.pattern(pulses).mean(dim=2), pulses.mean(dim=2), self.sections(pulses).squeeze(1)]

    def _value(self, features: list[Tensor]) -> Tensor:
        return cast(Tensor, self.rest(self.first(torch.cat(features, dim=1))).squeeze(1))


class RecurrentCritic(nn.Module):
    """Q of a decision and of what came before it: a GRU cell over observations and earlier decisions' duties."""

    state_size = 32

    def __init__(self, n_obs: int, slots: int, hidden: int) -> None:
        super().__init__()
        self.trunk = CompactTrunk(n_obs, 32)
        self.cell = nn.GRUCell(32 + 1, self.state_size)
        self.value = StateActionNetwork(n_obs, slots, hidden, self.state_size)

    def memory(self, observations: Tensor, before: Tensor, burn_in: int) -> Tensor:
        """States (n, t - burn_in, size) after burn_in; ``before`` (n, t, slots) are the decisions before each.

        The first ``burn_in`` decisions only warm the state up, from zero: no gradient runs through them.
        """
        n, t = observations.shape[:2]
        seen = self.trunk(observations.flatten(0, 1)).view(n, t, -1)
        inputs = torch.cat([seen, before.mean(dim=2, keepdim=True)], dim=2)
        state = torch.zeros(n, self.state_size)
        if burn_in:
            with torch.no_grad():
                state = remember(self.cell, inputs[:, :burn_in], state)[:, -1]
        return remember(self.cell, inputs[:, burn_in:], state)

    def forward(self, observation: Tensor, action: Tensor, memory: Tensor) -> Tensor:
        """(n, n_obs), (n, slots), (n, size) -> (n,)."""
        return cast(Tensor, self.value(observation, action, memory))


ACTORS: dict[str, Callable[[int, int], nn.Module]] = {
    "compact": CompactActor,
    "gated": GatedActor,
    "linear": LinearActor,
    "paper": PaperActor,
    "recurrent": RecurrentActor,
    "relative": RelativeActor,
    "small": SmallActor,
    "tiny": TinyActor,
    "trains": TrainsActor,
    "trains-flat": FlatTrainsActor,
}


def build_actor(name: str, n_obs: int, slots: int, own: int = 0) -> nn.Module:
    """An actor by its name in `ACTORS`, such as ``compact``; the first ``own`` values that it sees are its duties.

    Raises:
        UserError: own duties for another actor than "trains-flat", or sizes that the actor cannot have.
    """
    if own and ACTORS[name] is not FlatTrainsActor:
        raise UserError(f"the actor '{name}' reads no own duties: {own} were given, allowed is 0")
    return FlatTrainsActor(n_obs, slots, own) if own else ACTORS[name](n_obs, slots)


def state_size(actor: nn.Module) -> int:
    """Values that a recurrent actor carries from one decision to the next; 0 for a feed-forward one."""
    size = getattr(actor, "state_size", 0)
    return size if isinstance(size, int) else 0


def parameter_count(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters())
