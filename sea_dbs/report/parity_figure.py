"""The parity picture: could a change of precision have changed a decision, and what is saved?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sea_dbs.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}
COLOURS = {"fp32": style.CONTINUOUS, "fp16": style.POLICY, "int8": style.PULSES}


@style.drawing
def draw(
    reference: NDArray[np.float64],
    candidates: Mapping[str, NDArray[np.float64]],
    sizes: Sequence[tuple[str, str, int]],
) -> bytes:
    """PNG of margins and sizes.

    Args:
        reference: decision margins of torch (any shape): logit for a pulse less logit against it.
        candidates: the same margins by precision.
        sizes: (policy, precision, bytes of the file) in the order of the table.
    """
    figure, axes = style.subplots(9.0, 3.6, 1, 2, width_ratios=(1.5, 1.0))
    _margins(axes[0], reference, candidates)
    _sizes(axes[1], sizes)
    return style.png(figure)


def _margins(axis: Axes, reference: NDArray[np.float64], candidates: Mapping[str, NDArray[np.float64]]) -> None:
    margin = np.abs(reference).ravel()
    floor = 1e-9  # exact equality has no logarithm: drawn at the floor
    for name, values in candidates.items():
        change = np.abs(values - reference).ravel()
        axis.plot(
            np.maximum(margin, floor),
            np.maximum(change, floor),
            ".",
            markersize=3,
            alpha=0.35,
            color=COLOURS.get(name, style.NEUTRAL),
            label=LABELS.get(name, name),
            rasterized=True,
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    low, high = axis.get_xlim()
    line = np.array([low, high])
    axis.fill_between(line, line, max(high, axis.get_ylim()[1]), color=style.UNTREATED, alpha=0.10, linewidth=0)
    axis.plot(line, line, color=style.UNTREATED, linewidth=1)
    axis.set_xlim(low, high)
    axis.text(0.03, 0.95, "a decision can flip only here", color=style.UNTREATED, transform=axis.transAxes, va="top")
    axis.set_xlabel("margin of the trained network's decision (logit units)")
    axis.set_ylabel("change of the margin (logit units)")
    axis.set_title(f"{margin.size:,} decisions over real observations")
    axis.legend(loc="upper left", bbox_to_anchor=(0.02, 0.9), markerscale=3)


def _sizes(axis: Axes, sizes: Sequence[tuple[str, str, int]]) -> None:
    names = [f"{policy} {LABELS.get(precision, precision)}" for policy, precision, _ in sizes]
    kib = [count / 1024 for *_, count in sizes]
    colours = [COLOURS.get(precision, style.NEUTRAL) for _, precision, _ in sizes]
    axis.barh(names, kib, color=colours, height=0.6)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlim(min(kib) / 3, max(kib) * 12)
    for place, value in enumerate(kib):
        text = f"{value:.0f} KiB" if value < 1024 else f"{value / 1024:.1f} MiB"
        axis.text(value * 1.1, place, text, va="center", fontsize=8)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("ONNX file (KiB)")
    axis.set_title("Size")
