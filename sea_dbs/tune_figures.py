"""Pictures of a search: beta against charge of what was tried, and a pattern search over its generations."""

from __future__ import annotations

from typing import Any

import numpy as np

from sea_dbs.report.style import CONTINUOUS, NEUTRAL, POLICY, PULSES, UNTREATED, drawing, png, subplots
from sea_dbs.trials import each_plant


@drawing
def tuning(result: dict[str, Any]) -> bytes:
    """Every trial as beta against charge; the default and the chosen one marked. PNG bytes."""
    figure, [axes] = subplots(6.4, 4.2)
    measure = result["plan"]["measure"]
    key, words = {
        "beta": ("beta_percent", "P_beta, % of untreated"),
        "error": ("error_percent", "tracking error, % of untreated"),
        "reward": ("mean_reward", "reward a decision"),
    }[measure]
    rows = [row for row in result["trials"] if row["score"] is not None]
    axes.plot(
        [row["charge_percent_of_130Hz"] for row in rows], [row[key] for row in rows], "o", color=NEUTRAL, alpha=0.6
    )
    for name, row, colour in (("default", result["literature"], CONTINUOUS), ("chosen", result["best"], POLICY)):
        if row["score"] is None:
            continue
        label = f"{name}: {row['name']}"
        axes.plot(row["charge_percent_of_130Hz"], row[key], "o", color=colour, markersize=9, label=label)
    untreated = float(np.nanmean(each_plant(result["untreated"]["reward"]))) if measure == "reward" else 100.0
    axes.axhline(untreated, color=UNTREATED, linewidth=0.8, linestyle=":")
    axes.set_xlabel("charge, % of continuous 130 Hz")
    axes.set_ylabel(words)
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
def foresight(result: dict[str, Any]) -> bytes:
    """Change of beta on each plant, regular train and search, and pulses of the first plant. PNG bytes."""
    figure, (axes, trains) = subplots(7.2, 5.2, 2, 1, height_ratios=[3, 1])
    rows = result["plants"]
    for at, row in enumerate(rows):
        ends = [100.0 * (row[key] / row["untreated"] - 1.0) for key in ("regular", "best")]
        axes.plot([at, at], ends, color=NEUTRAL, linewidth=1.0, zorder=1)
    for key, colour, name in (
        ("regular", CONTINUOUS, "regular train"),
        ("best", POLICY, "pulses timed with foresight"),
    ):
        values = [100.0 * (row[key] / row["untreated"] - 1.0) for row in rows]
        own = result[key]
        axes.plot(values, "o", color=colour, label=f"{name}, {own['pulse_hz']:.1f} a second: {own['change']:.1f} %")
        axes.axhline(own["change"], color=colour, linestyle=":", linewidth=1.0)
    axes.set_xticks(range(len(rows)), [str(row["seed"]) for row in rows])
    axes.set_xlabel("held-out plant")
    axes.set_ylabel("P_beta, change in % of untreated")
    axes.set_title(f"At most {result['plan']['rate']:g} pulses a second")
    axes.margins(y=0.3)
    axes.legend(loc="upper center", ncols=2)
    first = np.array(rows[0]["onsets_ms"])
    trains.vlines(first[(first >= 1000.0) & (first < 2000.0)], 0.0, 1.0, color=PULSES)
    trains.set_yticks([])
    trains.set_xlabel(f"ms; the pulses of the second second on plant {rows[0]['seed']}")
    return png(figure)
