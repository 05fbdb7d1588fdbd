"""What is searched: a linear policy over the last slots, its two filters given by few numbers.

A filter of hundreds of slots has more numbers than an evolution strategy finds in a day. Here each is a sum of decays
and of damped oscillations around the beta band, so that a candidate is 27 numbers; `weights` writes it out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.signals import RATE_SCALE_HZ

# All values are ours: from one slot to the length of the filter, and from below the beta band (13-35 Hz) to above it.
RATE_DECAYS_MS = (3.0, 10.0, 30.0, 100.0, 300.0)  # ms, of the GPi's rate
RATE_HZ = (10.0, 16.0, 22.0, 30.0, 42.0)  # Hz, oscillations in the GPi's rate
RATE_DAMPING_MS = 50.0  # ms
PULSE_DECAYS_MS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)  # ms, of the policy's own pulses
PULSE_HZ = (22.0, 45.0)  # Hz, oscillations in its own pulses
PULSE_DAMPING_MS = 60.0  # ms
RATE_CENTRE = 0.37  # per 100 Hz a cell: the GPi's untreated rate (healthy 0.24), `python -m benchmarks.rates`
RATE_A_PULSE = 0.0033  # per 100 Hz a cell: what a pulse a second adds to it, ill or healthy, up to 78 Hz, same source
GATE_MS = 300.0  # ms, over which a start looks at the rate
GATE_OPEN = 0.085  # per 100 Hz a cell: how far below the centre the gate of actor=gated closes, ours
GATE_MARGIN = 0.065  # per 100 Hz a cell: how far below the centre a start falls silent, half of the way to healthy
REGULAR_MS = 20.0  # ms, the decay of its own pulses by which a regular start keeps its rate
GROUP_MS, PAUSE_MS = 10.0, 320.0  # ms, of its own pulses: what keeps a group of pulses going, and what ends it

# Where a search with start=earlier begins: what one at 45.5 Hz had found from the regular train (commit 4528474).
EARLIER_RATE_DECAYS = (-0.449229, -0.58639, 0.392827, 0.039421)  # weight a ms of the rate, in the order of the filters
EARLIER_RATE = (-0.322718, -0.165047, 0.032292, -0.085463, -0.327598, 0.14475, -0.124908, 0.194933, 0.41001, -0.524341)
EARLIER_PULSE_DECAYS = (-0.481263, -1.532219, -2.762043, -0.636345, -0.197919, -0.091487)  # weight of a new pulse
EARLIER_PULSES = (-0.98734, -0.986756, 0.332932, -0.533727)
EARLIER_BIAS = 1.593009

Floats = NDArray[np.float64]


def basis(
    n: int, slot_ms: float, decays_ms: tuple[float, ...], oscillations_hz: tuple[float, ...], damping_ms: float
) -> tuple[Floats, Floats]:
    """Filters over ``n`` slots, oldest first, each of unit norm, (decays and twice the oscillations, n), and norms."""
    age = np.arange(n - 1, -1, -1) * slot_ms  # ms since a slot began, the newest 0
    rows = [np.exp(-age / tau) for tau in decays_ms]
    for hz in oscillations_hz:
        phase, damped = 2.0 * np.pi * hz * age / 1000.0, np.exp(-age / damping_ms)
        rows += [damped * np.cos(phase), damped * np.sin(phase)]
    table = np.array(rows)
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    return np.asarray(table / norms), norms[:, 0]


class Candidates:
    """Candidates for a policy that sees ``n_obs`` values: the GPi's rate in n_obs/2 slots, then its pulses in them.

    Args:
        n_obs: observed values.
        slot_ms: length of a slot (ms).
        gated: trains begin at a policy that is silent where the GPi's rate is a healthy one.
        relative: the rate counts as its difference from `long_mean`, so that the plant's own mean tells nothing.
    """

    def __init__(self, n_obs: int, slot_ms: float, *, gated: bool = True, relative: bool = False) -> None:
        half = n_obs // 2
        self.slot_ms, self.gated, self.relative = slot_ms, gated and not relative, relative
        self._rate, self._rate_norms = basis(half, slot_ms, RATE_DECAYS_MS, RATE_HZ, RATE_DAMPING_MS)
        self._pulse, self._pulse_norms = basis(half, slot_ms, PULSE_DECAYS_MS, PULSE_HZ, PULSE_DAMPING_MS)

    @property
    def size(self) -> int:
        """Numbers of a candidate."""
        return len(self._rate) + len(self._pulse) + 1

    def weights(self, candidate: Floats) -> Floats:
        """(..., size) -> (..., n_obs + 1): a weight for each observed value, and the bias; a pulse where it is > 0.

        A candidate's own bias holds at the rate of `RATE_CENTRE`, so that a weight on the rate leaves an untreated
        plant's mean alone and tells a healthy plant's from it; with ``relative`` on every plant.
        """
        rate, pulse = self.filters(candidate)
        if self.relative:
            rate_less = rate.sum(axis=-1, keepdims=True) * self.long_mean()
            when: Floats = np.concatenate([rate, pulse], axis=-1) - rate_less
            return np.concatenate([when, candidate[..., -1:]], axis=-1)
        bias = candidate[..., -1:] - RATE_CENTRE * rate.sum(axis=-1, keepdims=True)
        return np.concatenate([rate, pulse, bias], axis=-1)

    def filters(self, candidate: Floats) -> tuple[Floats, Floats]:
        """(..., size) -> a weight for each slot's rate, and one for the pulse in it, (..., n_obs / 2) each."""
        cut = len(self._rate)
        return candidate[..., :cut] @ self._rate, candidate[..., cut:-1] @ self._pulse

    def long_mean(self) -> Floats:
        """Weights, (n_obs,), of the GPi's mean rate over all that is seen, less what regular pulses would add.

        Pulses in groups add half as much again (docs/timing.md): what is above a threshold stays there more easily.
        """
        n = len(self._rate[0])
        a_pulse = RATE_A_PULSE * 1000.0 / self.slot_ms
        return np.concatenate([np.full(n, 1.0 / n), np.full(n, -a_pulse / n)])

    def regular(self, hz: float) -> Floats:
        """A candidate that keeps this rate or up to a seventh less (a pulse comes in the slot after it is due); less
        behind a gate."""
        left = np.exp(-1000.0 / hz / REGULAR_MS)  # of a pulse's trace when the next one is due
        return self._start({REGULAR_MS: -1.0}, float(left / (1.0 - left)))

    def groups(self, size: int, hz: float, gap_slots: int) -> Floats:
        """A candidate that gives about ``hz`` in groups of ``size`` pulses, ``gap_slots`` apart; less behind a gate.

        A fast trace of its own pulses keeps a group going, a slow one ends it and decides when the next is due.

        Raises:
            UserError: groups so far apart that the policy forgets one before the next, or without a pause.
        """
        if size == 1:
            return self.regular(hz)
        n, period = len(self._pulse[0]), self._period(size, hz)
        if not self._fits(size, hz, gap_slots):
            fit = [one for one in range(2, 101) if self._fits(one, hz, gap_slots)]
            allowed = f"1, and {fit[0]} to {fit[-1]}," if fit else "1 alone"
            raise UserError(
                f"group_pulses={size} at pulse_budget_hz={hz:g} makes pauses that are no pauses, or longer than the "
                f"{n * self.slot_ms:.0f} ms that the policy sees: {allowed} fits"
            )
        train = np.zeros(n + 2 * period)
        for first in range(len(train) - period, -period, -period):  # the newest group begins one period before the end
            at = first + gap_slots * np.arange(size)
            train[at[at >= 0]] = 1.0
        end = len(train) - period + gap_slots * size  # the decision at which the newest group must end

        def traces(decision: int, decay_ms: float) -> float:
            oldest_first = np.ascontiguousarray(self._decay(decay_ms)[::-1])
            return float(train[decision - n : decision] @ oldest_first)

        begins, ends = traces(len(train), PAUSE_MS), traces(end, PAUSE_MS)
        keeps = (ends - begins) / traces(end, GROUP_MS)
        scale = 1.0 / begins
        return self._start({GROUP_MS: keeps * scale, PAUSE_MS: -scale}, 1.0)

    def earlier(self) -> Floats:
        """The candidate of an earlier search (`EARLIER_RATE` and what follows), in slots of this length; no gate."""
        rate = np.array([*EARLIER_RATE_DECAYS, 0.0, *EARLIER_RATE]) * self.slot_ms * self._rate_norms
        pulse = np.array([*EARLIER_PULSE_DECAYS, 0.0, *EARLIER_PULSES]) * self._pulse_norms
        bias = EARLIER_BIAS + RATE_CENTRE * (rate @ self._rate).sum()
        return np.concatenate([rate, pulse, [bias]])

    def above(self, hz: float) -> Floats:
        """Weights as `weights` gives them, (n_obs + 1,), above 0 where `long_mean` is above this many Hz a cell."""
        return np.append(self.long_mean(), -hz / RATE_SCALE_HZ)

    def gate(self) -> Floats:
        """Weights as `weights` gives them, (n_obs + 1,), above 0 where the GPi's rate is none of a healthy plant.

        About 1 on a parkinsonian plant, below 0 on a healthy one. It has nothing to tell of the moment, so that it must
        not close by chance.
        """
        candidate = self._whether(1.0 / GATE_OPEN)
        candidate[-1] = 1.0
        return self.weights(candidate)

    def _whether(self, strength: float) -> Floats:
        """A candidate that tells a healthy plant from others, its bias 0: ``strength`` times a difference of rates.

        The mean of the GPi's rate over `GATE_MS`, less what a parkinsonian plant shows at the policy's own rate of
        pulses: on such a plant 0 but for noise, on a healthy one about -0.13 ``strength``.
        """
        candidate, rate, pulses = np.zeros(self.size), self._decay(GATE_MS), self._decay(PAUSE_MS)
        pulses_hz = 1000.0 / self.slot_ms / pulses.sum() * np.linalg.norm(pulses)  # of a weight 1 on this decay
        candidate[RATE_DECAYS_MS.index(GATE_MS)] = strength / rate.sum() * np.linalg.norm(rate)
        candidate[len(self._rate) + PULSE_DECAYS_MS.index(PAUSE_MS)] = -(strength * RATE_A_PULSE * pulses_hz)
        return candidate

    def _start(self, weights: dict[float, float], bias: float) -> Floats:
        """A candidate of these weights on the decays of its own pulses (ms -> a pulse's weight when it is new).

        Behind a gate a healthy plant's rate outweighs the bias twice.
        """
        candidate = self._whether(bias / GATE_MARGIN) if self.gated else np.zeros(self.size)
        for decay, weight in weights.items():
            place = len(self._rate) + PULSE_DECAYS_MS.index(decay)
            candidate[place] += weight * np.linalg.norm(self._decay(decay))
        candidate[-1] = bias
        return candidate

    def _period(self, size: int, hz: float) -> int:
        """Slots from a group of ``size`` pulses to the next, for ``hz`` on average."""
        return round(1000.0 * size / hz / self.slot_ms)

    def _fits(self, size: int, hz: float, gap_slots: int) -> bool:
        """Whether groups have a pause between them, and one that is not longer than what is seen."""
        return (size + 1) * gap_slots <= self._period(size, hz) < len(self._pulse[0]) + gap_slots * (size - 1)

    def _decay(self, tau_ms: float) -> Floats:
        """A pulse's trace by its age, newest first."""
        return np.asarray(np.exp(-np.arange(len(self._pulse[0])) * self.slot_ms / tau_ms))
