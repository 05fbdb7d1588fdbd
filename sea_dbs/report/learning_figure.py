"""The learning curve: beta, reward and stimulation against environment steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sea_dbs.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DOTS = 4000  # steps drawn one by one; a longer run is thinned
KEYS = (
    ("P_beta", 1.0, "GPi beta power\nP_beta (spikes²/s²)", style.POLICY),
    ("reward", 1.0, "reward\n(a decision)", style.CONTINUOUS),
    ("duty", 100.0, "slots\nstimulated (%)", style.PULSES),
)


@style.drawing
def draw(
    metrics: Sequence[dict[str, Any]], *, warmup_steps: int, threshold: float | None, untreated: float | None
) -> bytes:
    """PNG of three panels: faint dots are single decisions, the line is a running mean.

    Args:
        metrics: lines of metrics.jsonl.
        warmup_steps: environment steps with random actions, shaded.
        threshold: P_beta of the reward's threshold.
        untreated: P_beta without stimulation, if an evaluation measured it.
    """
    figure, axes = style.subplots(9.0, 5.4, 3, 1, sharex=True, height_ratios=(1.6, 1.0, 1.0))
    steps = np.array([line["step"] for line in metrics])
    n_envs = 1 + max(line["env"] for line in metrics)
    window = max(4, n_envs, len(steps) // 25)
    thin = max(1, len(steps) // MOST_DOTS)
    size, alpha = (4.5, 0.4) if len(steps) < 1000 else (2.5, 0.22)
    for axis, (key, factor, label, colour) in zip(axes, KEYS, strict=True):
        values = factor * np.array([line[key] for line in metrics], np.float64)
        axis.plot(steps[::thin], values[::thin], ".", ms=size, alpha=alpha, color=colour, mec="none")
        axis.plot(
            steps, _running_mean(values, window), color=colour, lw=1.8, label=f"running mean of {window} decisions"
        )
        axis.set_ylabel(label)
        if warmup_steps > 0:
            axis.axvspan(0, min(warmup_steps, int(steps[-1])), color=style.GRID, alpha=0.6, lw=0)
    _levels(axes[0], threshold, untreated)
    axes[0].legend(loc="upper right", ncols=3)
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high + 0.22 * (high - low))  # room for the legend
    axes[2].set_ylim(-4.0, 104.0)
    axes[2].set_xlabel("environment steps (decisions of all environments together)")
    shaded = " (shaded: random actions before learning begins)" if warmup_steps > 0 else ""
    axes[0].set_title(f"Learning over {steps[-1]:,} environment steps{shaded}")
    axes[0].set_xlim(0, int(steps[-1]))
    return style.png(figure)


def _levels(axis: Axes, threshold: float | None, untreated: float | None) -> None:
    if untreated is not None:
        axis.axhline(
            untreated, color=style.UNTREATED, lw=1.2, ls="--", label=f"untreated, held-out plants: {untreated:.0f}"
        )
    if threshold is not None:
        axis.axhline(threshold, color=style.NEUTRAL, lw=1.0, ls=":", label=f"reward's threshold: {threshold:.0f}")


def _running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of each value's neighbourhood of ``window`` decisions, shorter at both ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    mean: NDArray[np.float64] = (total[high] - total[low]) / (high - low)
    return mean
