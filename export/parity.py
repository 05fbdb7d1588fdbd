"""Does the exported file decide as the trained network does, and what does it cost? Measured, never assumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from sea_dbs.manifest import machine

Float = NDArray[np.float32]
LogitsOf = Callable[[Float], Float]  # (n, n_obs) -> (n, slots, 2)
FP16_NOTE = "ONNX Runtime computes FP16 graphs in FP32 on most CPUs: host latencies say nothing about a board"
WARM_UP = 50  # calls before the clock counts
LATENCY = "one call of the network, batch 1, one thread"
CALLS = 2000  # timed calls: the 99th percentile then rests on 20
MIN_CALLS = 200  # of a network so slow that CALLS would last longer than
BUDGET_S = 1.0  # s


@dataclass(frozen=True)
class Row:
    """One line of the table. Logit differences and margins have the logits' own (dimensionless) unit.

    ``agreement`` is the share of slots decided alike; ``smallest_margin`` the reference's smallest distance between
    its two logits; ``largest_changed_margin`` the largest such margin at which a decision changed (None: none did).
    A row of weights that were never trained compares size and latency, not decisions.
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


def time_calls(logits_of: LogitsOf, observations: Float) -> Float:
    """Latency of single decisions in µs (calls,), batch 1, over the observations in turn, after a warm-up.

    2,000 calls, or as many as fit into a second, but at least 200.
    """
    single = [observations[i : i + 1] for i in range(observations.shape[0])]
    for i in range(WARM_UP):
        logits_of(single[i % len(single)])
    took: list[float] = []
    begin = perf_counter_ns()
    while len(took) < CALLS and (len(took) < MIN_CALLS or perf_counter_ns() - begin < BUDGET_S * 1e9):
        one = single[len(took) % len(single)]
        start = perf_counter_ns()
        logits_of(one)
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
    ("decisions alike", lambda r: f"{r.decisions - r.changed:,} of {r.decisions:,}"),
    ("largest logit difference", lambda r: f"{r.max_logit_difference:.2g}"),
    ("smallest margin", lambda r: f"{r.smallest_margin:.2g}"),
    (
        "changed at margins up to",
        lambda r: "none changed" if r.largest_changed_margin is None else f"{r.largest_changed_margin:.2g}",
    ),
    ("latency p50 / p99 (µs)", lambda r: f"{r.latency_p50_us:.0f} / {r.latency_p99_us:.0f}"),
)


def size_text(count: int) -> str:
    """Bytes for people: kB (1,000) below a MiB, then MiB (1,048,576), as the paper counts."""
    return f"{count / 1000:.1f} kB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def markdown(rows: list[Row]) -> str:
    """The table as GitHub markdown."""
    lines = ["| " + " | ".join(name for name, _ in COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(text(row) for _, text in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def as_json(rows: list[Row], observations: dict[str, Any]) -> dict[str, Any]:
    """The content of parity.json."""
    return {
        "observations": observations,
        "machine": machine(),
        "latency": {"what": LATENCY, "unit": "µs", "raw": "latency.npz"},
        "note": FP16_NOTE,
        "rows": [asdict(row) for row in rows],
    }


def sentence(row: Row) -> str:
    """A row in words."""
    if row.largest_changed_margin is None:
        changed = f"all {row.decisions:,} decisions as in torch"
    else:
        changed = (
            f"{row.changed:,} of {row.decisions:,} decisions differ from torch, at margins up to "
            f"{row.largest_changed_margin:.2g}"
        )
    return f"{changed}, logits within {row.max_logit_difference:.1g}, {row.latency_p50_us:.0f} µs a decision (p50)"
