"""The paper's figures from our runs, the published values beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sea_dbs.benchmark.figures import COLOURS
from sea_dbs.benchmark.store import Store
from sea_dbs.report.style import INK, NEUTRAL, UNTREATED, drawing, png, subplots
from sea_dbs.reproduce import published as paper
from sea_dbs.reproduce.found import inference, measure, training
from sea_dbs.reproduce.plan import Part

SHOWN = {**paper.NAMES, "never": "untreated", "always": "every slot", "released": "released code"}


def draw(store: Store, figure: str, parts: Sequence[Part]) -> bytes:
    """A figure as PNG bytes."""
    match figure:
        case "fig4":
            return _training(store, parts)
        case "fig5":
            return _inference(store, parts)
        case "fig6":
            return _precision(store, parts)
        case "fig7":
            return _ablation(store, parts)
        case _:
            return _changes(store, parts)


@drawing
def _training(store: Store, parts: Sequence[Part]) -> bytes:
    figure, (beta, reward) = subplots(9.4, 4.4, 1, 2)
    for part in parts:
        for axis, name, scale in ((beta, "P_beta", 1000.0), (reward, "reward", 1.0)):
            found = training(store, part, name)
            _band(axis, found.steps, found.value / scale, found.low / scale, found.high / scale, part.variant)
    for name, values in paper.FIG4_BETA.items():
        _published(beta, paper.FIG4_EPISODES, values, name)
    for name, (begin, end) in paper.FIG4_REWARD.items():
        reward.plot([0, 0], begin, color=COLOURS[name], linewidth=1.2)
        _published(reward, (0, 150), (float(np.mean(begin)), end), name)
    beta.set_ylabel("mean observation in training (P_beta/1000)")
    reward.set_ylabel("reward a decision in training")
    beta.set_title(f"Fig. 4: training, {_seeds(parts)} seeds")
    for axis in (beta, reward):
        axis.set_xlabel("episode")
    figure.legend(*beta.get_legend_handles_labels(), loc="outside lower center", ncols=5)  # it would hide values
    return png(figure)


@drawing
def _inference(store: Store, parts: Sequence[Part]) -> bytes:
    figure, axes = subplots(9.4, 4.0, 1, 2, sharey=True)
    for axis, task, words in ((axes[0], "paper", "50 Hz slots"), (axes[1], "paper-30", "30 Hz slots")):
        own = [part for part in parts if part.task == task]
        for part in own:
            found = inference(store, part)
            _band(axis, found.steps, found.value, found.low, found.high, part.variant)
        axis.set_xlabel("decision of 1 s")
        axis.set_xlim(-0.5, 10.5)
        axis.set_title(f"Fig. 5: inference, {words}" + ("" if own else " (published alone: not run)"))
    for name, values in paper.FIG5_50HZ.items():
        _published(axes[0], paper.FIG5_STEPS, values, name)
    for name, ends in paper.FIG5_30HZ_END.items():
        axes[1].plot([10, 10], ends, color=COLOURS[name], linewidth=1.2)
        _published(axes[1], (10,), (float(np.mean(ends)),), name)
    axes[0].set_ylabel("P_beta")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return png(figure)


@drawing
def _precision(store: Store, parts: Sequence[Part]) -> bytes:
    figure, (axis,) = subplots(6.4, 3.8)
    for i, variant in enumerate(paper.FIG6):
        for j, precision in enumerate(("fp32", "fp16")):
            x = 2.5 * i + j
            for part in parts:
                if part.variant == variant and part.precision == precision:
                    one = inference(store, part)
                    k = min(10, len(one.value) - 1)
                    axis.bar(x, one.value[k], width=0.7, color=COLOURS[variant], alpha=0.9 if j == 0 else 0.55)
                    axis.plot([x, x], [one.low[k], one.high[k]], color=INK, linewidth=1.4)
            axis.plot(x, paper.FIG6[variant][j], "D", color="white", markeredgecolor=INK, markersize=7)
    axis.set_xticks([0, 1, 2.5, 3.5], [f"{paper.NAMES[v]}\n{p}" for v in paper.FIG6 for p in ("FP32", "FP16")])
    axis.set_ylabel("P_beta at decision 10")
    axis.set_title(f"Fig. 6: FP16 weights, {_seeds(parts)} seeds (diamonds: published)")
    return png(figure)


@drawing
def _ablation(store: Store, parts: Sequence[Part]) -> bytes:
    figure, (axis,) = subplots(6.8, 4.2)
    for part in parts:
        found = inference(store, part)
        _band(axis, found.steps, found.value, found.low, found.high, part.variant)
    axis.set_xlabel("decision of 1 s")
    axis.set_ylabel("P_beta")
    axis.set_title(f"Fig. 7: ablation, {_seeds(parts)} seeds (published: GS only worst, SEA-DBS far below all)")
    axis.legend()
    return png(figure)


@drawing
def _changes(store: Store, parts: Sequence[Part]) -> bytes:
    figure, axes = subplots(9.4, 3.8, 1, 2)
    for axis, name, words in (
        (axes[0], "P_beta_all", "P_beta, all decisions"),
        (axes[1], "reward", "reward a decision"),
    ):
        for variant in dict.fromkeys(part.variant for part in parts):
            own = [part for part in parts if part.variant == variant]
            found = [measure(store, part, name) for part in own]
            x = [part.steps for part in own]
            low = [one.value if one.low is None else one.low for one in found]
            high = [one.value if one.high is None else one.high for one in found]
            _band(axis, x, [one.value for one in found], low, high, variant)
        axis.set_xlabel("decisions until the plant's seed changes")
        axis.set_ylabel(words)
    axes[0].set_title(f"Table II: another plant every n decisions, {_seeds(parts)} seeds")
    axes[1].legend()
    return png(figure)


def _band(axis: Any, x: Any, value: Any, low: Any, high: Any, variant: str) -> None:
    colour = UNTREATED if variant == "never" else COLOURS.get(variant, NEUTRAL)
    axis.plot(x, value, color=colour, label=SHOWN.get(variant, variant))
    axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _published(axis: Any, x: Sequence[float], y: Sequence[float], name: str) -> None:
    label = f"{paper.NAMES[name]}, published"
    axis.plot(x, y, "D:", color=COLOURS[name], markerfacecolor="white", markersize=6, linewidth=1, label=label)


def _seeds(parts: Sequence[Part]) -> int:
    return max(len(part.jobs) for part in parts)
