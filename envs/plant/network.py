"""A network that can be advanced, watched, saved and restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.plant import reference
from envs.plant.common import N_CELLS, N_POPULATIONS, POPULATIONS
from envs.plant.inputs import round_half_up
from envs.plant.ranges import check_network
from envs.plant.state import Network, State, draw_network, initial_state
from envs.plant.synapses import KERNEL_SPAN_MS, kernel_tables

DT_RANGE_MS = (0.005, 0.02)  # ms; forward Euler was compared at 0.01 and 0.02, a coarser step was not
MAX_RATE_PER_MS = 1.0  # 1/ms, bound on a cell's event rate for the size of the records
_TABLES: dict[float, NDArray[np.float64]] = {}


class Record(NamedTuple):
    """What happened during an `advance`; sample indices are absolute (sample 0 = initial state)."""

    # (m, 3) sample, population, cell: transmission events (upward crossing of -10 mV; cortex: reset)
    events: NDArray[np.int64]
    # (m, 2) sample before the upward crossing of -20 mV, cell: what the biomarker counts
    gpi_spikes: NDArray[np.int64]
    # LFP proxy of `envs.biomarkers.lfp`, from the fast kernel alone: the samples, once a millisecond, from where the
    # plant stood (included) to where it stands now (excluded); its values (µA/cm²)
    lfp_samples: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    lfp: NDArray[np.float64] = np.zeros(0)
    # (m, 2) first sample above -40 mV, thalamic cell: what the error index counts; from a fast kernel with ``relay``
    th_spikes: NDArray[np.int64] = np.zeros((0, 2), dtype=np.int64)


def check_dt(dt_ms: float) -> None:
    """Refuse a step that was never validated.

    Raises:
        UserError: dt outside 0.005..0.02 ms, or one that does not divide a millisecond.
    """
    low, high = DT_RANGE_MS
    if not low <= dt_ms <= high or abs(round(1.0 / dt_ms) * dt_ms - 1.0) > 1e-9:
        raise UserError(
            f"the plant step dt_ms is {dt_ms}: allowed are {low} to {high} ms that divide 1 ms (as 0.01, 0.02)"
        )


def common_dt(dts_ms: Sequence[float]) -> float:
    """The step of a batch, from what each of its networks asks for.

    Raises:
        UserError: they differ; one lockstep cannot serve two steps.
    """
    other = next((i for i, dt_ms in enumerate(dts_ms) if dt_ms != dts_ms[0]), 0)
    if other:
        raise UserError(
            f"a batch has one plant step: network 0 asks for {dts_ms[0]:g} ms and network {other} for "
            f"{dts_ms[other]:g} ms"
        )
    return dts_ms[0]


class Plant:
    """One cortex-basal ganglia-thalamus network (Kumaravelu et al. 2016) on the scalar reference kernel.

    Args:
        network: the draws and parameters.
        dt_ms: step of forward Euler (ms); 0.02 in training, 0.01 in the original.

    Raises:
        UserError: dt or a parameter of the network out of range.
    """

    def __init__(self, network: Network, dt_ms: float = 0.02) -> None:
        check_dt(dt_ms)
        check_network(network)
        self.network = network
        self.dt_ms = dt_ms
        self.state = initial_state(network)
        if dt_ms not in _TABLES:
            _TABLES[dt_ms] = kernel_tables(dt_ms)
        self._tables = _TABLES[dt_ms]

    @classmethod
    def draw(cls, rng: np.random.Generator, pd: float = 1.0, dt_ms: float = 0.02) -> Plant:
        """A network drawn from a generator; pd 0 (healthy) to 1 (parkinsonian)."""
        return cls(draw_network(rng, pd), dt_ms)

    @property
    def sample(self) -> int:
        """Index of the current sample; time is sample × dt."""
        return int(self.state.sample[0])

    def advance(self, smc: NDArray[np.float64], dbs: NDArray[np.float64]) -> Record:
        """Advance by len(smc) updates.

        Args:
            smc: input into all thalamic cells at each new sample (µA/cm²), shape (n,).
            dbs: stimulation into all STN cells at each new sample (µA/cm²), shape (n,).

        Raises:
            UserError: shapes differ, an input is not finite, or a voltage became non-finite (nucleus, cell and time
            are named).
        """
        if smc.ndim != 1 or smc.shape != dbs.shape:
            raise UserError(f"plant inputs have shapes {smc.shape} and {dbs.shape}: both must be (n,)")
        if not (np.isfinite(smc).all() and np.isfinite(dbs).all()):
            raise UserError(
                f"a plant input is not finite (smc: {np.isfinite(smc).all()}, dbs: {np.isfinite(dbs).all()})"
            )
        n = len(smc)
        rows = int(MAX_RATE_PER_MS * (n * self.dt_ms + 5.0)) * N_CELLS
        events = np.empty((rows * N_POPULATIONS, 3), dtype=np.int64)
        gpi_spikes = np.empty((rows, 2), dtype=np.int64)
        counts = np.zeros(2, dtype=np.int64)
        status = reference.advance(
            self.state, self.network, self._tables, self.dt_ms, smc, dbs, events, gpi_spikes, counts
        )
        self._check(status)
        return Record(events[: counts[0]].copy(), gpi_spikes[: counts[1]].copy())

    def _check(self, status: int) -> None:
        time_ms = self.sample * self.dt_ms
        bad = np.argwhere(~np.isfinite(self.state.V))
        if len(bad):
            population, cell = bad[0]
            raise UserError(f"the voltage of {POPULATIONS[population]} cell {cell} is not finite at {time_ms:.2f} ms")
        if status != reference.OK:
            raise UserError(
                f"a cell fires faster than the plant can follow at {time_ms:.2f} ms "
                f"(more than 512 events in {KERNEL_SPAN_MS:.0f} ms): check the stimulation rate (2 to 185 Hz)"
            )

    def samples(self, duration_ms: float) -> int:
        """A duration as whole samples, rounded half away from zero."""
        return round_half_up(duration_ms / self.dt_ms)

    def get_state(self) -> dict[str, Any]:
        """Everything that makes this plant, as plain arrays and numbers."""
        return {"dt_ms": self.dt_ms, "network": dict(self.network._asdict()), "state": self.state.to_dict()}

    @classmethod
    def from_state(cls, values: dict[str, Any]) -> Plant:
        """The plant that `get_state` saved; it continues bit for bit.

        Raises:
            UserError: a field is missing or has another shape.
        """
        try:
            plant = cls(Network(**values["network"]), float(values["dt_ms"]))
            plant.state = State.from_dict(values["state"])
        except (KeyError, TypeError) as error:
            raise UserError(f"the saved plant lacks the field {error}") from error
        return plant
