"""How long a decision takes, and how long it is from sample to pulse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sea_dbs.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 99.5  # percentile up to which the axis reaches: one stall of the computer would squeeze everything else

Values = NDArray[np.floating]
COLOURS = {
    "torch": style.NEUTRAL,
    "ONNX FP32": style.CONTINUOUS,
    "ONNX FP16": style.POLICY,
    "ONNX INT8": style.HEALTHY,
    "whole decision in the session": style.PULSES,
}


@style.drawing
def draw(decision_us: Mapping[str, Values], sample_to_pulse_us: Values) -> bytes:
    """PNG: histograms of decision latency (µs, by what was timed) and, where there is one, of sample to pulse (ms)."""
    both = len(sample_to_pulse_us) > 0 and float(np.max(sample_to_pulse_us)) > 0.0
    figure, axes = style.subplots(9.0, 3.3, 1, 2 if both else 1)
    _decisions(axes[0], decision_us)
    if both:
        _pulses(axes[1], sample_to_pulse_us / 1000.0)
    return style.png(figure)


def _decisions(axis: Axes, decision_us: Mapping[str, Values]) -> None:
    slowest = max(float(np.percentile(values, SHOWN)) for values in decision_us.values())
    fastest = max(0.5, min(float(values.min()) for values in decision_us.values()))
    edges = np.geomspace(0.95 * fastest, 1.2 * slowest, 80)
    for name, values in decision_us.items():
        share = 100.0 * np.histogram(np.maximum(values, 0.5), edges)[0] / len(values)
        p50, p99 = np.percentile(values, (50, 99))
        colour = COLOURS.get(name, style.NEUTRAL)
        axis.stairs(share, edges, fill=True, alpha=0.35, color=colour)
        axis.stairs(share, edges, color=colour, lw=1.0, label=f"{name}: p50 {p50:.0f}, p99 {p99:.0f} µs")
    beyond = sum(int((values > edges[-1]).sum()) for values in decision_us.values())
    total = sum(map(len, decision_us.values()))
    if beyond:
        told = f"{beyond} of {total:,} slower than {edges[-1]:.0f} µs, not shown"
        axis.text(0.995, 0.6, told, transform=axis.transAxes, ha="right", fontsize=7, color=style.NEUTRAL)
    axis.set_xscale("log")
    axis.set_xlabel("time of one decision on this computer (µs)")
    axis.set_ylabel("share of decisions (%)")
    axis.set_title("Decision latency")
    low, high = axis.get_ylim()
    axis.set_ylim(low, 1.8 * high)  # room for the legend
    axis.legend(loc="upper right")


def _pulses(axis: Axes, ms: Values) -> None:
    spread = max(float(np.ptp(ms)), 0.1)
    edges = np.linspace(float(ms.min()) - 0.05 * spread, float(ms.max()) + 0.05 * spread, 40)
    axis.stairs(np.histogram(ms, edges)[0], edges, fill=True, color=style.PULSES, alpha=0.6)
    p50, p99 = np.percentile(ms, (50, 99))
    for value, name, place in ((p50, "p50", 0.97), (p99, "p99", 0.87)):
        axis.axvline(value, color=style.INK, lw=1.0, ls="--" if name == "p99" else "-")
        axis.text(value, place, f" {name} {value:.1f} ms", transform=axis.get_xaxis_transform(), va="top", fontsize=8)
    axis.set_xlabel("newest sample to pulse, device time (ms)")
    axis.set_ylabel("decisions")
    axis.set_title("Sample to pulse")
