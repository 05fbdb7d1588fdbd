"""How severity shows in beta: what a drift has to change so that a controller meets it.

python -m benchmarks.severity --plants 32 --out docs/severity.png

Search plants at each severity for ten seconds, untreated and under 130 Hz: the same networks, disease alone differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.patients import DRIFTS
from sea_dbs.benchmark.world import make_world
from sea_dbs.files import atomic_write_bytes
from sea_dbs.progress import progress
from sea_dbs.report import style
from sea_dbs.seeds import BLOCK, SEARCH
from sea_dbs.statistics import mean_interval
from sea_dbs.tasks import find_task

TASK = "slots-130"
FIRST = SEARCH + 8_000  # of the plants
SEVERITIES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
STEPS = 10  # decisions of 1 s
TRANSIENT = 2  # decisions that are not counted: 130 Hz takes one to settle, and P_beta is of a second

Floats = NDArray[np.float64]


def play(severity: float, pulses: bool, seeds: list[int]) -> Floats:
    """Mean P_beta of each plant, (plants,), untreated or with a pulse in every slot of 130 Hz."""
    config = find_task(TASK).config(precision="float32", episode_steps=STEPS, pd=severity)
    world = make_world(config, len(seeds))
    world.reset(seed=seeds)
    action = np.full((len(seeds), config.slots), int(pulses), np.int8)
    beta = np.zeros((STEPS, len(seeds)))
    for step in range(STEPS):
        info = world.step(action)[-1]
        if "failure" in info:
            word = next(word for word in info["failure"] if word)
            raise SystemExit(f"a plant failed at severity {severity:g}: {word}")
        beta[step] = info["P_beta"]
    mean: Floats = beta[TRANSIENT:].mean(axis=0)
    return mean


@style.drawing
def picture(untreated: Floats, treated: Floats) -> bytes:
    """P_beta over severity, each plant and the mean; where the drifts end. (severities, plants) each. PNG bytes."""
    figure, [axes] = style.subplots(6.4, 4.2)
    for beta, color, word in ((untreated, style.UNTREATED, "untreated"), (treated, style.CONTINUOUS, "130 Hz")):
        axes.plot(SEVERITIES, beta, "-", color=color, alpha=0.15, linewidth=0.8)
        axes.plot(SEVERITIES, beta.mean(axis=1), "o-", color=color, label=f"{word}, mean of {beta.shape[1]} plants")
    names: dict[float, list[str]] = {}
    for name in ("disease", "circadian"):
        lowest = min(DRIFTS[name].severity(1.0, t_s, 0.0) for t_s in np.linspace(0.0, 60.0, 601))
        names.setdefault(round(lowest, 3), []).append(name)
    for (lowest, those), linestyle in zip(names.items(), (":", "--"), strict=False):
        label = f"lowest from 1 under drift={' and '.join(those)}"
        axes.axvline(lowest, color=style.NEUTRAL, linestyle=linestyle, label=label)
    axes.set_xlabel("severity (pd: 0 healthy, 1 parkinsonian)")
    axes.set_ylabel("P_beta")
    axes.set_ylim(bottom=0.0)
    axes.set_title("Beta of the model over severity")
    axes.legend()
    return style.png(figure)


def main() -> None:
    """Print beta at each severity, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=32)
    parser.add_argument("--out", type=Path, required=True, help="a PNG")
    given = parser.parse_args()
    if not 2 <= given.plants <= (most := BLOCK - FIRST + SEARCH):
        raise SystemExit(f"--plants is {given.plants}: from 2 to {most} are allowed")
    seeds = [FIRST + k for k in range(given.plants)]
    found: dict[bool, list[Floats]] = {False: [], True: []}
    with progress("severities", 2 * len(SEVERITIES)) as bar:
        for severity in SEVERITIES:
            for pulses, rows in found.items():
                rows.append(play(severity, pulses, seeds))
                bar.update(1, f"{severity:g}")
    print("mean P_beta with 95 % interval over plants")
    for severity, *rows in zip(SEVERITIES, *found.values(), strict=True):
        words = []
        for row in rows:
            interval = mean_interval(row)
            assert interval is not None  # two plants or more
            words.append(f"{row.mean():.0f} ({interval[0]:.0f} to {interval[1]:.0f})")
        print(f"severity {severity:<4g} untreated {words[0]}, 130 Hz {words[1]}")
    untreated, treated = (np.array(rows) for rows in found.values())
    atomic_write_bytes(given.out, picture(untreated, treated))


if __name__ == "__main__":
    main()
