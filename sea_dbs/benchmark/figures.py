"""Pictures of a benchmark: beta against charge and pulses, controllers side by side, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sea_dbs.benchmark.play import CONTINUOUS
from sea_dbs.benchmark.statistics import Curve, Estimate
from sea_dbs.benchmark.tables import Row
from sea_dbs.report.style import CONTINUOUS as BLUE
from sea_dbs.report.style import INK, NEUTRAL, POLICY, UNTREATED, drawing, png, subplots

COLOURS = {
    "never": UNTREATED,
    "always": "#5f9ed6",
    CONTINUOUS: BLUE,
    "on-off": "#3f8f86",
    "dual-threshold": "#5aa69c",
    "proportional": "#8a9a3c",
    "pi": "#b0702a",
    "pi-tuned": "#d08a1d",
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
}


@drawing
def pareto(rows: Sequence[Row], task: str) -> bytes:
    """Beta left against charge, and against pulses a second; lower left is better. PNG bytes."""
    own = [row for row in rows if row.task == task]
    figure, axes = subplots(9.4, 4.6, 1, 2, sharey=True)
    for axis, measure, words in (
        (axes[0], "charge_percent", "charge, % of continuous 130 Hz"),
        (axes[1], "pulse_hz", "pulses a second"),
    ):
        points = []
        for row in own:
            x, y = row.estimate(measure), row.estimate("P_beta")
            assert x is not None
            assert y is not None
            colour = COLOURS.get(row.controller, NEUTRAL)
            _cross(axis, x, y, colour)
            hollow = bool(row.losses) and any(row.labels)
            axis.plot(x.value, y.value, "o", color=colour, markerfacecolor="white" if hollow else colour, markersize=7)
            points.append((x.value, y.value, row.controller))
        _names(axis, points)
        axis.set_xlabel(words)
        axis.set_xlim(left=-0.03 * axis.get_xlim()[1])
    axes[0].set_ylabel("beta, % of untreated")
    axes[0].set_title(f"Task {task}: what is left of beta, at which charge")
    axes[1].set_title("and at how many pulses (hollow: not closed-loop)")
    return png(figure)


def _cross(axis: Any, x: Estimate, y: Estimate, colour: str) -> None:
    if x.low is not None and x.high is not None:
        axis.plot([x.low, x.high], [y.value, y.value], color=colour, alpha=0.4, linewidth=2)
    if y.low is not None:
        axis.plot([x.value, x.value], [y.low, y.high], color=colour, alpha=0.4, linewidth=2)


def _names(axis: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """Names beside their points; where points coincide, one line for all of them."""
    groups: list[tuple[float, float, list[str]]] = []
    spans = [np.ptp([p[i] for p in points]) or 1.0 for i in (0, 1)]
    for x, y, name in sorted(points):
        for other in groups:
            if abs(other[0] - x) < 0.02 * spans[0] and abs(other[1] - y) < 0.025 * spans[1]:
                other[2].append(name)
                break
        else:
            groups.append((x, y, [name]))
    middle = np.mean([p[0] for p in points])
    for x, y, names in groups:
        right = x > middle
        text = "\n".join(", ".join(names[i : i + 3]) for i in range(0, len(names), 3))
        axis.annotate(
            text, (x, y), (-7 if right else 7, 3), textcoords="offset points", ha="right" if right else "left",
            fontsize=7, color=INK,
        )  # fmt: skip


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
            axis.plot(one.steps, one.value, color=colour, label=name)
            axis.fill_between(one.steps, one.low, one.high, color=colour, alpha=0.15, linewidth=0)
        axis.set_xlabel("environment steps")
        axis.set_ylabel(words)
    axes[0].set_title(f"Task {task}: learning (interquartile mean over seeds, 95 % band)")
    axes[-1].legend(loc="best")
    return png(figure)
