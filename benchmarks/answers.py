"""Who answers to 130 Hz, how early that shows, and how long it stays: what titration rests on.

python -m benchmarks.answers --plants 96 --out docs/answers.png

Each plant gets a pulse in every 130 Hz slot for half a minute, and again one group of 16 pulses a second. The search
plants are beyond those that `sea-dbs tune` meets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sea_dbs.benchmark.suites import tuned
from sea_dbs.benchmark.world import make_world
from sea_dbs.files import atomic_write_bytes
from sea_dbs.progress import progress
from sea_dbs.pulse_trains import ONE_GROUP, masks
from sea_dbs.report import style
from sea_dbs.seeds import BLOCK, SEARCH
from sea_dbs.tasks import find_task

TASK = "efficient-3"
FIRST = SEARCH + 5_000  # of the plants
STEPS = 30  # decisions of 1 s
TRANSIENT = 4  # decisions that are not counted: P_beta is of a second, and settles in the one before
TRAINS = ("130-hz", "group-16-hz")

Floats = NDArray[np.float64]


def play(train: str, seeds: list[int]) -> tuple[Floats, Floats]:
    """(reward, P_beta) of each decision and plant under one train of `ONE_GROUP`, (STEPS, plants)."""
    config = find_task(TASK).config(precision="float32", episode_steps=STEPS)
    names = [one.name for one in ONE_GROUP]
    action = np.tile(masks(config.slots, ONE_GROUP)[names.index(train)].astype(np.int8), (len(seeds), 1))
    world = make_world(config, len(seeds))
    world.reset(seed=seeds)
    reward, beta = np.zeros((2, STEPS, len(seeds)))
    for step in range(STEPS):
        _, reward[step], _, _, info = world.step(action)
        beta[step] = info["P_beta"]
        if "failure" in info:  # the regular trains have not done it here
            raise SystemExit(f"a plant failed under {train}: {next(word for word in info['failure'] if word)}")
    return reward, beta


@style.drawing
def picture(beta: Floats, gain: Floats, keep_below: float) -> bytes:
    """What a plant gains by 130 Hz, over its beta in the second second of it. PNG bytes."""
    figure, [axes] = style.subplots(6.4, 4.2)
    axes.axhline(0.0, color=style.NEUTRAL, linewidth=0.8)
    axes.axvline(
        keep_below, color=style.CONTINUOUS, linestyle=":", label=f"titration keeps 130 Hz up to {keep_below:.0f}"
    )
    axes.plot(beta, gain, "o", color=style.POLICY, alpha=0.7, label="a plant")
    axes.set_xlabel("P_beta in the second second of 130 Hz")
    axes.set_ylabel("reward under 130 Hz less that\nunder one group a second")
    axes.set_title(f"{len(beta)} search plants, a pulse priced as in {TASK}")
    axes.legend()
    return style.png(figure)


def main() -> None:
    """Print what the plants differ in, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=96)
    parser.add_argument("--out", type=Path, required=True, help="a PNG")
    given = parser.parse_args()
    if not 4 <= given.plants <= BLOCK - FIRST + SEARCH:
        raise SystemExit(f"--plants is {given.plants}: from 4 to {BLOCK - FIRST + SEARCH} are allowed")
    found = {}
    with progress("plants under", len(TRAINS)) as bar:
        for train in TRAINS:
            found[train] = play(train, [FIRST + k for k in range(given.plants)])
            bar.update(1, train)
    reward, beta = found["130-hz"]
    late, other = reward[TRANSIENT:], found["group-16-hz"][0][TRANSIENT:]
    gain = late.mean(axis=0) - other.mean(axis=0)
    half = len(late) // 2
    halves = np.corrcoef(late[:half].mean(axis=0), late[half:].mean(axis=0))[0, 1]
    shares = np.quantile(gain, [0.0, 0.25, 0.5, 0.75, 1.0])
    parameters = tuned("titration", 130.0)
    assert parameters is not None  # comes with the package
    print(f"reward under 130 Hz less that under one group a second, decisions {TRANSIENT + 1} to {STEPS}:")
    print(f"mean {gain.mean():+.2f}, least, quartiles and most {', '.join(f'{value:+.2f}' for value in shares)}")
    print(
        f"{(gain > 0).sum()} of {len(gain)} plants gain; whoever knew them would gain {np.maximum(gain, 0).mean():.2f}"
    )
    print(f"first and second half of it under 130 Hz: r = {halves:.2f}")
    for step in range(3):
        print(f"P_beta of second {step + 1} of 130 Hz and the gain: r = {np.corrcoef(beta[step], gain)[0, 1]:.2f}")
    atomic_write_bytes(given.out, picture(beta[1], gain, 1000.0 * float(parameters["keep_below"])))


if __name__ == "__main__":
    main()
