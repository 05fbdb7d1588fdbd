"""The timeline of a trial of the fault catalogue: what the electrode gave, what the board said, when the fault was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sea_dbs.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Lines = Sequence[Mapping[str, Any]]

#: What a state means to a reader: nothing can come, ready, at work, given up, latched.
STATES = {
    "BOOT": style.GRID,
    "IDLE": style.GRID,
    "ARMED": style.CONTINUOUS,
    "CLOSED_LOOP": style.HEALTHY,
    "FALLBACK": style.PULSES,
    "SAFE_OFF": style.WARNING,
}
BEFORE_S, AFTER_S = 0.8, 1.2  # of a trial, around the fault and around the board's reaction
RAMP_MA_S = 0.5  # mA/s: the fastest way up, drawn beside the pulses


def _unrolled(lines: Lines, fault_us: int) -> tuple[list[dict[str, Any]], float | None]:
    """Lines with `s`, seconds from the fault; the clock of a restarted board, 0 again, goes on where it stopped."""
    out: list[dict[str, Any]] = []
    offset, newest, restart = 0, 0, None
    for line in lines:
        t_us = int(line.get("t_us", line.get("at_us", newest - offset)))
        if t_us + offset < newest and line.get("cause") in ("POWER_ON", "RESET", "WATCHDOG"):
            offset = newest
            restart = (newest - fault_us) / 1e6
        newest = max(newest, t_us + offset)
        out.append({**line, "s": (t_us + offset - fault_us) / 1e6})
    return out, restart


def _window(lines: Lines, shown_s: float | None) -> tuple[float, float]:
    reaction = next((line["s"] for line in lines if "state" in line and line["s"] > 0), 0.0)
    first, last = (lines[0]["s"], lines[-1]["s"]) if lines else (0.0, 0.0)
    end = reaction + AFTER_S if shown_s is None else shown_s
    return max(first - 0.05, -BEFORE_S), max(min(last + 0.15, end), 0.3)


def _pulses(axis: Axes, lines: Lines) -> None:
    given = [(line["s"], abs(line["pulse"]["uA"][0]) / 1e3) for line in lines if "pulse" in line]
    if given:
        times, heights = zip(*given, strict=True)
        axis.vlines(times, 0, heights, color=style.INK, linewidth=1.0, label="pulse given")
        axis.plot(times, heights, ".", color=style.INK, markersize=4)
    axis.set_ylabel("amplitude (mA)")
    top = max((height for _, height in given), default=1.0)
    axis.set_ylim(0, 1.25 * top)


def _lease(axis: Axes, lines: Lines, end_s: float, fault_us: int) -> None:
    """How long the board may still go on without hearing from its host."""
    runs: list[tuple[float, float]] = []  # (since, until) in s
    for line in lines:
        if "lease_until_us" in line:
            until = line["lease_until_us"]
            runs.append((line["s"], line["s"] + (until - line["t_us"]) / 1e6 if until else line["s"]))
        elif line.get("state") in ("IDLE", "SAFE_OFF"):  # a restarted board knows of no lease
            runs.append((line["s"], line["s"]))
    for i, (since, until) in enumerate(runs):
        if since > end_s:
            break
        stop = runs[i + 1][0] if i + 1 < len(runs) else min(until, end_s)
        axis.plot([since, stop], [1e3 * (until - since), 1e3 * (until - stop)], color=style.POLICY)
        axis.fill_between([since, stop], [1e3 * (until - since), 1e3 * (until - stop)], color=style.POLICY, alpha=0.15)
    axis.set_ylabel("lease left (ms)")
    axis.set_ylim(bottom=0)


def _states(axis: Axes, lines: Lines, low: float, high: float, before: str) -> None:
    changes = [(line["s"], line["state"], line.get("cause", "")) for line in lines if "state" in line]
    changes = [change for change in changes if change[1] in STATES]
    edges = [(low, before, ""), *(c for c in changes if c[0] < high)]
    for i, (since, state, cause) in enumerate(edges):
        stop = edges[i + 1][0] if i + 1 < len(edges) else high
        since, stop = max(since, low), min(stop, high)
        if stop <= since or state not in STATES:
            continue
        axis.axvspan(since, stop, color=STATES[state], alpha=0.55, linewidth=0)
        wide = (stop - since) / (high - low)
        if wide > 0.12:
            words = state.replace("_", " ")
            said = cause.replace("_", " ").lower()
            axis.text((since + stop) / 2, 0.62, words, ha="center", va="center", fontweight="bold", fontsize=8)
            if said and wide > 0.16:
                axis.text((since + stop) / 2, 0.25, said, ha="center", va="center", fontsize=7)
    axis.set_yticks([])
    axis.set_ylabel("board")
    axis.grid(visible=False)


@style.drawing
def draw(
    lines: Lines,
    fault_us: int,
    *,
    title: str,
    verdict: str,
    marks: Sequence[tuple[int, str]] = (),
    before: str = "IDLE",
    shown_s: float | None = None,
) -> bytes:
    """PNG of one trial: pulses, lease and the board's state over the seconds around the fault.

    ``lines``: the electrode log; ``fault_us``: device time of the fault; ``marks``: other moments (device time, what);
    ``shown_s``: as long after the fault as is shown; None: until a little after the first reaction.
    """
    rows, restart = _unrolled(lines, fault_us)
    low, high = _window(rows, shown_s)
    figure, axes = style.subplots(7.2, 4.4, rows=3, sharex=True, gridspec_kw={"height_ratios": [3, 1.4, 0.8]})
    _pulses(axes[0], [row for row in rows if low <= row["s"] <= high])
    _lease(axes[1], rows, high, fault_us)
    _states(axes[2], rows, low, high, before)
    for axis in axes:
        axis.axvline(0, color=style.WARNING, linewidth=1.5)
        if restart is not None and low < restart < high:
            axis.axvline(restart, color=style.NEUTRAL, linestyle="--", linewidth=1)
        for at_us, _ in marks:
            axis.axvline((at_us - fault_us) / 1e6, color=style.NEUTRAL, linestyle=":", linewidth=1)
    top = axes[0].get_ylim()[1]
    axes[0].text(0, top, " fault", color=style.WARNING, va="top", ha="left", fontweight="bold", fontsize=8)
    for at_us, what in marks:
        if low < (at_us - fault_us) / 1e6 < high:
            axes[0].text((at_us - fault_us) / 1e6, 0.86 * top, f" {what}", color=style.NEUTRAL, va="top", fontsize=7)
    axes[0].set_title(f"{title}: {verdict}", color=style.INK if verdict == "pass" else style.WARNING)
    axes[2].set_xlabel("time from the fault (s, the board's own clock)")
    axes[2].set_xlim(low, high)
    return style.png(figure)
