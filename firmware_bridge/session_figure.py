"""The picture of a session: what the beta band did, and what the electrode gave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from firmware_bridge.recorder import read_table
from firmware_bridge.summary import beta_trace
from sea_dbs.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATE_WINDOW_S = 0.5  # s over which the pulse rate is counted


@style.drawing
def draw(path: Path) -> bytes:
    """PNG of a recording: GPi beta power with its level before the first pulse, and pulses with their rate.

    Raises:
        UserError: matplotlib is not installed, or the recording cannot be read.
    """
    session = read_table(path, "session")[0]
    pulse_s = np.array([row["plant_us"] for row in read_table(path, "pulses")]) * 1e-6
    figure, (top, bottom) = style.subplots(9.0, 4.6, 2, 1, sharex=True, height_ratios=(2.2, 1.0))
    seconds = _beta(top, path, session)
    _pulses(bottom, pulse_s, seconds)
    figure.suptitle(session["mode"], fontsize=8, color=style.NEUTRAL, x=0.99, ha="right")
    return style.png(figure)


def _beta(axis: Axes, path: Path, session: dict[str, Any]) -> float:
    times, beta = beta_trace(path)
    axis.plot(times, beta, color=style.POLICY, linewidth=1.0, label="P_beta, sliding 1 s window")
    decisions = [row for row in read_table(path, "decisions") if row["P_beta"] is not None]
    length_s = session["slots"] * session["slot_us"] * 1e-6
    seconds: float = len(decisions) * length_s
    if session["slots"] > 1:
        ends = [row["plant_us"] * 1e-6 + length_s for row in decisions]
        means = [row["P_beta"] for row in decisions]
        axis.plot(ends, means, "o", markersize=3.5, color=style.INK, label="mean of an observation")
    if session["P_beta_first"] is not None:
        level = session["P_beta_first"]
        axis.axhline(level, color=style.UNTREATED, linewidth=1.0, linestyle="--", label="at the start")
    axis.axvline(0.0, color=style.NEUTRAL, linewidth=0.8)
    axis.set_ylim(0.0, 1.25 * max([1.0, *beta]))  # room for the legend
    axis.set_ylabel("GPi beta power P_beta")
    what = (session["controller"], session["board"], session["clock"], f"seed {session['seed']}")
    axis.set_title("Closed loop: " + ", ".join(what))
    axis.legend(loc="upper right", ncols=3)
    return seconds


def _pulses(axis: Axes, pulse_s: np.ndarray[Any, np.dtype[np.float64]], seconds: float) -> None:
    edges = np.arange(0.0, max(seconds, RATE_WINDOW_S) + RATE_WINDOW_S / 2, RATE_WINDOW_S)
    rate = np.histogram(pulse_s, edges)[0] / RATE_WINDOW_S
    axis.stairs(rate, edges, fill=True, color=style.PULSES, alpha=0.35, label=f"rate in {RATE_WINDOW_S:g} s")
    top = max(float(rate.max()) * 1.4, 10.0)
    axis.vlines(pulse_s, 0.0, top * 0.12, color=style.PULSES, linewidth=0.6, label="pulse on the electrode")
    axis.set_ylim(0.0, top)
    axis.set_ylabel("pulses (1/s)")
    axis.set_xlabel("plant time (s)")
    axis.set_title(f"Stimulation: {len(pulse_s)} pulses")
    axis.legend(loc="upper right", ncols=2)
