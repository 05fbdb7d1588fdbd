"""The picture of a comparison on boards: equal bits, and what a decision costs."""

from __future__ import annotations

from typing import Any

from sea_dbs.report import style
from sea_dbs.report.parity_figure import COLOURS, LABELS


@style.drawing
def draw(result: dict[str, Any]) -> bytes:
    """PNG of a `firmware_bridge.parity` result: share of observations with equal logits, instructions, memory."""
    figure, axes = style.subplots(11.0, 3.9, 1, 3, width_ratios=(1.25, 1.0, 1.0))
    rows = result["rows"]
    names = [f"{LABELS[row['format']]}  {row['target']}" for row in rows]
    share = [100.0 * (row["equal_real"] + row["equal_adversarial"]) / row["observations"] for row in rows]
    colours = [COLOURS[row["format"]] if row["bit_equal"] else style.WARNING for row in rows]
    axes[0].barh(names, share, color=colours)
    for i, row in enumerate(rows):
        equal = row["equal_real"] + row["equal_adversarial"]
        axes[0].text(2, i, f"{equal:,} of {row['observations']:,}", va="center", color="white", fontsize=8)
    axes[0].set_xlim(0, 100)
    axes[0].set_xlabel("observations with equal logits, bit by bit (%)")
    axes[0].set_title("Same bits")
    cost = result["cost"]
    labels = [f"{LABELS[row['format']]}  {row['board']}" for row in cost]
    tints = [COLOURS[row["format"]] for row in cost]
    axes[1].barh(labels, [(row["instructions"] or 0.0) / 1e3 for row in cost], color=tints)
    axes[1].set_xlabel("instructions a decision (thousands)")
    axes[1].set_title("Work")
    axes[2].barh(labels, [row["policy_flash_bytes"] / 1e3 for row in cost], color=tints, label="flash")
    axes[2].barh(labels, [row["policy_ram_bytes"] / 1e3 for row in cost], color=style.INK, height=0.35, label="RAM")
    axes[2].set_xlabel("flash, and dark: RAM (kB)")
    axes[2].set_title("Memory of the policy")
    for axis in axes:
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
    axes[2].set_yticklabels([])
    return style.png(figure)
