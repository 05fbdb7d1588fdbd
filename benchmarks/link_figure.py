"""The link's benchmark as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from sea_dbs.report import style

COLOURS = (style.POLICY, style.CONTINUOUS, style.PULSES, style.UNTREATED)


@style.drawing
def draw(result: dict[str, Any]) -> bytes:
    """Left: share of round trips that took longer than a time, board and echo. Right: frames a second; PNG."""
    figure, (trips, flow) = style.subplots(9.0, 4.2, 1, 2)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 3}
    share = 100.0 - np.linspace(0, 100, 201)
    goals, boards = result["goals"], result["boards"]
    for r, colour in zip(boards, COLOURS, strict=False):
        trips.plot(r["curves"]["board"], share, color=colour, lw=1.4, label=r["kind"])
        trips.plot(r["curves"]["echo"], share, color=colour, lw=0.9, ls=":")
    trips.plot([], [], color=style.NEUTRAL, lw=0.9, ls=":", label="echo beside it")
    trips.plot([goals["p99_ms"]], [1.0], "v", color=style.INK, ms=6, label="goal: p99, host, idle")
    trips.set(xscale="log", yscale="log", ylim=(0.4, 110), xlabel="round trip (ms)", ylabel="slower than that (%)")
    trips.set_yticks([1, 10, 100], ["1", "10", "100"])
    trips.set_title("Round trip of a frame of 66 bytes")
    trips.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
    trips.legend(**below)
    names = [r["kind"] for r in boards]
    at = np.arange(len(names))
    flow.barh(at - 0.2, [r["flow"]["frames_per_s"] for r in boards], 0.38, color=COLOURS[: len(names)])
    bare = [r["reference"]["flow"]["frames_per_s"] for r in boards]
    flow.barh(at + 0.2, bare, 0.38, color=style.GRID, label="echo beside it")
    flow.axvline(goals["frames_per_s"], color=style.INK, lw=1.0, ls="--", label="goal, host")
    flow.set_yticks(at, names)
    flow.invert_yaxis()
    flow.set(xscale="log", xlabel="frames a second, each answered")
    flow.set_title(f"Sustained, {result['window']} frames under way")
    flow.set_xticks([100, 1000, 10_000, 100_000], ["100", "1,000", "10,000", "100,000"])
    flow.legend(**below)
    return style.png(figure)
