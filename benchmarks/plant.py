"""Speed of the plant, the biomarker and the vector environment: `python -m benchmarks.plant [--out out/bench]`.

Unit: simulated seconds per CPU second (process time, so that other jobs on the machine count little; best of several).
Every speed is also given as a ratio to the scalar reference kernel, measured in the same process.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figure import draw
from benchmarks.parts import costs
from envs.biomarkers.multitaper import beta_trace
from envs.plant.batch import BatchPlant
from envs.plant.inputs import SmcRenewal
from envs.plant.network import Plant
from envs.plant.single import FastPlant
from envs.plant.state import Network, draw_network

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
FLOORS = {"reference": 2.2, "float64": 24.0, "float32": 60.0, "one": 10.0, "beta_ms": 16.0, "step_ms": 33.0}
GOALS = {"float64": 28.0, "float32": 72.0, "one": 14.0, "beta_ms": 5.0, "step_ms": 20.0}


def best(work: Callable[[], object], repeats: int) -> float:
    """Least CPU seconds of all threads that one call takes."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def network(i: int) -> Network:
    return draw_network(np.random.default_rng(i))


def smc(n: int, samples: int, dt_ms: float) -> np.ndarray:
    return np.stack([SmcRenewal(np.random.default_rng(1000 + i), dt_ms).take(samples) for i in range(n)])


def scalar(dt_ms: float = 0.02) -> float:
    """Simulated seconds per CPU second of the scalar reference kernel, condition pd, after its first second."""
    plant, n = Plant(network(0), dt_ms), round(1000 / dt_ms)
    current, none = smc(1, n, dt_ms)[0], np.zeros(n)
    plant.advance(current, none)
    return 1.0 / best(lambda: plant.advance(current, none), 3)


def batch(B: int, precision: str, threads: int = 1, dt_ms: float = 0.02, repeats: int = 4) -> float:
    """Simulated seconds per CPU second of the batch kernel, condition pd."""
    one = B == 1 and precision == "float64"
    n = round((500 if B > 16 else 1000) / dt_ms)
    current = smc(B, n, dt_ms)
    plant = (
        FastPlant(network(0), dt_ms) if one else BatchPlant([network(i) for i in range(B)], dt_ms, precision, threads)
    )
    args = (current[0], np.zeros(n)) if one else (current, np.zeros((B, n)))
    plant.advance(*args)
    return B * n * dt_ms / 1000.0 / best(lambda: plant.advance(*args), repeats)


def biomarker() -> dict[str, float]:
    """CPU ms of 1,000 betas (windows of 1 s, 1 ms apart) of one network, for each grid."""
    plant = FastPlant(network(0))
    spikes = plant.advance(smc(1, 150_000, 0.02)[0], np.zeros(150_000)).gpi_spikes
    ends = 150_000 - np.arange(999, -1, -1) * 50
    spikes = spikes[spikes[:, 0] >= ends[0] - 50_000]

    def run(fixed: bool) -> float:
        beta_trace(spikes, ends - 50_000, 50_000, 0.02, fixed_grid=fixed)
        return 1000.0 * best(lambda: beta_trace(spikes, ends - 50_000, 50_000, 0.02, fixed_grid=fixed), 9)

    return {"fixed": run(True), "released": run(False)}


def paper_step(B: int = 32) -> float:
    """CPU ms a network of one step (1 s) of the vector environment, preset paper, float32."""
    import gymnasium

    env = gymnasium.make_vec(
        "sea_dbs/BasalGanglia-v0",
        num_envs=B,
        vectorization_mode="vector_entry_point",
        preset="paper",
        precision="float32",
    )
    env.reset(seed=0)
    action = np.zeros((B, 50), dtype=np.int8)
    action[:, ::3] = 1
    env.step(action)
    cost = 1000.0 * best(lambda: env.step(action), 4) / B
    env.close()
    return cost


def starts() -> dict[str, float]:
    """Wall seconds from process start to the first advanced network: with an empty cache, then with a full one."""
    program = (
        "import numpy as np; from envs.plant.batch import BatchPlant; from envs.plant.single import FastPlant; "
        "from envs.plant.state import draw_network; "
        "FastPlant(draw_network(np.random.default_rng(0))).advance(np.zeros(50), np.zeros(50))"
    )
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(4):
            start = time.perf_counter()
            environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "PYTHONDONTWRITEBYTECODE": ""}  # as make
            subprocess.run([sys.executable, "-c", program], env=environment, check=True, stderr=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
    return {"first_s": times[0], "next_s": min(times[1:])}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(seconds: int) -> dict[str, float]:
    """Bytes of arrays a network in a batch; growth of the process over a long run of 8 networks."""
    plant = BatchPlant([network(i) for i in range(8)], precision="float64")
    held = sum(a.nbytes for part in (*plant._blocks, *plant._wirings) for a in part if isinstance(a, np.ndarray))
    plant = BatchPlant([network(i) for i in range(8)], precision="float32")
    current, none = smc(8, 50_000, 0.02), np.zeros((8, 50_000))
    rounds = max(20, round(seconds / 8))
    for i in range(rounds):
        if i == rounds // 10:
            gc.collect()
            before = _resident()
        plant.advance(current, none)
    gc.collect()
    result = {"bytes_a_network": held / 8, "simulated_s": 8.0 * rounds}
    return {**result, "growth_bytes": float(_resident() - before)} if Path("/proc/self/statm").exists() else result


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def measure(seconds: int) -> dict[str, Any]:
    """Everything, in one process."""
    result: dict[str, Any] = {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    }
    reference = [scalar()]
    print(f"scalar reference {reference[0]:.2f} simulated s per CPU s", flush=True)
    rows = []
    for precision in ("float64", "float32"):
        for B in SIZES:
            for threads in (1, 2) if B >= 16 else (1,):
                rows.append({"B": B, "precision": precision, "threads": threads, "speed": batch(B, precision, threads)})
        print(f"{precision} done", flush=True)
    # Neighbouring measurements, so that a change of the machine's load or clock hits both.
    pairs = [(batch(64, p, 1), batch(64, p, 2)) for p in ("float32", "float64") for _ in range(3)]
    result["threads"] = {"two_to_one": float(np.median([two / one for one, two in pairs]))}
    reference.append(scalar())
    result["reference"] = max(reference)
    for row in rows:
        row["ratio"] = row["speed"] / result["reference"]
    result["batch"] = rows
    result["dt"] = [
        {"dt_ms": dt, "precision": p, "speed": batch(32, p, dt_ms=dt, repeats=3)}
        for dt in (0.005, 0.01, 0.02)
        for p in ("float64", "float32")
    ]
    print("parts, biomarker, environment", flush=True)
    result["parts_ns"] = {}
    for precision in ("float64", "float32"):
        plant = BatchPlant([network(i) for i in range(8)], precision=precision)
        plant.advance(smc(8, 50_000, 0.02), np.zeros((8, 50_000)))
        parts = costs(plant)
        whole = 1e9 * 0.02e-3 / next(r["speed"] for r in rows if r["B"] == 8 and r["precision"] == precision)
        result["parts_ns"][precision] = {**parts, "whole": whole}
    result["biomarker_ms"] = biomarker()
    result["paper_step_ms"] = paper_step()
    result["start"] = starts()
    result["memory"] = memory(seconds)
    result["floors"], result["goals"] = FLOORS, GOALS
    result["command"] = "python -m benchmarks.plant"
    return result


def table(r: dict[str, Any]) -> str:
    """The result as Markdown."""
    speed = {(x["B"], x["precision"], x["threads"]): x for x in r["batch"]}

    def line(what: str, value: str, ratio: str, floor: str, goal: str) -> str:
        return f"| {what} | {value} | {ratio} | {floor} | {goal} |"

    def kernel(what: str, key: tuple[int, str, int], name: str) -> str:
        row = speed[key]
        return line(what, f"{row['speed']:.1f}", f"{row['ratio']:.1f}×", f"{FLOORS[name]:g}", f"{GOALS[name]:g}")

    b, s, m = r["biomarker_ms"], r["start"], r["memory"]
    rows = [
        "| what | measured | to the reference | floor | goal |",
        "|---|---|---|---|---|",
        line("scalar reference, simulated s per CPU s", f"{r['reference']:.2f}", "1×", "2.2", ""),
        kernel("one network, float64", (1, "float64", 1), "one"),
        kernel("32 networks, float64", (32, "float64", 1), "float64"),
        kernel("32 networks, float32", (32, "float32", 1), "float32"),
        line(
            "two threads, 64 networks: speed a core to one thread's", f"{r['threads']['two_to_one']:.2f}", "", "0.9", ""
        ),
        line("1,000 betas, window's grid (ms)", f"{b['fixed']:.1f}", "", "16", "5"),
        line("1,000 betas, released grid (ms)", f"{b['released']:.1f}", "", "16", "5"),
        line("`paper` step of one of 32, float32 (ms)", f"{r['paper_step_ms']:.1f}", "", "33", "20"),
        line("first start, kernel compiled (s, wall)", f"{s['first_s']:.1f}", "", "30", ""),
        line("next start (s, wall)", f"{s['next_s']:.1f}", "", "2", ""),
        line("memory a network, float64 (MB)", f"{m['bytes_a_network'] / 1e6:.2f}", "", "2", ""),
        line(f"growth over {m['simulated_s']:.0f} simulated s (bytes)", f"{m.get('growth_bytes', 0):.0f}", "", "0", ""),
    ]
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder of plant.json, plant.md, plant.png")
    parser.add_argument("--seconds", type=int, default=4500, help="simulated seconds of the long run")
    options = parser.parse_args()
    result = measure(options.seconds)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "plant.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "plant.md").write_text(table(result))
    (options.out / "plant.png").write_bytes(draw(result))
    print(table(result) + f"written to {options.out}")


if __name__ == "__main__":
    main()
