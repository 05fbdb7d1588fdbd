"""What is searched: a linear policy over the last slots, its two filters given by few numbers.

A filter of 80 slots has more numbers than an evolution strategy finds in a day. Here each is a sum of decays and of
damped oscillations around the beta band, so that a candidate is 25 numbers; `weights` writes it out slot by slot.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# All values are ours: from one slot to the length of the filter, and from below the beta band (13-35 Hz) to above it.
RATE_DECAYS_MS = (3.0, 10.0, 30.0, 100.0)  # ms, of the GPi's rate
RATE_HZ = (10.0, 16.0, 22.0, 30.0, 42.0)  # Hz, oscillations in the GPi's rate
RATE_DAMPING_MS = 50.0  # ms
PULSE_DECAYS_MS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)  # ms, of the policy's own pulses
PULSE_HZ = (22.0, 45.0)  # Hz, oscillations in its own pulses
PULSE_DAMPING_MS = 60.0  # ms
REGULAR_MS = 20.0  # ms, the decay of its own pulses by which the start keeps a rate

Floats = NDArray[np.float64]


def basis(
    n: int, slot_ms: float, decays_ms: tuple[float, ...], oscillations_hz: tuple[float, ...], damping_ms: float
) -> Floats:
    """Filters over ``n`` slots, oldest first, each of unit norm: (decays and twice the oscillations, n)."""
    age = np.arange(n - 1, -1, -1) * slot_ms  # ms since a slot began, the newest 0
    rows = [np.exp(-age / tau) for tau in decays_ms]
    for hz in oscillations_hz:
        phase, damped = 2.0 * np.pi * hz * age / 1000.0, np.exp(-age / damping_ms)
        rows += [damped * np.cos(phase), damped * np.sin(phase)]
    table = np.array(rows)
    return np.asarray(table / np.linalg.norm(table, axis=1, keepdims=True))


class Candidates:
    """Candidates for a policy that sees ``n_obs`` values: the GPi's rate in n_obs/2 slots, then its pulses in them."""

    def __init__(self, n_obs: int, slot_ms: float) -> None:
        half = n_obs // 2
        self.slot_ms = slot_ms
        self._rate = basis(half, slot_ms, RATE_DECAYS_MS, RATE_HZ, RATE_DAMPING_MS)
        self._pulse = basis(half, slot_ms, PULSE_DECAYS_MS, PULSE_HZ, PULSE_DAMPING_MS)

    @property
    def size(self) -> int:
        """Numbers of a candidate."""
        return len(self._rate) + len(self._pulse) + 1

    def weights(self, candidate: Floats) -> Floats:
        """(..., size) -> (..., n_obs + 1): a weight for each observed value, and the bias; a pulse where it is > 0."""
        cut = len(self._rate)
        rate, pulse = candidate[..., :cut] @ self._rate, candidate[..., cut:-1] @ self._pulse
        return np.concatenate([rate, pulse, candidate[..., -1:]], axis=-1)

    def regular(self, hz: float) -> Floats:
        """A candidate that reads nothing but its own pulses and keeps about this rate: where a search begins."""
        candidate = np.zeros(self.size)
        left = np.exp(-1000.0 / hz / REGULAR_MS)  # of a pulse's trace when the next one is due
        place = PULSE_DECAYS_MS.index(REGULAR_MS)
        n = len(self._pulse[0])
        candidate[len(self._rate) + place] = -np.linalg.norm(np.exp(-np.arange(n) * self.slot_ms / REGULAR_MS))
        candidate[-1] = left / (1.0 - left)
        return candidate
