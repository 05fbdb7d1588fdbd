"""Pictures of a benchmark: beta against charge and pulses, controllers side by side, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sea_dbs.benchmark.play import CONTINUOUS
from sea_dbs.benchmark.statistics import Curve, Estimate
from sea_dbs.benchmark.tables import Row
from sea_dbs.report.style import CONTINUOUS as BLUE
from sea_dbs.report.style import NEUTRAL, POLICY, UNTREATED, drawing, png, subplots

COLOURS = {
    "never": UNTREATED,
    "always": "#5f9ed6",
    CONTINUOUS: BLUE,
    "on-off": "#3f8f86",
    "dual-threshold": "#5aa69c",
    "proportional": "#8a9a3c",
    "pi": "#b0702a",
    "pi-tuned": "#d08a1d",
    "pi-amplitude": "#8c3b3b",
    "pi-amplitude-tuned": "#c96a6a",
    "titration": "#1f6f54",
    "pattern-45": "#3d7ea6",
    "pattern-26": "#7fb0cc",
    "sea-dbs": POLICY,
    "gs-only": "#a06bc9",
    "pm-only": "#c05a9b",
    "ddpg": "#6b7280",
    "ppo": "#2a8f6d",
    "dqn": "#7a5230",
    "qr-dqn": "#a8805a",
    "recurrent": "#4b2e83",
    "train-65-hz": "#94a3b8",
    "train-43-hz": "#b6c2cf",
    "train-groups-26-hz": "#5f9ea0",
    "train-group-16-hz": "#2f7a6b",
    "random-trains": "#9a8c7a",
    "trains": "#c2410c",
    "trains-st": "#e39b7b",
    "trains-slots": "#8b95a1",
    "trains-memory": "#7a1f3d",
    "trains-flat": "#c98aa0",
    "released": "#d08a1d",
}


@drawing
def pareto(rows: Sequence[Row], task: str) -> bytes:
    """Beta left against charge, and against pulses a second; lower left is better. PNG bytes."""
    own = [row for row in rows if row.task == task]
    figure, axes = subplots(10.4, 4.6, 1, 2, sharey=True)
    for axis, measure, words in (
        (axes[0], "charge_percent", "charge, % of continuous 130 Hz"),
        (axes[1], "pulse_hz", "pulses a second"),
    ):
        for row in own:
            x, y = row.estimate(measure), row.estimate("P_beta")
            assert x is not None
            assert y is not None
            colour = COLOURS.get(row.controller, NEUTRAL)
            _cross(axis, x, y, colour)
            hollow = row.word != "closed-loop" and bool(row.losses)
            shape = "o" if row.losses else "s"
            face = "white" if hollow else colour
            axis.plot(
                x.value, y.value, shape, color=colour, markerfacecolor=face, markersize=7, markeredgewidth=1.8,
                label=f"{row.controller} ({row.word})" if axis is axes[1] else None,
            )  # fmt: skip
        axis.set_xlabel(words)
        axis.set_xlim(left=-0.03 * axis.get_xlim()[1])
    axes[0].set_ylabel("beta, % of untreated")
    axes[0].set_title(f"Task {task}: beta left, by charge")
    axes[1].set_title("by pulses")
    figure.legend(loc="outside right center", title="circle: learned; hollow: not closed-loop", title_fontsize=7)
    return png(figure)


def _cross(axis: Any, x: Estimate, y: Estimate, colour: str) -> None:
    if x.low is not None and x.high is not None:
        axis.plot([x.low, x.high], [y.value, y.value], color=colour, alpha=0.4, linewidth=2)
    if y.low is not None:
        axis.plot([x.value, x.value], [y.low, y.high], color=colour, alpha=0.4, linewidth=2)


@drawing
def comparison(rows: Sequence[Row], task: str) -> bytes:
    """Every controller's beta, pulses and reward with intervals. PNG bytes."""
    own = [row for row in rows if row.task == task][::-1]
    figure, axes = subplots(9.4, 1.0 + 0.36 * len(own), 1, 3, sharey=True)
    for axis, measure, words in zip(
        axes,
        ("P_beta", "pulse_hz", "reward"),
        ("beta, % of untreated", "pulses a second", "reward a decision"),
        strict=True,
    ):
        for y, row in enumerate(own):
            estimate = row.estimate(measure)
            assert estimate is not None
            colour = COLOURS.get(row.controller, NEUTRAL)
            if estimate.low is not None and estimate.high is not None:
                axis.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=3, alpha=0.45)
            axis.plot(estimate.value, y, "o", color=colour)
        axis.set_xlabel(words)
    axes[0].set_yticks(range(len(own)), [f"{row.controller} ({row.word})" for row in own])
    axes[0].set_title(f"Task {task}: interquartile mean over {max(len(row.seeds) for row in own)} seeds, 95 % interval")
    return png(figure)


@drawing
def learning(curves: Mapping[str, Mapping[str, Curve]], task: str) -> bytes:
    """P_beta and reward over environment steps: measure -> learner -> curve. PNG bytes."""
    figure, axes = subplots(9.4, 3.8, 1, len(curves))
    for axis, (words, learners) in zip(axes, curves.items(), strict=True):
        for name, one in learners.items():
            colour = COLOURS.get(name, NEUTRAL)
            dashes = "--" if name == "gs-only" else "-"  # it often lies on the curve of SEA-DBS
            axis.plot(one.steps, one.value, dashes, color=colour, label=name)
            axis.fill_between(one.steps, one.low, one.high, color=colour, alpha=0.15, linewidth=0)
        axis.set_xlabel("environment steps")
        axis.set_ylabel(words)
    axes[0].set_title(f"Task {task}: learning (interquartile mean over seeds, 95 % band)")
    axes[-1].legend(loc="best")
    return png(figure)


@drawing
def course(curves: Mapping[str, Mapping[str, Curve]], task: str) -> bytes:
    """What each controller does as its plants drift: measure -> controller -> curve over seconds. PNG bytes."""
    figure, axes = subplots(10.4, 4.2, 1, len(curves))
    for axis, (words, controllers) in zip(axes, curves.items(), strict=True):
        for k, (name, one) in enumerate(controllers.items()):
            colour, dashes = COLOURS.get(name, NEUTRAL), ("-", "--", ":")[k % 3]
            axis.plot(one.steps, one.value, dashes, color=colour, label=name if axis is axes[0] else None)
            axis.fill_between(one.steps, one.low, one.high, color=colour, alpha=0.15, linewidth=0)
        axis.set_xlabel("time, s")
        axis.set_ylabel(words)
        axis.set_ylim(bottom=0.0)
    axes[0].set_title(f"Task {task}: second by second (interquartile mean over seeds, 95 % band)")
    figure.legend(loc="outside right center")
    return png(figure)
