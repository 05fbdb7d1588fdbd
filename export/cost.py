"""What one decision costs on this machine, measured in a process of its own: nothing else has memory or threads there.

``python -m export.cost FILE.onnx OBSERVATIONS.npy MULTIPLICATIONS`` prints JSON: latencies (µs) of single decisions,
of a NumPy matrix product with as many multiplications beside each, and the memory that the policy added at its peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError

WARM_UP = 50  # calls before the clock counts
CALLS = 2000  # timed calls: the 99th percentile then rests on 20
MIN_CALLS = 200  # of a network so slow that CALLS would last longer than
BUDGET_S = 1.0  # s
NUMPY_EVERY = 5  # calls between two of NumPy's products
MEMORY = "peak resident memory (VmHWM) less that before the file was read, in a process of its own, Linux"
Timed = tuple[NDArray[np.float32], dict[str, Any]]


def measure(data: bytes, observations: NDArray[np.float32], multiplications: int) -> Timed:
    """Latencies in µs (calls,), and facts for the table: p50, p99, NumPy's p50 for a product of the same size, memory.

    Raises:
        UserError: the measuring process failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policy.onnx").write_bytes(data)
        np.save(folder / "observations.npy", observations)
        paths = [str(folder / "policy.onnx"), str(folder / "observations.npy")]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        done = subprocess.run(
            [sys.executable, "-m", "export.cost", *paths, str(multiplications)],
            env={**os.environ, **threads},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise UserError(f"the cost of a decision could not be measured: {(done.stderr.splitlines() or ['?'])[-1]}")
    found = json.loads(done.stdout)
    took = np.array(found.pop("latency_us"), np.float32)
    p50, p99 = np.percentile(took, (50, 99))
    numpy_p50 = found["numpy_matmul_p50_us"]
    facts = {"calls": len(took), "latency_p50_us": float(p50), "latency_p99_us": float(p99)}
    return took, {**facts, **found, "ratio_to_numpy": float(p50) / numpy_p50}


def _main(model: str, observations: str, multiplications: str) -> None:
    from export.runner import OnnxRunner

    seen = np.load(observations)
    side = max(1, round(int(multiplications) ** 0.5))
    vector, matrix = np.ones((1, side), np.float32), np.ones((side, side), np.float32)
    import onnxruntime  # noqa: F401 (its own memory is not the policy's)

    before = _memory("VmRSS")
    _forget_peak()
    runner = OnnxRunner(Path(model).read_bytes())
    single = [seen[i : i + 1] for i in range(len(seen))]
    for i in range(WARM_UP):
        runner.logits(single[i % len(single)])
    peak = _memory("VmHWM")
    took: list[float] = []
    product: list[float] = []
    begin = perf_counter_ns()
    while len(took) < CALLS and (len(took) < MIN_CALLS or perf_counter_ns() - begin < BUDGET_S * 1e9):
        one = single[len(took) % len(single)]
        start = perf_counter_ns()
        runner.logits(one)
        middle = perf_counter_ns()
        took.append((middle - start) / 1000.0)
        if len(took) % NUMPY_EVERY == 0:
            middle = perf_counter_ns()
            vector @ matrix
            product.append((perf_counter_ns() - middle) / 1000.0)
    facts = {
        "latency_us": took,
        "numpy_matmul_p50_us": float(np.median(product)),
        "numpy_matmul": f"(1, {side}) @ ({side}, {side}) float32, one thread",
        "peak_memory_kB": None if before is None or peak is None else max(0, peak - before),
    }
    sys.stdout.write(json.dumps(facts))


def _memory(key: str) -> int | None:
    """A line of /proc/self/status in kB (1,024 bytes); None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)


def _forget_peak() -> None:
    """Let VmHWM begin anew (what the imports took once is not the policy's)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    _main(*sys.argv[1:])
