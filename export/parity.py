"""Does the exported file decide as the trained network does, and what does it cost? Measured, never assumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export.cost import BUDGET_S, CALLS, MEMORY, MIN_CALLS, WARM_UP
from export.runner import Runner
from sea_dbs.manifest import machine

Float = NDArray[np.float32]
FP16_NOTE = "ONNX Runtime computes FP16 graphs in FP32 on most CPUs: host latencies say nothing about a board"
LATENCY = "one call of the network, batch 1, one thread; the files in a process of their own"


@dataclass(frozen=True)
class Row:
    """One line of the table. Logit differences and margins have the logits' own (dimensionless) unit.

    ``agreement`` is the share of slots decided alike; ``smallest_margin`` the reference's smallest distance between
    its two logits; ``largest_changed_margin`` the largest such margin at which a decision changed (None: none did).
    A row of weights that were never trained compares size and latency, not decisions. ``ratio_to_numpy`` is the median
    latency over that of a NumPy product of a vector and a matrix with as many multiplications; kB are 1,024 bytes.
    """

    policy: str
    precision: str
    weights: str
    parameters: int
    file_bytes: int
    weight_bytes: int
    observations: int
    decisions: int
    changed: int
    agreement: float
    max_logit_difference: float
    smallest_margin: float
    largest_changed_margin: float | None
    calls: int
    latency_p50_us: float
    latency_p99_us: float
    weight_ratio: float = 1.0  # of weight_bytes to FP32
    numpy_matmul: str | None = None
    numpy_matmul_p50_us: float | None = None
    ratio_to_numpy: float | None = None
    peak_memory_kB: int | None = None


def margins(logits: Float) -> NDArray[np.float64]:
    """(n, slots, 2) -> (n, slots): logit for a pulse less logit against it, in float64."""
    wide = logits.astype(np.float64)
    result: NDArray[np.float64] = wide[..., 1] - wide[..., 0]
    return result


def compare(reference: Float, candidate: Float) -> dict[str, Any]:
    """The decision part of a `Row`, from two arrays of logits (n, slots, 2) over the same observations.

    Raises:
        UserError: shapes differ, or a logit is not finite (then no agreement can be claimed).
    """
    if reference.shape != candidate.shape or reference.ndim != 3 or reference.shape[2] != 2 or not reference.size:
        raise UserError(f"parity needs equal logits (n, slots, 2), got {reference.shape} and {candidate.shape}")
    if not (np.isfinite(reference).all() and np.isfinite(candidate).all()):
        raise UserError("parity found a logit that is not finite: the policy is not fit for use in this precision")
    ours, theirs = margins(reference), margins(candidate)
    changed = (ours > 0) != (theirs > 0)
    return {
        "observations": int(reference.shape[0]),
        "decisions": int(changed.size),
        "changed": int(changed.sum()),
        "agreement": float(1.0 - changed.mean()),
        "max_logit_difference": float(np.abs(reference.astype(np.float64) - candidate).max()),
        "smallest_margin": float(np.abs(ours).min()),
        "largest_changed_margin": float(np.abs(ours[changed]).max()) if changed.any() else None,
    }


def time_calls(runner: Runner, observations: Float) -> Float:
    """Latency of single decisions in µs (calls,), batch 1, over the observations in turn, after a warm-up.

    2,000 calls, or as many as fit into a second, but at least 200.
    """
    single = [observations[i : i + 1] for i in range(observations.shape[0])]
    runner.init_state(1)
    for i in range(WARM_UP):
        runner.logits(single[i % len(single)])
    took: list[float] = []
    begin = perf_counter_ns()
    while len(took) < CALLS and (len(took) < MIN_CALLS or perf_counter_ns() - begin < BUDGET_S * 1e9):
        one = single[len(took) % len(single)]
        start = perf_counter_ns()
        runner.logits(one)
        took.append((perf_counter_ns() - start) / 1000.0)
    return np.array(took, np.float32)


def percentiles(latency_us: Float) -> dict[str, Any]:
    """The latency columns of a `Row`."""
    p50, p99 = np.percentile(latency_us, (50, 99))
    return {"calls": len(latency_us), "latency_p50_us": float(p50), "latency_p99_us": float(p99)}


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("policy", lambda r: r.policy),
    ("precision", lambda r: r.precision),
    ("weights", lambda r: r.weights),
    ("parameters", lambda r: f"{r.parameters:,}"),
    ("file", lambda r: size_text(r.file_bytes)),
    ("weights / FP32", lambda r: f"{r.weight_ratio:.3f}"),
    ("decisions alike", lambda r: f"{r.decisions - r.changed:,} of {r.decisions:,}"),
    ("largest logit difference", lambda r: f"{r.max_logit_difference:.2g}"),
    ("smallest margin", lambda r: f"{r.smallest_margin:.2g}"),
    (
        "changed at margins up to",
        lambda r: "none changed" if r.largest_changed_margin is None else f"{r.largest_changed_margin:.2g}",
    ),
    ("latency p50 / p99 (µs)", lambda r: f"{r.latency_p50_us:.0f} / {r.latency_p99_us:.0f}"),
    ("p50 / NumPy", lambda r: "" if r.ratio_to_numpy is None else f"{r.ratio_to_numpy:.1f}"),
    ("peak memory", lambda r: "" if r.peak_memory_kB is None else size_text(1024 * r.peak_memory_kB)),
)


def size_text(count: int) -> str:
    """Bytes for people: kB (1,000) below a MiB, then MiB (1,048,576), as the paper counts."""
    return f"{count / 1000:.1f} kB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def markdown(rows: list[Row], closed_loop: Mapping[str, Any] | None = None) -> str:
    """The tables as GitHub markdown."""
    lines = ["| " + " | ".join(name for name, _ in COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(text(row) for _, text in COLUMNS) + " |" for row in rows]
    products = {row.policy: f"{row.policy}: {row.numpy_matmul}" for row in rows if row.numpy_matmul}
    if products:
        beside = "; ".join(products.values())
        lines += ["", f"Latency: {LATENCY}. NumPy, timed beside: {beside}. Memory: {MEMORY}. {FP16_NOTE}."]
    return "\n".join(lines) + "\n" + ("" if closed_loop is None else "\n" + closed_loop_markdown(closed_loop))


def closed_loop_markdown(outcome: Mapping[str, Any]) -> str:
    """The table of closed-loop outcomes."""
    lines = [
        f"Closed loop on {len(outcome['seeds'])} held-out plants, {outcome['seconds']:g} s each "
        f"(P_beta after {outcome['settled_after']} decisions); the policy: {outcome['what']}.",
        "",
        "| precision | P_beta (spikes²/s²) | duty | charge (nC/cm²) | P_beta against "
        f"{outcome['reference']} (%) | 95 % interval | plants that differ |",
        "|" + "---|" * 7,
    ]
    for name, row in outcome["rows"].items():
        gap, bounds = row["difference"], row["difference"]["P_beta_percent_ci95"]
        between = "" if bounds is None else f"{bounds[0]:+.2f} to {bounds[1]:+.2f}"
        lines.append(
            f"| {name} | {row['P_beta']:.1f} | {row['duty']:.3f} | {row['charge_nC_cm2']:.0f} | "
            f"{gap['P_beta_percent']:+.2f} | {between} | {row['plants_that_differ']} of {len(outcome['seeds'])} |"
        )
    return "\n".join(lines) + "\n"


def as_json(
    rows: list[Row], observations: dict[str, Any], closed_loop: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of parity.json."""
    return {
        "observations": observations,
        "machine": machine(),
        "latency": {"what": LATENCY, "unit": "µs", "raw": "latency.npz"},
        "memory": {"what": MEMORY, "unit": "kB (1,024 bytes)"},
        "note": FP16_NOTE,
        "rows": [asdict(row) for row in rows],
        "closed_loop": closed_loop,
    }


def sentence(row: Row, reference: str = "torch") -> str:
    """A row in words."""
    if row.largest_changed_margin is None:
        changed = f"all {row.decisions:,} decisions as in {reference}"
    else:
        changed = (
            f"{row.changed:,} of {row.decisions:,} decisions differ from {reference}, at margins up to "
            f"{row.largest_changed_margin:.2g}"
        )
    return f"{changed}, logits within {row.max_logit_difference:.1g}, {row.latency_p50_us:.0f} µs a decision (p50)"


def outcome_sentence(outcome: Mapping[str, Any] | None) -> list[str]:
    """The closed loop in words, a line for each precision but the reference."""
    if outcome is None:
        return []
    lines = []
    for name, row in outcome["rows"].items():
        bounds = row["difference"]["P_beta_percent_ci95"]
        if name != outcome["reference"]:
            between = "" if bounds is None else f" (95 % interval {bounds[0]:+.2f} to {bounds[1]:+.2f})"
            lines.append(
                f"closed loop, {name} against {outcome['reference']} on {len(outcome['seeds'])} held-out plants: "
                f"P_beta {row['difference']['P_beta_percent']:+.2f} %{between}, duty {row['difference']['duty']:+.4f}"
            )
    if lines and outcome["what"] != "reacts":
        lines.append(f"this policy is {outcome['what']}: equal outcomes of its precisions show little")
    return lines
