"""Beta and stimulation over a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sea_dbs.report import style
from sea_dbs.report.session_data import SessionData

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKED = ("fault", "nack", "clamp", "deadline", "error")  # events that a reader must see in the picture
SHORT_S = 0.2  # s: of shorter decisions the mean of an observation is not drawn
MOST_STEPS = 150  # steps of the share of slots


@style.drawing
def draw(data: SessionData) -> bytes:
    """PNG: sliding P_beta with its level before the first pulse; below, the share of slots and every pulse."""
    figure, (beta, duty, ticks) = style.subplots(9.0, 4.8, 3, 1, sharex=True, height_ratios=(2.6, 1.1, 0.25))
    _beta(beta, data)
    _duty(duty, data)
    _ticks(ticks, data)
    colour, weight = (style.NEUTRAL, "normal") if data.device_envelope else (style.WARNING, "bold")
    figure.suptitle(data.session["mode"], fontsize=8, color=colour, weight=weight, x=0.99, ha="right")
    return style.png(figure)


def _beta(axis: Axes, data: SessionData) -> None:
    times, values = data.beta_trace()
    axis.plot(times, values, color=style.POLICY, linewidth=0.9, alpha=0.75, label="each 1 s window")
    done = data.done
    if data.decision_s > SHORT_S:
        ends = [row["plant_us"] * 1e-6 + data.decision_s for row in done]
        axis.plot(
            ends, [row["P_beta"] for row in done], "o-", ms=3.5, lw=1.2, color=style.INK, label="mean of a decision"
        )
    start = data.session["P_beta_first"]
    if start is not None:
        axis.axhline(start, color=style.UNTREATED, lw=1.2, ls="--", label=f"before the first pulse: {start:.0f}")
    threshold = 1000.0 * data.setting("beta_threshold")
    axis.axhline(threshold, color=style.NEUTRAL, lw=1.0, ls=":", label=f"reward's threshold: {threshold:.0f}")
    axis.axvspan(min(0.0, float(times[0]) if len(times) else 0.0), 0.0, color=style.GRID, alpha=0.6, lw=0)
    marks = [row for row in data.events if row["kind"] in MARKED]
    offset = data.session["offset_us"] or 0
    for i, row in enumerate(marks):
        label = "late order, refusal or fault" if i == 0 else None
        axis.axvline((row["device_us"] - offset) * 1e-6, color=style.UNTREATED, lw=0.8, alpha=0.6, label=label)
    top = max([1.3 * (start or 0.0), *(1.25 * values)], default=1.0)
    axis.set_ylim(0.0, top or 1.0)
    axis.set_ylabel("GPi beta power\nP_beta (spikes²/s²)")
    axis.set_title("Beta power in the closed loop (shaded: before the first decision)")
    axis.legend(loc="upper right", ncols=5, columnspacing=1.0, handlelength=1.6)


def _duty(axis: Axes, data: SessionData) -> None:
    axis.set_ylim(0.0, 145.0)
    axis.set_yticks([0, 50, 100])
    axis.set_ylabel("slots\nstimulated (%)")
    if not (done := data.done):
        return
    # Many short decisions: the mean of neighbours side by side, so that nothing is drawn before it was decided.
    first = np.arange(0, len(done), max(1, -(-len(done) // MOST_STEPS)))
    count = np.diff(np.append(first, len(done))) * data.session["slots"]
    decided = np.add.reduceat([row["mask"].count("1") for row in done], first) / count
    delivered = np.add.reduceat([row["pulses"] for row in done], first) / count
    starts = np.array([row["plant_us"] * 1e-6 for row in done])
    edges = np.append(starts[first], starts[-1] + data.decision_s)
    axis.stairs(100 * delivered, edges, fill=True, color=style.PULSES, alpha=0.45, label="delivered on the electrode")
    axis.stairs(100 * decided, edges, color=style.INK, lw=1.0, label="decided")
    if data.session.get("shadow") is not None:
        masks = [row["shadow_mask"] or "" for row in done]
        shadow = np.add.reduceat([mask.count("1") for mask in masks], first) / count
        label = "the policy in shadow, not applied"
        axis.stairs(100 * shadow, edges, color=style.POLICY, lw=1.2, ls="--", label=label)
    axis.legend(loc="upper right", ncols=3)


def _ticks(axis: Axes, data: SessionData) -> None:
    t = np.array([row["plant_us"] for row in data.pulses]) * 1e-6
    axis.vlines(t, 0.0, 1.0, color=style.PULSES, lw=0.5)
    axis.set_ylim(0.0, 1.0)
    axis.set_yticks([])
    axis.grid(visible=False)
    axis.spines["left"].set_visible(False)
    axis.set_ylabel("pulses", rotation=0, ha="right", va="center")
    axis.set_xlabel("plant time (s)")
