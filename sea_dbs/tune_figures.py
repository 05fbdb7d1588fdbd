"""Pictures of a search: beta against charge of what was tried, and a pattern search over its generations."""

from __future__ import annotations

from typing import Any

import numpy as np

from sea_dbs.report.style import CONTINUOUS, NEUTRAL, POLICY, PULSES, UNTREATED, drawing, png, subplots


@drawing
def tuning(result: dict[str, Any]) -> bytes:
    """Every trial as beta against charge; the literature's and the chosen one marked. PNG bytes."""
    figure, [axes] = subplots(6.4, 4.2)
    error = result["plan"]["measure"] == "error"
    key = "error_percent" if error else "beta_percent"
    rows = result["trials"]
    axes.plot(
        [row["charge_percent_of_130Hz"] for row in rows], [row[key] for row in rows], "o", color=NEUTRAL, alpha=0.6
    )
    for name, row, colour in (("literature", result["literature"], CONTINUOUS), ("chosen", result["best"], POLICY)):
        label = f"{name}: {row['name']}"
        axes.plot(row["charge_percent_of_130Hz"], row[key], "o", color=colour, markersize=9, label=label)
    axes.axhline(100.0, color=UNTREATED, linewidth=0.8, linestyle=":")
    axes.set_xlabel("pulses, % of continuous 130 Hz")
    axes.set_ylabel("tracking error, % of untreated" if error else "P_beta, % of untreated")
    axes.set_title(f"{result['controller']} on {len(result['search_seeds'])} search plants")
    axes.legend()
    return png(figure)


@drawing
def evolution(result: dict[str, Any]) -> bytes:
    """The best and the mean pattern of each generation, and the best mask beside the regular train. PNG bytes."""
    figure, (trace, masks) = subplots(7.2, 4.8, 2, 1, height_ratios=[2, 1])
    history = result["history"]
    trace.plot([one["best"] for one in history], color=POLICY, label="best of the generation")
    trace.plot([one["mean"] for one in history], color=NEUTRAL, label="mean of the generation")
    trace.axhline(result["regular"]["beta_percent"], color=CONTINUOUS, linestyle=":", label="regular train")
    trace.set_xlabel("generation")
    trace.set_ylabel("P_beta, % of untreated")
    trace.set_title(f"Patterns of at most {result['plan']['rate']:g} Hz, {len(result['search_seeds'])} search plants")
    trace.legend()
    for y, (mask, colour) in enumerate(((result["regular"]["mask"], CONTINUOUS), (result["best"]["mask"], PULSES))):
        times = 1000.0 * np.flatnonzero([bit == "1" for bit in mask]) / result["parameters"]["slot_hz"]
        masks.vlines(times, y - 0.35, y + 0.35, color=colour)
    masks.set_yticks([0, 1], ["regular", "best"])
    masks.set_xlabel("ms")
    return png(figure)


@drawing
def bound(result: dict[str, Any]) -> bytes:
    """Change of beta on each plant: the regular train, and the search that knew the future. PNG bytes."""
    figure, [axes] = subplots(6.4, 3.8)
    rows = result["plants"]
    for at, row in enumerate(rows):
        ends = [100.0 * (row[key] / row["untreated"] - 1.0) for key in ("regular", "best")]
        axes.plot([at, at], ends, color=NEUTRAL, linewidth=1.0, zorder=1)
    for key, colour, name in (
        ("regular", CONTINUOUS, "regular train"),
        ("best", POLICY, "search that knows the future"),
    ):
        values = [100.0 * (row[key] / row["untreated"] - 1.0) for row in rows]
        axes.plot(values, "o", color=colour, label=f"{name}: {result[key]['change']:.1f} %")
        axes.axhline(result[key]["change"], color=colour, linestyle=":", linewidth=1.0)
    axes.set_xticks(range(len(rows)), [str(row["seed"]) for row in rows], rotation=30)
    axes.set_xlabel("held-out plant")
    axes.set_ylabel("P_beta, change in % of untreated")
    axes.set_title(f"{result['pulse_hz']:.1f} Hz, {result['pulses_percent_of_130Hz']:.0f} % of the pulses of 130 Hz")
    axes.margins(y=0.25)
    axes.legend(loc="upper center", ncols=2)
    return png(figure)
