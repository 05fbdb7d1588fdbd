"""Does the exported file decide as the trained network does, and what does it cost? Measured, never assumed."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError

Float = NDArray[np.float32]
LogitsOf = Callable[[Float], Float]  # (n, n_obs) -> (n, slots, 2)
WARM_UP = 50  # calls before the clock counts
CALLS = 2000  # timed calls: the 99th percentile then rests on 20


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


def time_calls(logits_of: LogitsOf, observations: Float, calls: int = CALLS) -> Float:
    """Latency of single decisions in µs (calls,), batch 1, over the observations in turn, after a warm-up."""
    single = [observations[i : i + 1] for i in range(observations.shape[0])]
    for i in range(min(WARM_UP, calls)):
        logits_of(single[i % len(single)])
    took = np.empty(calls, np.float32)
    for i in range(calls):
        start = perf_counter_ns()
        logits_of(single[i % len(single)])
        took[i] = (perf_counter_ns() - start) / 1000.0
    return took


def percentiles(latency_us: Float) -> dict[str, float]:
    """The two latency columns of a `Row`."""
    p50, p99 = np.percentile(latency_us, (50, 99))
    return {"latency_p50_us": float(p50), "latency_p99_us": float(p99)}


def machine() -> dict[str, str]:
    """What the latencies were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "system": platform.system(), "python": platform.python_version(), "threads": "1"}


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
        "latency": {"batch": 1, "calls": CALLS, "unit": "µs", "raw": "latency.npz"},
        "rows": [asdict(row) for row in rows],
    }
