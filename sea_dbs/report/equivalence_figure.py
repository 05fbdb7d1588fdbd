"""Equivalence of float32 and float64: every measure's difference with its interval, against its margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from envs.equivalence import ALL, Row
from sea_dbs.report.style import CONTINUOUS, GRID, INK, UNTREATED, drawing, png, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "con": "healthy",
    "pd": "PD, no stimulation",
    "pd130": "PD, 130 Hz",
    "pd50": "PD, 50 Hz",
    "pd30": "PD, 30 Hz",
    ALL: "all conditions together",
}
SHOWN = 1.6  # margins to either side


@drawing
def draw(rows: Sequence[Row], planted: Sequence[Row], change: float) -> bytes:
    """PNG: a panel a condition; dots are mean paired differences, lines their 90 % intervals, in units of the margin.

    Args:
        rows: float32 against float64.
        planted: the same with an error planted into float32; may be empty.
        change: that error, relative.
    """
    conditions = list(dict.fromkeys(row.condition for row in rows))
    figure, axes = subplots(11.0, 8.6, 2, 3, sharex=True)
    for axis, condition in zip(axes, conditions, strict=False):
        ours = [row for row in rows if row.condition == condition]
        theirs = {row.measure: row for row in planted if row.condition == condition}
        _panel(axis, ours, theirs, change)
        axis.set_title(TITLES[condition])
    for axis in axes[len(conditions) :]:
        axis.set_visible(False)
    for axis in axes[3:]:
        axis.set_xlabel("difference from float64 (margins)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3)
    return png(figure)


def _panel(axis: Axes, rows: Sequence[Row], planted: dict[str, Row], change: float) -> None:
    axis.axvspan(-1.0, 1.0, color=GRID, alpha=0.6, lw=0)
    for edge in (-1.0, 1.0):
        axis.axvline(edge, color=INK, lw=0.9, ls="--")
    for y, row in enumerate(rows):
        if row.measure in planted:
            label = f"float32 with g(GPe→GPe) {100 * change:+g} %" if y == 0 else None
            _interval(axis, planted[row.measure], y + 0.18, UNTREATED, label)
        _interval(axis, row, y - 0.18, CONTINUOUS, "float32" if y == 0 else None)
    axis.set_yticks(range(len(rows)), [row.measure for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(-SHOWN, SHOWN)
    axis.grid(visible=False, axis="y")


def _interval(axis: Axes, row: Row, y: float, colour: str, label: str | None) -> None:
    axis.plot([row.low / row.margin, row.high / row.margin], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
    axis.plot(row.difference / row.margin, y, "o", color=colour, markersize=3.4, label=label)
