"""The picture of a search: how its cost fell, and what the policy that it found reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sea_dbs.report.style import CONTINUOUS, NEUTRAL, POLICY, PULSES, drawing, png, subplots


@drawing
def draw(lines: Sequence[Mapping[str, Any]], weights: NDArray[np.float64], slot_ms: float, budget_hz: float) -> bytes:
    """PNG of two panels.

    Args:
        lines: of metrics.jsonl, one a generation.
        weights: of the policy, (n_obs + 1,).
        slot_ms: length of a slot (ms).
        budget_hz: pulses a second that cost nothing.
    """
    figure, (cost, filters) = subplots(9.0, 3.8, 1, 2, width_ratios=[1.0, 1.2])
    generations = np.arange(1, len(lines) + 1)
    for key, colour, label in (("cost", NEUTRAL, "mean of the candidates"), ("best_cost", POLICY, "the best of them")):
        cost.plot(generations, [line[key] for line in lines], color=colour, label=label)
    cost.set_xlabel("generation")
    cost.set_ylabel("cost: beta, % of untreated, and pulses")
    cost.set_title(f"The search, a budget of {budget_hz:g} Hz")
    cost.legend()
    half = len(weights) // 2
    ago = np.arange(half, 0, -1) * slot_ms
    scale = np.abs(weights[:-1]).max() or 1.0
    filters.axhline(0.0, color=NEUTRAL, linewidth=0.8)
    filters.plot(ago, weights[:half] / scale, color=CONTINUOUS, label="of the GPi's rate")
    filters.plot(ago, weights[half:-1] / scale, color=PULSES, label="of its own pulses")
    filters.invert_xaxis()
    filters.set_xlabel("ms before the decision")
    filters.set_ylabel("weight, of the largest")
    filters.set_title("What speaks for a pulse (above 0), and against")
    filters.legend()
    return png(figure)
