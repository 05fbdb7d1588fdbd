"""What chance costs a pulse train: its reward when each slot is turned over with some chance, as exploration does.

python -m benchmarks.disorder --plants 16 --out docs/disorder.png

A Gumbel-Softmax actor draws every slot by itself: a slot whose logits differ by L comes out the other way with chance
1/(1 + e^L), at any temperature. So an actor on its way from a coin in each slot to a train passes through these.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sea_dbs.benchmark.suites import tuned
from sea_dbs.benchmark.world import make_training_world
from sea_dbs.files import atomic_write_bytes
from sea_dbs.progress import progress
from sea_dbs.report import style
from sea_dbs.seeds import held_out_seeds
from sea_dbs.statistics import interval, iqm
from sea_dbs.tasks import find_task

SLOT_HZ = 130.0  # Hz
SLOTS = 130  # of a decision of a second
STEPS = 8  # decisions on a plant
LANES = 8  # plants at once: a block of the kernel
TRANSIENT = 2  # decisions that are not counted
FLIPS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)  # chance that a slot is turned over
DUTIES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)  # of a coin
COIN = "coin"  # no train: each slot by itself
COLOURS = (style.POLICY, style.CONTINUOUS, style.HEALTHY)

Floats = NDArray[np.float64]


class Row(NamedTuple):
    """One train with one chance, on every plant."""

    train: str
    chance: float
    reward: Floats  # (plants,), Eq. 7 a decision
    pulses: Floats  # (plants,), a second

    def earned(self, price: float) -> Floats:
        """Reward a decision where continuous stimulation costs ``price``."""
        return self.reward - price * self.pulses / SLOT_HZ


def trains() -> dict[str, NDArray[np.bool_]]:
    """A second of each train, (130,): the two patterns of the genetic search, and a regular train."""
    masks = {}
    for name, word in (("pattern-26", "26 Hz in groups"), ("pattern-45", "45 Hz, the search's")):
        found = tuned(name, SLOT_HZ) or {}
        masks[word] = np.array([one == "1" for one in found["mask"]])
    masks["regular 65 Hz"] = np.arange(SLOTS) % 2 == 0
    return masks


def play(mask: NDArray[np.bool_], flips: float, seeds: Sequence[int]) -> tuple[Floats, Floats]:
    """(reward a decision, pulses a second) of each plant, slots turned over by chance; nan where a plant diverged."""
    config = find_task("slots-130").config(precision="float32", episode_steps=STEPS)
    rewards, pulses = [], []
    for first in range(0, len(seeds), LANES):
        own = list(seeds[first : first + LANES])
        world = make_training_world(config, len(own))  # goes on with another plant where one diverges: seen below
        world.reset(seed=own)
        dice = np.random.default_rng([own[0], round(1e6 * flips), int(mask.sum())])
        reward, given = np.zeros((2, STEPS, len(own)))
        lost = np.zeros(len(own), dtype=np.bool_)
        for step in range(STEPS):
            action = mask ^ (dice.random((len(own), SLOTS)) < flips)
            _, reward[step], _, _, info = world.step(action.astype(np.int8))
            given[step] = info["pulses"]
            if "redrawn" in info:
                lost |= info["_redrawn"]
        reward[:, lost] = given[:, lost] = np.nan
        rewards.append(reward[TRANSIENT:].mean(axis=0))
        pulses.append(given[TRANSIENT:].mean(axis=0))
    return np.concatenate(rewards), np.concatenate(pulses)


def main() -> None:
    """Print Markdown tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=16, help="held-out plants")
    parser.add_argument("--prices", default="0,2,3", help="reward that continuous stimulation costs a decision")
    parser.add_argument("--out", type=Path, help="figure (PNG)")
    given = parser.parse_args()
    seeds, prices = held_out_seeds(given.plants), [float(one) for one in given.prices.split(",")]
    cells = [(name, mask, chance) for name, mask in trains().items() for chance in FLIPS]
    cells += [(COIN, np.zeros(SLOTS, dtype=np.bool_), chance) for chance in DUTIES]
    rows = []
    with progress("trains", len(cells)) as bar:
        for name, mask, chance in cells:
            rows.append(Row(name, chance, *play(mask, chance, seeds)))
            bar.update(1, f"{name}, {chance:g}")
    none = next(row for row in rows if row.train == COIN and row.chance == 0.0)
    print("| train | chance | pulses a second |", *(f"reward, price {one:g} | above no pulse |" for one in prices))
    print("|---|---|---|" + "---|" * 2 * len(prices))
    for row in rows:
        told = [f"{_told(row.earned(one))} | {_told(row.earned(one) - none.earned(one))} |" for one in prices]
        print(f"| {row.train} | {row.chance:g} | {_mean(row.pulses):.1f} |", *told)
    if given.out is not None:
        atomic_write_bytes(given.out, draw(rows, prices))


def _told(values: Floats) -> str:
    """Interquartile mean and interval of what is there."""
    values = values[~np.isnan(values)]
    low, high = interval(values) or (np.nan, np.nan)
    return f"{iqm(values):+.2f} ({low:+.2f} to {high:+.2f})"


@style.drawing
def draw(rows: Sequence[Row], prices: Sequence[float]) -> bytes:
    """Reward against chance: trains that are disturbed, at the last price, and the duty of a coin in each slot; PNG."""
    figure, (disturbed, coin) = style.subplots(9.0, 3.8, 1, 2)
    tossed = [row for row in rows if row.train == COIN]
    for name, colour in zip(trains(), COLOURS, strict=True):
        _line(disturbed, [row for row in rows if row.train == name], prices[-1], colour, name)
    disturbed.axhline(_mean(tossed[0].earned(prices[-1])), color=style.UNTREATED, lw=1, ls="--", label="no pulse")
    disturbed.set_xscale("symlog", linthresh=0.005)
    shown = [one for one in FLIPS if one != 0.35]  # no room beside 0.5
    disturbed.set_xticks(shown, [f"{one:g}" for one in shown])
    disturbed.minorticks_off()
    disturbed.set(xlabel="chance that a slot is turned over", xlim=(0, 0.6), ylabel="reward a decision")
    disturbed.set_title(f"A train in the noise of exploration, price {prices[-1]:g}")
    disturbed.legend(loc="lower left")
    for price, colour in zip(prices, (style.NEUTRAL, style.CONTINUOUS, style.PULSES), strict=False):
        _line(coin, tossed, price, colour, f"price {price:g}")
    coin.set(xlabel="chance of a pulse in each slot", xlim=(0, 1), ylabel="reward a decision")
    coin.set_title("A coin in each slot, from no pulse to always")
    coin.legend(loc="upper center")
    return style.png(figure)


def _line(axis: Any, rows: Sequence[Row], price: float, colour: str, label: str) -> None:
    values = [row.earned(price) for row in rows]
    bounds = np.array([interval(one[~np.isnan(one)]) or (np.nan, np.nan) for one in values])
    x = [row.chance for row in rows]
    axis.fill_between(x, bounds[:, 0], bounds[:, 1], color=colour, alpha=0.15, lw=0)
    axis.plot(x, [_mean(one) for one in values], "o-", ms=3.5, color=colour, label=label)


def _mean(values: Floats) -> float:
    return iqm(values[~np.isnan(values)])


if __name__ == "__main__":
    main()
