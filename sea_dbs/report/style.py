"""One look for every figure: a colour means the same thing everywhere, and axes name their units."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from sea_dbs.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinguishable with the common colour-vision deficiencies, and in grey by lightness.
HEALTHY = "#2a8f6d"  # green
UNTREATED = "#b5473a"  # brick
CONTINUOUS = "#2b66ad"  # blue: fixed, open-loop stimulation
POLICY = "#7346a6"  # violet: what was learnt
PULSES = "#d08a1d"  # amber: pulses, charge, duty
WARNING = "#c00000"  # red: a reader must not miss it
NEUTRAL = "#6b7280"
INK = "#1f2933"
GRID = "#e3e7ec"

DPI = 144
_RC: Any = {  # matplotlib types its keys as a list of literals
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": True,
    "legend.framealpha": 0.93,
    "legend.edgecolor": "none",
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
}


P = ParamSpec("P")


def drawing(draw: Callable[P, bytes]) -> Callable[P, bytes]:
    """Give a function that draws a figure the house's look; it says so when matplotlib is missing.

    The settings hold only while it draws: no global state of matplotlib is changed.
    """

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> bytes:
        need("report", "matplotlib")
        import matplotlib

        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return styled


def subplots(width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, list[Axes]]:
    """A figure (inches) and its axes, row by row, drawn by Agg without pyplot's global list of figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    return figure, [axis for row in axes for axis in row]


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes; equal figures are equal bytes (no program version inside)."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
