"""Pictures of an evaluation: who lowers beta at which charge, and how beta goes over the decisions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sea_dbs.report.style import CONTINUOUS, NEUTRAL, POLICY, PULSES, UNTREATED, drawing, png, subplots
from sea_dbs.statistics import iqm

COLOURS = {
    "never": UNTREATED,
    "always": CONTINUOUS,
    "periodic": "#5f9ed6",
    "random": NEUTRAL,
    "random-trains": "#9a8c7a",
    "replayed": "#8d95a3",
    "on-off": "#3f8f86",
    "dual-threshold": "#5aa69c",
    "proportional": "#8a9a3c",
    "pi": "#b0702a",
    "titration": "#1f6f54",
    "pattern": "#3d7ea6",
    "policy": POLICY,
    "policy, silenced": "#b79bd0",
}


def _title(row: dict[str, Any]) -> str:
    return f"{row['detail']}\n({row['label']})" if row["label"] else str(row["detail"])


@drawing
def comparison(result: dict[str, Any]) -> bytes:
    """P_beta of each controller with its interval, and beside it the charge that it took. PNG bytes."""
    rows = result["rows"][::-1]
    figure, (beta, charge) = subplots(8.2, 1.2 + 0.48 * len(rows), 1, 2, sharey=True, width_ratios=[1.5, 1.0])
    for y, row in enumerate(rows):
        colour = COLOURS.get(row["controller"], NEUTRAL)
        if row["P_beta_ci95"] is not None:
            beta.plot(row["P_beta_ci95"], [y, y], color=colour, linewidth=3, solid_capstyle="round", alpha=0.45)
        beta.plot(row["P_beta_iqm"], y, "o", color=colour)
        beta.annotate(
            f"{row['P_beta_iqm']:.0f}", (row["P_beta_iqm"], y), (0, 6), textcoords="offset points", ha="center"
        )
        charge.barh(y, row["charge_percent_of_130Hz"], color=PULSES, height=0.55)
        charge.annotate(
            f"{row['charge_percent_of_130Hz']:.0f} %", (row["charge_percent_of_130Hz"], y), (3, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    reference = next(row for row in rows if row["controller"] == "never")
    beta.axvline(reference["P_beta_iqm"], color=UNTREATED, linewidth=0.8, linestyle=":")
    beta.set_yticks(range(len(rows)), [_title(row) for row in rows])
    beta.set_ylim(-0.6, len(rows) - 0.3)
    beta.set_xlabel("P_beta (interquartile mean, 95 % interval)")
    beta.set_title(f"GPi beta, {reference['seeds']} held-out plants")
    charge.set_xlim(0, 1.25 * max(10.0, *(row["charge_percent_of_130Hz"] for row in rows)))
    charge.set_xlabel("charge, % of 130 Hz")
    charge.set_title("What it took")
    return png(figure)


@drawing
def series(result: dict[str, Any]) -> bytes:
    """P_beta and duty over the decisions, interquartile mean over plants. PNG bytes."""
    figure, (beta, duty) = subplots(7.2, 4.8, 2, 1, sharex=True, height_ratios=[2, 1])
    names = {row["detail"]: row["controller"] for row in result["rows"]}
    for detail, controller in names.items():
        episodes = [one for one in result["episodes"] if one["controller"] == detail and not one["diverged"]]
        colour = COLOURS.get(controller, NEUTRAL)
        style: dict[str, Any] = {"color": colour, "linewidth": 2.2 if controller == "policy" else 1.2}
        trace = np.array([one["P_beta"] for one in episodes])
        if not episodes:  # a row of another evaluation
            continue
        block = result.get("decisions_a_value", 1)
        beta.plot(block * np.arange(trace.shape[1]), [iqm(column) for column in trace.T], label=detail, **style)
        duties = np.array([one["duty"] for one in episodes])
        duty.plot(block * np.arange(1, duties.shape[1] + 1), duties.mean(axis=0), **style)
    beta.set_ylabel("P_beta of the observation")
    beta.set_title("Beta over the decisions")
    beta.legend(ncols=2, loc="upper right")
    low, high = beta.get_ylim()
    taken = 0.05 + 0.065 * math.ceil(len(names) / 2)  # share of the axis that the legend's rows take
    beta.set_ylim(low, high + taken / (1.0 - taken) * (high - low))
    duty.set_ylabel("slots stimulated")
    duty.set_ylim(-0.04, 1.04)
    duty.set_xlabel("decision")
    return png(figure)
