"""The benchmark as a figure."""

from __future__ import annotations

from typing import Any

from sea_dbs.report import style

COLOURS = {"float64": style.CONTINUOUS, "float32": style.POLICY}


@style.drawing
def draw(r: dict[str, Any]) -> bytes:
    """Speed against batch size and step, share of the parts, cost of a `paper` step; PNG."""
    figure, (sizes, steps, parts, step) = style.subplots(9.0, 6.4, 2, 2)
    for precision, colour in COLOURS.items():
        for threads, line in ((1, "o-"), (2, "s:")):
            rows = [x for x in r["batch"] if x["precision"] == precision and x["threads"] == threads]
            label = f"{precision}, {threads} thread{'s' * (threads > 1)}"
            sizes.plot([x["B"] for x in rows], [x["speed"] for x in rows], line, color=colour, ms=4, label=label)
        sizes.plot([32], [r["floors"][precision]], "_", color=colour, ms=14, mew=2)
        rows = [x for x in r["dt"] if x["precision"] == precision]
        steps.plot([x["dt_ms"] for x in rows], [x["speed"] for x in rows], "o-", color=colour, ms=4, label=precision)
    sizes.axhline(r["reference"], color=style.NEUTRAL, lw=1, label="scalar reference")
    sizes.set(xscale="log", yscale="log", xlabel="networks in the batch", ylabel="simulated s per CPU s and core")
    sizes.set_xticks([1, 2, 4, 8, 16, 32, 64, 128], ["1", "2", "4", "8", "16", "32", "64", "128"])
    sizes.set_yticks([3, 10, 30, 100], ["3", "10", "30", "100"])
    sizes.minorticks_off()
    sizes.set_title("Speed by batch size (bars: floor at 32)")
    sizes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.08))
    steps.set(xlabel="dt (ms)", ylabel="simulated s per CPU s", ylim=(0, None), xlim=(0, 0.021))
    steps.set_title("Speed by step, 32 networks")
    steps.legend()
    _parts(parts, r["parts_ns"])
    _step(step, r)
    return style.png(figure)


def _parts(axis: Any, costs: dict[str, dict[str, float]]) -> None:
    names = [n for n in costs["float32"] if n not in ("whole", "synaptic filters")]
    for offset, (precision, colour) in zip((-0.2, 0.2), COLOURS.items(), strict=True):
        c = costs[precision]
        values = [c[n] for n in names]
        values += [max(0.0, c["whole"] - sum(values)), c["synaptic filters"]]
        shares = [100.0 * v / c["whole"] for v in values]
        axis.barh([i + offset for i in range(len(shares))], shares, 0.38, color=colour, label=precision)
    axis.set_yticks(range(len(names) + 2), [*names, "events, spikes, rest", "(filters, within nuclei)"])
    axis.invert_yaxis()
    axis.set(xlabel="share of an update (%)")
    axis.set_title("Where the kernel's time goes")
    axis.legend(loc="lower right")


def _step(axis: Any, r: dict[str, Any]) -> None:
    plant = 1000.0 / next(x["speed"] for x in r["batch"] if x["B"] == 32 and x["precision"] == "float32")
    beta, whole = r["biomarker_ms"]["fixed"], r["paper_step_ms"]
    shown = {"whole step": whole, "network": plant, "1,000 betas, window's grid": beta}
    shown["1,000 betas, released grid"] = r["biomarker_ms"]["released"]
    colours = [style.INK, style.POLICY, style.PULSES, style.NEUTRAL]
    axis.barh(list(shown), list(shown.values()), 0.6, color=colours)
    for i, value in enumerate(shown.values()):
        axis.text(value, i, f" {value:.1f}", va="center", fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="CPU ms a network", xlim=(0, 1.2 * max(shown.values())))
    axis.set_title("A `paper` step (1 s) in a batch of 32")
