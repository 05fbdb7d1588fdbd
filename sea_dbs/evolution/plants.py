"""Many policies on many plants at once, straight on the batch kernel: what a search can afford.

A lane lives through exactly what an environment of view "timing" gives its policy (a test holds the two together), but
for the spectra of every slot, which only rewards need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from envs.biomarkers.multitaper import beta_trace
from envs.config import EnvConfig
from envs.plant.batch import BatchPlant, NetworkFailedError
from envs.plant.batch_block import LaneState
from envs.plant.common import N_CELLS
from envs.plant.inputs import SmcRenewal
from envs.plant.state import Network, draw_network
from envs.signals import RATE_SCALE_HZ
from envs.slots import slot_edges
from sea_dbs.controllers import Controller

STEP_MS = 100.0  # ms between two windows of the mean beta
TRANSIENT_MS = 1000.0  # ms at the start that no window holds: the first pulses still change the network

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Settled(NamedTuple):
    """One network as a reset leaves it, and the cortical input that awaits it."""

    network: Network
    state: LaneState
    smc: Floats  # (n,) µA/cm², a value a sample
    rates: Floats  # (slots,) as observed in the slots before time 0


class Outcome(NamedTuple):
    """What each policy did on each plant, (policies, plants); nan where the plant diverged."""

    beta: Floats  # mean P_beta (spikes²/s²)
    pulse_hz: Floats


class World:
    """Plants of one configuration, settled once each.

    Args:
        config: view "timing", kernel fast.
        seconds: of every trial (s), `TRANSIENT_MS` and a window at least.
    """

    def __init__(self, config: EnvConfig, seconds: float) -> None:
        self.config, self.half = config, config.slots_observed
        self.n_slots = round(seconds * config.stim_hz)
        self.edges = slot_edges(config, 0, self.n_slots)
        self._known: dict[int, Settled] = {}
        self._untreated: dict[int, float] = {}

    def settle(self, seeds: Sequence[int]) -> list[Settled]:
        """The networks that an environment draws with these seeds. Only those of the last call are kept."""
        c, new = self.config, [seed for seed in seeds if seed not in self._known]
        n, settle = int(self.edges[-1]), round(c.settle_ms / c.dt_ms)
        drawn = []
        for seed in new:
            generator, _ = np_random(seed)
            smc = SmcRenewal(generator, c.dt_ms)  # the order of an environment's draws
            drawn.append((draw_network(generator, c.pd), smc.take(settle), smc.take(n)))
        if drawn:
            batch = BatchPlant([network for network, _, _ in drawn], c.dt_ms, c.precision)
            past = slot_edges(c, -self.half, self.half)
            records = batch.advance(np.stack([smc for _, smc, _ in drawn]), np.zeros((len(drawn), settle)))
            for i, (seed, record) in enumerate(zip(new, records, strict=True)):
                rates = _rates(record.gpi_spikes[:, 0] - batch.sample_of(i), past, c.dt_ms)
                self._known[seed] = Settled(drawn[i][0], batch.take(i), drawn[i][2], rates)
        self._known = {seed: self._known[seed] for seed in seeds}
        return [self._known[seed] for seed in seeds]

    def play(self, weights: Floats, seeds: Sequence[int], gate: Floats | None = None) -> Outcome:
        """Linear policies, (policies, n_obs + 1) weights with the bias last, on the plants of these seeds.

        With a gate, (n_obs + 1,), all of them pulse only where it is above 0 too.
        """
        own = np.repeat(weights, len(seeds), axis=0)

        def decide(seen: Floats) -> Bools:
            wanted = np.einsum("ij,ij->i", seen, own[:, :-1]) + own[:, -1] > 0.0
            return np.asarray(wanted if gate is None else wanted & (seen @ gate[:-1] + gate[-1] > 0.0))

        return self._lockstep(decide, len(weights), seeds)

    def follow(self, controller: Controller, seeds: Sequence[int]) -> Outcome:
        """Any policy of one bit, on the plants of these seeds: `Outcome` of one policy."""
        controller.init_state(len(seeds))
        return self._lockstep(lambda seen: controller.act(seen.astype(np.float32))[:, 0] > 0, 1, seeds)

    def _lockstep(self, decide: Callable[[Floats], Bools], policies: int, seeds: Sequence[int]) -> Outcome:
        """``decide`` is asked at each slot for all lanes, (lanes, n_obs) -> (lanes,): policy after policy, each on all
        plants."""
        c, plants = self.config, self.settle(seeds)
        lanes = [(policy, plant) for policy in range(policies) for plant in range(len(plants))]
        batch = BatchPlant([plants[plant].network for _, plant in lanes], c.dt_ms, c.precision)
        for i, (_, plant) in enumerate(lanes):
            batch.put(i, plants[plant].network, plants[plant].state)
        origins = [batch.sample_of(i) for i in range(len(lanes))]
        smc, whose = np.stack([one.smc for one in plants]), np.array([plant for _, plant in lanes])
        rates = np.zeros((len(lanes), self.half + self.n_slots))
        pulses = np.zeros_like(rates)
        rates[:, : self.half] = [plants[plant].rates for _, plant in lanes]
        width = round(c.width_ms / c.dt_ms)
        spikes: list[list[Ints]] = [[] for _ in lanes]
        alive = np.ones(len(lanes), np.bool_)
        for t in range(self.n_slots):
            seen = np.concatenate([rates[:, t : t + self.half], pulses[:, t : t + self.half]], axis=1)
            free = ~pulses[:, max(0, self.half + t - c.gap_slots + 1) : self.half + t].any(axis=1)
            pulses[:, self.half + t] = decide(seen) & free
            first, end = int(self.edges[t]), int(self.edges[t + 1])
            current = np.zeros((len(lanes), end - first))
            current[:, :width] = pulses[:, self.half + t, None] * c.amplitude_uA_cm2
            try:
                records = batch.advance(smc[whose, first:end], current)
            except NetworkFailedError as error:
                records = error.records
                for i in error.failures:  # it stands for nothing from here; a living network keeps its lane's place
                    alive[i] = False
                    settled = plants[lanes[i][1]]
                    batch.put(i, settled.network, settled.state)
            bins = (end - first) * c.dt_ms / 1000.0 * N_CELLS * RATE_SCALE_HZ
            for i, record in enumerate(records):
                spikes[i].append(record.gpi_spikes)
            rates[:, self.half + t] = [len(record.gpi_spikes) / bins for record in records]
        shape = (policies, len(plants))
        played = [np.concatenate(one) - np.array([origin, 0]) for one, origin in zip(spikes, origins, strict=True)]
        beta = np.array([self._beta(one) if good else np.nan for one, good in zip(played, alive, strict=True)])
        hz = pulses.sum(axis=1) * c.stim_hz / self.n_slots
        return Outcome(beta.reshape(shape), np.where(alive, hz, np.nan).reshape(shape))

    def untreated(self, seeds: Sequence[int]) -> Floats:
        """Mean P_beta of each plant without a pulse, (plants,)."""
        new = [seed for seed in seeds if seed not in self._untreated]
        if new:
            never = np.zeros((1, self.config.n_obs + 1))
            self._untreated |= dict(zip(new, self.play(never, new).beta[0].tolist(), strict=True))
        return np.array([self._untreated[seed] for seed in seeds])

    def _beta(self, spikes: Ints) -> float:
        c = self.config
        window, step = round(c.window_ms / c.dt_ms), round(STEP_MS / c.dt_ms)
        starts = np.arange(round(TRANSIENT_MS / c.dt_ms), int(self.edges[-1]) - window + 1, step)
        return float(beta_trace(spikes, starts, window, c.dt_ms, fixed_grid=True).mean())


def _rates(at: Ints, edges: Ints, dt_ms: float) -> Floats:
    """GPi rate per `RATE_SCALE_HZ` in each slot, of spikes at these samples."""
    counts = np.diff(np.searchsorted(at, edges))
    return np.asarray(counts / (N_CELLS * np.diff(edges) * dt_ms / 1000.0) / RATE_SCALE_HZ)
