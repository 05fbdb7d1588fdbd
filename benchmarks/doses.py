"""What a timing policy does at each severity: how much of its benefit is kept where the disease is milder, and how much
it pulses on healthy plants.

python -m benchmarks.doses policies/timing-relative policies/timing-26 policies/timing-45 --out docs/doses.png

Search plants at each severity, ten seconds: the same networks, disease alone differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sea_dbs.config import TrainConfig, load_config
from sea_dbs.controllers import TorchPolicy
from sea_dbs.evolution.plants import World
from sea_dbs.files import atomic_write_bytes
from sea_dbs.progress import progress
from sea_dbs.report import style
from sea_dbs.seeds import SEARCH
from sea_dbs.statistics import mean_interval
from sea_dbs.train import CONFIG, check_searched

FIRST = SEARCH + 9_000  # of the plants; on others thresholds were chosen
SEVERITIES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 1.0)  # above 0.3 beta is flat (docs/plant.md)
COLORS = (style.POLICY, style.PULSES, style.CONTINUOUS)
HEALTHY_HZ = 6.5  # pulses a second, 5 % of 130 Hz: the goal on healthy plants
SECONDS = 10.0  # s on each plant; the first is not judged

Floats = NDArray[np.float64]


def told(values: Floats, digits: int = 0) -> str:
    """Mean and 95 % interval over plants."""
    interval = mean_interval(values)
    assert interval is not None  # two plants or more
    return f"{values.mean():.{digits}f} ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"


def follow(run: Path, config: TrainConfig, severity: float, seeds: list[int]) -> tuple[Floats, Floats, Floats]:
    """Untreated P_beta, P_beta in % of it, pulses a second, (plants,) each."""
    world = World(config.world(precision="float32", pd=severity), SECONDS)
    untreated = world.untreated(seeds)
    done = world.follow(TorchPolicy.load(run), seeds)
    if not np.isfinite([*untreated, *done.beta[0]]).all():
        raise SystemExit(f"a plant diverged at severity {severity:g} under {run}")
    return untreated, 100.0 * done.beta[0] / untreated, done.pulse_hz[0]


@style.drawing
def picture(names: list[str], found: NDArray[np.float64]) -> bytes:
    """Beta and pulses over severity, (policies, severities, 3, plants). PNG bytes."""
    figure, [beta, pulses] = style.subplots(9.0, 3.8, 1, 2)
    for (name, rows), color in zip(zip(names, found, strict=True), COLORS, strict=False):
        for axes, values in ((beta, rows[:, 1]), (pulses, rows[:, 2])):
            axes.plot(SEVERITIES, values, "-", color=color, alpha=0.12, linewidth=0.8)
            axes.plot(SEVERITIES, values.mean(axis=1), "o-", color=color, label=name)
    beta.axhline(100.0, color=style.UNTREATED, linewidth=0.8)
    beta.set_ylabel("P_beta, % of the same plant untreated")
    pulses.axhline(HEALTHY_HZ, color=style.NEUTRAL, linestyle=":", label="5 % of 130 Hz")
    pulses.set_ylabel("pulses a second")
    for axes in (beta, pulses):
        axes.set_xlabel("severity (pd: 0 healthy, 1 parkinsonian)")
        axes.set_ylim(bottom=0.0)
        axes.legend()
    beta.set_title(f"What is left of beta, {found.shape[-1]} plants and their mean")
    pulses.set_title("and what it takes")
    return style.png(figure)


def main() -> None:
    """Print a Markdown table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one to three policies of preset timing")
    parser.add_argument("--plants", type=int, default=32, help="2 to 64")
    parser.add_argument("--out", type=Path, required=True, help="a PNG")
    given = parser.parse_args()
    if not 2 <= given.plants <= 64:
        raise SystemExit(f"--plants is {given.plants}: from 2 to 64 are allowed")
    if len(given.runs) > len(COLORS):
        raise SystemExit(f"{len(given.runs)} policies were given: from 1 to {len(COLORS)} are allowed")
    configs = [load_config(run / CONFIG) for run in given.runs]
    for run, config in zip(given.runs, configs, strict=True):
        if config.preset != "timing":
            raise SystemExit(f"{run} is a policy of preset {config.preset}: allowed is timing")
        check_searched(config)  # nothing else is simulated here
    seeds = [FIRST + k for k in range(given.plants)]
    rows: list[list[tuple[Floats, Floats, Floats]]] = []
    with progress("severities", len(configs) * len(SEVERITIES)) as bar:
        for run, config in zip(given.runs, configs, strict=True):
            rows.append([])
            for severity in SEVERITIES:
                rows[-1].append(follow(run, config, severity, seeds))
                bar.update(1, f"{run.name}, {severity:g}")
    print("| policy | severity | untreated P_beta | beta, % of untreated | pulses a second | benefit, % of that at 1 |")
    print("|---|---|---|---|---|---|")
    for run, own in zip(given.runs, rows, strict=True):
        most = 100.0 - own[-1][1].mean()
        for severity, (untreated, percent, hz) in zip(SEVERITIES, own, strict=True):
            kept = 100.0 * (100.0 - percent.mean()) / most
            words = f"{told(untreated)} | {told(percent, 1)} | {told(hz, 1)} | {kept:.0f}"
            print(f"| {run.name} | {severity:g} | {words} |")
    atomic_write_bytes(given.out, picture([run.name for run in given.runs], np.array(rows)))


if __name__ == "__main__":
    main()
