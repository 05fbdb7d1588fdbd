"""Many networks on the batch kernel; `envs.plant.single` has one of them, as a drop-in for `Plant`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.plant import batch_kernel as bk
from envs.plant import batch_layout as lay
from envs.plant import pallidum
from envs.plant.batch_block import (
    LOG_PER_LANE,
    Block,
    LaneState,
    Switches,
    Wiring,
    fullest_lanes,
    lane_from_state,
    new_block,
    new_wiring,
    put_lane,
    row_size,
    take_lane,
    wire_lane,
)
from envs.plant.batch_record import split
from envs.plant.batch_vector import vector_width
from envs.plant.common import N_CELLS, N_POPULATIONS, POPULATIONS
from envs.plant.inputs import round_half_up
from envs.plant.network import Record, check_dt, common_dt
from envs.plant.ranges import check_count, check_network
from envs.plant.state import Network, State, initial_state
from envs.plant.synapses import KERNEL_SPAN_MS

LANES = 8  # networks of a block: one block's state stays in the first-level cache
PRECISIONS = ("float64", "float32")
LFP_STEP_MS = 1.0  # ms between two values of the LFP proxy, as envs.biomarkers.lfp
CHECK_MS = 1.0  # ms between two looks for non-finite voltages

_KERNELS: dict[tuple[int, int, int, bool], Callable[..., int]] = {}
_BUILDING = threading.Lock()


class Failure(NamedTuple):
    """Why a network stopped: a voltage that is not finite, or a population that fires more than can be logged."""

    network: int
    population: str
    cell: int | None  # None: the population as a whole fires too fast
    time_ms: float  # first sample at which it is so

    def __str__(self) -> str:
        if self.cell is None:
            return (
                f"the {self.population} cells of network {self.network} fire faster than the plant can follow at "
                f"{self.time_ms:.2f} ms (more than {LOG_PER_LANE} events in {KERNEL_SPAN_MS:.0f} ms): check the "
                "stimulation rate (2 to 185 Hz)"
            )
        return (
            f"the voltage of {self.population} cell {self.cell} of network {self.network} "
            f"is not finite at {self.time_ms:.2f} ms"
        )


class NetworkFailedError(UserError):
    """Some networks of a batch failed; the others were advanced to the end.

    ``failures`` names them by network, ``records`` holds what happened in every network.
    """

    def __init__(self, failures: dict[int, Failure], records: list[Record]) -> None:
        super().__init__("; ".join(str(failure) for failure in failures.values()))
        self.failures, self.records = failures, records


@contextmanager
def _announced() -> Iterator[None]:
    """Say on stderr what takes so long, if it does."""
    text = "sea-dbs: preparing the plant kernel (compiled once after an installation, about 15 s; then from the cache)"
    timer = threading.Timer(2.0, lambda: print(text, file=sys.stderr, flush=True))  # noqa: T201
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _kernel(lanes: int, size: int, width: int, relay: bool = False) -> Callable[..., int]:
    key = (lanes, size, width, relay)
    with _BUILDING:  # environments are made and reset in threads; building parses sources and sets numba's cache folder
        if key not in _KERNELS:
            _KERNELS[key] = bk.make_advance(lanes, size, width, LOG_PER_LANE * lanes, relay)
        return _KERNELS[key]


class BatchPlant:
    """B independent cortex-basal ganglia-thalamus networks (Kumaravelu et al. 2016), advanced together.

    Each has its own draws, parameters and inputs, and is untouched by its neighbours: its trajectory is the same bit
    for bit in any lane of any batch. float64 gives the spikes of the scalar reference kernel, float32 its statistics.

    Args:
        networks: what each network is.
        dt_ms: step of forward Euler (ms), common to all; or what each network asks for, refused when they differ.
        precision: "float64" or "float32".
        threads: blocks of 8 networks advanced at the same time.
        stn_gain: share of the stimulation current that reaches each STN cell, shape (B, 10); None: all of it.
        relay: record the thalamic spikes of the error index too (`Record.th_spikes`), by a kernel of its own.

    Raises:
        UserError: mixed dt; dt, precision or a parameter of a network out of range; no network.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        dt_ms: float | Sequence[float] = 0.02,
        precision: str = "float64",
        threads: int = 1,
        stn_gain: NDArray[np.float64] | None = None,
        relay: bool = False,
    ) -> None:
        if not isinstance(dt_ms, int | float):
            dt_ms = common_dt(dt_ms)
        self._allocate(len(networks), dt_ms, precision, threads, LANES, relay)
        for i, network in enumerate(networks):
            self.put(i, network, gain=None if stn_gain is None else stn_gain[i])

    def _allocate(self, n: int, dt_ms: float, precision: str, threads: int, lanes: int, relay: bool) -> None:
        check_dt(dt_ms)
        if precision not in PRECISIONS:
            raise UserError(f"the plant precision is '{precision}': allowed are {' and '.join(PRECISIONS)}")
        if n < 1:
            raise UserError(f"a batch of {n} networks: at least 1 is needed")
        check_count(threads, "threads of a batch")
        self.dt_ms, self.precision, self.threads, self._lanes = dt_ms, precision, threads, lanes
        self.relay = relay
        self._dtype = np.dtype(precision)
        width = vector_width(self._dtype)
        size = row_size(lanes, width)
        self._advance_block = _kernel(lanes, size, width, relay)
        self._decays = lay.decays(dt_ms)
        n_blocks = -(-n // lanes)
        self._blocks = [new_block(lanes, size, self._dtype) for _ in range(n_blocks)]
        self._wirings = [new_wiring(dt_ms, size, self._dtype) for _ in range(n_blocks)]
        self.networks: list[Network | None] = [None] * n
        self._origin = np.zeros(n, dtype=np.int64)  # a network's sample minus its block's
        self._current = np.zeros((n, 2))  # the applied currents as they stand: th, stn (µA/cm²)
        self._check = max(1, round(CHECK_MS / dt_ms))
        self._lfp_every = round(LFP_STEP_MS / dt_ms)
        no_ints = np.zeros(0, dtype=np.int64)
        none = Switches(no_ints, no_ints, no_ints, np.zeros(0))
        with _announced():
            self._advance_block(self._blocks[0], self._wirings[0], none, self._decays, 0, self._check, self._lfp_every)

    def __len__(self) -> int:
        return len(self.networks)

    # -- networks ------------------------------------------------------------------------------------------------------

    def _place(self, i: int) -> tuple[Block, Wiring, int]:
        if not 0 <= i < len(self.networks):
            raise UserError(f"there is no network {i} in a batch of {len(self.networks)}")
        return self._blocks[i // self._lanes], self._wirings[i // self._lanes], i % self._lanes

    def put(
        self,
        i: int,
        network: Network,
        state: LaneState | State | None = None,
        gain: NDArray[np.float64] | None = None,
    ) -> None:
        """Put a network in place ``i``, at its initial state or at a given one; the others go on undisturbed.

        The state of the scalar kernel is accepted too: it continues spike for spike.
        """
        check_network(network, f"network {i}" if len(self.networks) > 1 else "the network")
        if state is None:
            state = initial_state(network)
        if isinstance(state, State):
            state = lane_from_state(state, network, self.dt_ms, gain)
        block, wiring, lane = self._place(i)
        wire_lane(wiring, network, lane, self._lanes)
        self._origin[i] = put_lane(block, wiring, lane, self._lanes, state)
        rows = state.rows
        self._current[i] = 0.0
        for j, row in enumerate(("i_th", "i_stn")):
            gains = rows[lay.ROW["gain" + row[1:]]]
            k = int(np.argmax(np.abs(gains)))
            if gains[k]:
                self._current[i, j] = rows[lay.ROW[row], k] / gains[k]
        self.networks[i] = network

    def take(self, i: int) -> LaneState:
        """A copy of where network ``i`` stands."""
        block, _, lane = self._place(i)
        return take_lane(block, lane, self._lanes, int(self._origin[i]), self.dt_ms)

    def sample_of(self, i: int) -> int:
        """Index of the current sample of a network; time is sample × dt."""
        block, _, _ = self._place(i)
        return int(block.I[bk.SAMPLE] + self._origin[i])

    def rows(self, i: int, name: str, count: int = 1) -> NDArray[Any]:
        """A writable view of ``count`` rows of `batch_layout.ROW` of one network, shape (count, 10)."""
        block, _, lane = self._place(i)
        first = lay.ROW[name]
        cells = block.S.reshape(lay.N_ROWS, -1)[first : first + count, : N_CELLS * self._lanes]
        return cells[:, lane :: self._lanes]

    @property
    def V(self) -> NDArray[Any]:
        """Voltages (mV), shape (B, 8, 10); a copy."""
        return np.stack([self.rows(i, "V0", N_POPULATIONS) for i in range(len(self.networks))])

    def gpi_h_inf(self, i: int) -> NDArray[np.float64]:
        """h∞ of the GPi at the last update's old voltage, shape (10,)."""
        return np.array([pallidum.h_inf(float(v)) for v in self.rows(i, "old_gpi")[0]])

    def reload_gpi_h(self, i: int) -> None:
        """What the released code does between steps: the h gate of GPi is overwritten by that h∞."""
        self.rows(i, f"gpi{pallidum.H}")[0] = self.gpi_h_inf(i)

    # -- time ----------------------------------------------------------------------------------------------------------

    def samples(self, duration_ms: float) -> int:
        """A duration as whole samples, rounded half away from zero."""
        return round_half_up(duration_ms / self.dt_ms)

    def advance(self, smc: NDArray[np.float64], dbs: NDArray[np.float64]) -> list[Record]:
        """Advance every network by n updates.

        Args:
            smc: input into all thalamic cells at each new sample (µA/cm²), shape (B, n), or (n,) for all alike.
            dbs: stimulation into the STN cells at each new sample (µA/cm²), the same shapes.

        Returns:
            What happened in each network, sample indices on the network's own clock.

        Raises:
            UserError: shapes differ, an input is not finite.
            NetworkFailedError: voltages are not finite, or a population fires faster than the plant can follow; the
                other networks were advanced.
        """
        B = len(self.networks)
        smc, dbs = (np.broadcast_to(x, (B, x.shape[-1])) if x.ndim == 1 else x for x in (smc, dbs))
        if smc.ndim != 2 or smc.shape != dbs.shape or len(smc) != B:
            raise UserError(f"plant inputs have shapes {smc.shape} and {dbs.shape}: both must be ({B}, n)")
        if not (np.isfinite(smc).all() and np.isfinite(dbs).all()):
            raise UserError(
                f"a plant input is not finite (smc: {np.isfinite(smc).all()}, dbs: {np.isfinite(dbs).all()})"
            )
        n = smc.shape[1]
        jobs = []
        for b, block in enumerate(self._blocks):
            members = slice(b * self._lanes, (b + 1) * self._lanes)
            currents = np.stack([smc[members], dbs[members]], axis=1)  # (lanes, 2, n)
            jobs.append((b, _switches(currents, self._current[members], int(block.I[bk.SAMPLE]))))
            if n:
                self._current[members] = currents[:, :, -1]
        if self.threads == 1 or len(jobs) == 1:
            done = [self._run(b, switches, n) for b, switches in jobs]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                done = list(pool.map(lambda job: self._run(job[0], job[1], n), jobs))
        records: list[Record] = []
        failures: dict[int, Failure] = {}
        for b, (raw, failed) in enumerate(done):
            first = b * self._lanes
            used = min(self._lanes, B - first)
            origins = np.zeros(self._lanes, np.int64)
            origins[:used] = self._origin[first : first + used]
            records += split(raw, origins, used)
            failures.update(failed)
        if failures:
            raise NetworkFailedError(failures, records)
        return records

    def _run(self, b: int, switches: Switches, n: int) -> tuple[NDArray[np.int64], dict[int, Failure]]:
        """Advance one block; its raw record (m, 3) and the networks that failed."""
        block, wiring = self._blocks[b], self._wirings[b]
        start = int(block.I[bk.SAMPLE])
        stop = start + n
        block.I[bk.SWITCH] = 0
        block.record[0] = 0
        parts: list[NDArray[np.int64]] = []
        failures: dict[int, Failure] = {}
        while True:
            status = self._advance_block(block, wiring, switches, self._decays, stop, self._check, self._lfp_every)
            parts.append(block.record[1 : 1 + block.record[0]].reshape(-1, 3).copy())
            block.record[0] = 0
            if status == bk.OK:
                return parts[0] if len(parts) == 1 else np.concatenate(parts), failures
            if status == bk.RECORD_FULL:
                if len(block.record) < 1 << 20:
                    block = self._blocks[b] = block._replace(record=np.zeros(4 * len(block.record), dtype=np.int64))
                continue
            if status == bk.EVENTS_FULL:
                failed = self._stop_fullest(b)
            else:
                # what is not finite before the first update was written by others: no snapshot leads there
                failed = self._replayed(b, switches) if block.I[bk.SAMPLE] > start else {}
                failed |= self._not_finite(b, block)
            if not failed:
                raise RuntimeError(f"internal error: the plant kernel stopped (status {status}), but no network failed")
            failures = failed | failures  # what came first stands

    def _not_finite(self, b: int, seen: Block) -> dict[int, Failure]:
        """The watched networks that have a non-finite voltage in a block (or its replay); they are watched no more."""
        block = self._blocks[b]
        voltages = seen.S.reshape(lay.N_ROWS, -1)[:N_POPULATIONS, : N_CELLS * self._lanes]
        failures: dict[int, Failure] = {}
        for population, entry in np.argwhere(~np.isfinite(voltages)):
            lane = int(entry) % self._lanes
            if block.alive[lane]:
                i = b * self._lanes + lane
                time_ms = float((seen.I[bk.SAMPLE] + self._origin[i]) * self.dt_ms)
                failures[i] = Failure(i, POPULATIONS[population], int(entry) // self._lanes, time_ms)
                block.alive[lane] = False
        return failures

    def _replayed(self, b: int, switches: Switches) -> dict[int, Failure]:
        """Replay from the last snapshot, update by update, to find what became non-finite first."""
        block, wiring = self._blocks[b], self._wirings[b]
        replay = new_block(self._lanes, len(block.S) // lay.N_ROWS, self._dtype)
        replay.S[:], replay.I[:], replay.log[:] = block.S_before, block.I_before, block.log
        failures = self._not_finite(b, replay)
        while replay.I[bk.SAMPLE] < block.I[bk.SAMPLE]:
            replay.record[0] = 0
            stop = int(replay.I[bk.SAMPLE]) + 1
            self._advance_block(replay, wiring, switches, self._decays, stop, self._check, self._lfp_every)
            failures |= self._not_finite(b, replay)
        return failures

    def _stop_fullest(self, b: int) -> dict[int, Failure]:
        """Silence the network that fills the event log, and take its events out: the others keep all of theirs."""
        block, wiring = self._blocks[b], self._wirings[b]
        failures: dict[int, Failure] = {}
        for source, lane in fullest_lanes(block, self._lanes):
            i = b * self._lanes + lane
            if i in failures:
                continue
            state = self.take(i)
            failures[i] = Failure(i, POPULATIONS[source], None, state.sample * self.dt_ms)
            state.rows[:N_POPULATIONS] = np.nan  # as a network whose voltages diverged: it fires no more
            put_lane(block, wiring, lane, self._lanes, state._replace(events=state.events[:0]))
            block.alive[lane] = False
        return failures

    # -- saving --------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Everything that makes this batch, as plain arrays and numbers."""
        return {
            "dt_ms": self.dt_ms,
            "precision": self.precision,
            "networks": [saved_lane(network, self.take(i)) for i, network in enumerate(self.networks)],
        }

    @classmethod
    def from_state(cls, values: dict[str, Any], threads: int = 1, relay: bool = False) -> BatchPlant:
        """The batch that `get_state` saved; it continues bit for bit.

        Raises:
            UserError: a field is missing or has another shape.
        """
        plant = cls.__new__(cls)
        try:
            n, dt_ms = len(values["networks"]), float(values["dt_ms"])
            plant._allocate(n, dt_ms, values["precision"], threads, LANES, relay)
            for i, saved in enumerate(values["networks"]):
                plant.put(i, *restored_lane(saved, plant._dtype))
        except (KeyError, TypeError) as error:
            raise UserError(f"the saved plant lacks the field {error}") from error
        return plant


def saved_lane(network: Network | None, lane: LaneState) -> dict[str, Any]:
    assert network is not None
    return {"network": dict(network._asdict()), "state": dict(lane._asdict())}


def restored_lane(saved: dict[str, Any], dtype: np.dtype[Any]) -> tuple[Network, LaneState]:
    network = Network(**saved["network"])
    rows = np.array(saved["state"]["rows"], dtype=dtype)
    events = np.array(saved["state"]["events"], dtype=np.int64).reshape(-1, 3)
    if rows.shape != (lay.N_ROWS, N_CELLS):
        raise UserError(f"the saved plant's rows have shape {rows.shape}, expected {(lay.N_ROWS, N_CELLS)}")
    return network, LaneState(rows, events, int(saved["state"]["sample"]))


def _switches(currents: NDArray[np.float64], before: NDArray[np.float64], sample: int) -> Switches:
    """Per-sample currents (lanes, 2, n) as changes against the currents as they stand (lanes, 2)."""
    changed = np.empty(currents.shape, dtype=np.bool_)
    changed[:, :, 1:] = currents[:, :, 1:] != currents[:, :, :-1]
    changed[:, :, :1] = currents[:, :, :1] != before[:, :, None]
    lane, row, at = np.nonzero(changed)
    order = np.argsort(at, kind="stable")
    lane, row, at = lane[order], row[order], at[order]
    return Switches(at + sample + 1, row + lay.ROW["i_th"], lane.astype(np.int64), currents[lane, row, at])
