"""The release check in one picture: beta with the policy against untreated, and how often stimulation was switched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sea_dbs.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOK = {  # condition -> marker, colour
    "nominal": ("o", style.POLICY),
    "artefact": ("^", style.PULSES),
    "drift": ("s", style.CONTINUOUS),
    "delay": ("D", style.HEALTHY),
}


@style.drawing
def draw(report: dict[str, Any]) -> bytes:
    """PNG of a release.json.

    Raises:
        UserError: the extra 'report' is not installed.
    """
    figure, (left, right) = style.subplots(9.0, 4.2, 1, 2)
    _beta(left, report)
    _toggles(right, report)
    verdict = report["verdict"]
    said = "RELEASED" if verdict["released"] else "NOT RELEASED"
    cohort, seconds = verdict["cohort"]["patients"], verdict["seconds"]
    figure.suptitle(
        f"{said}: model {verdict['model_hash'][:12]}, {cohort} held-out patients, {seconds:g} s each "
        f"({verdict['kind']})",
        color=style.INK if verdict["released"] else style.WARNING,
        fontsize=11,
    )
    return style.png(figure)


def _beta(axis: Axes, report: dict[str, Any]) -> None:
    untreated = {(row["index"], row["condition"]): row["P_beta"] for row in report["untreated"]}
    every: list[float] = []
    for condition, (marker, colour) in _LOOK.items():
        versus = "untreated-drift" if condition == "drift" else "untreated"
        runs = [run for run in report["treated"] if run["condition"] == condition and run["P_beta"] is not None]
        x = [untreated[run["index"], versus] for run in runs]
        y = [run["P_beta"] for run in runs]
        axis.plot(x, y, marker, color=colour, ms=4.5, alpha=0.75, mew=0, label=condition)
        every += [*x, *y]
    if every:
        low, high = 0.95 * min(every), 1.05 * max(every)
        axis.plot([low, high], [low, high], color=style.UNTREATED, lw=1.0, label="as untreated")
        axis.fill_between([low, high], [low, high], [high, high], color=style.UNTREATED, alpha=0.08, lw=0)
        axis.set(xlim=(low, high), ylim=(low, high))
    axis.set_xlabel("P_beta untreated, same patient (spikes²/s²)")
    axis.set_ylabel("P_beta with the policy (spikes²/s²)")
    axis.set_title("Beta: above the line is worse")
    axis.legend(loc="upper left")


def _toggles(axis: Axes, report: dict[str, Any]) -> None:
    rate = report["verdict"]["toggles_a_minute"]
    generator = np.random.default_rng(0)
    for place, (condition, (marker, colour)) in enumerate(_LOOK.items()):
        runs = [run for run in report["treated"] if run["condition"] == condition]
        y = [run["toggles"] * 60.0 / run["seconds"] for run in runs]
        x = place + generator.uniform(-0.25, 0.25, len(runs))
        axis.plot(x, y, marker, color=colour, ms=4.5, alpha=0.75, mew=0)
    axis.axhline(rate, color=style.UNTREATED, lw=1.0, label=f"most allowed: {rate:g}")
    axis.set_xticks(range(len(_LOOK)), list(_LOOK))
    axis.set_ylim(bottom=0.0)
    axis.set_ylabel("toggles a minute")
    axis.set_title("Off and on again, at the electrode")
    axis.legend(loc="upper right")
