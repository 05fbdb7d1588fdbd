"""A block of networks as arrays: build it, put a network into a lane, take a lane out."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.plant import batch_kernel as bk
from envs.plant import batch_layout as lay
from envs.plant import pallidum
from envs.plant import synapses as syn
from envs.plant.common import N_CELLS, N_POPULATIONS, POPULATIONS
from envs.plant.state import EVENT_SLOTS, Network, State

Floats = NDArray[Any]
Ints = NDArray[np.int64]

N_SOURCES = 7
LOG_PER_LANE = 4096  # events (a power of two) of one source population that a lane can log: 1000 ms at 400 Hz a cell
ALIGNMENT = 64  # bytes, of a cache line and of the widest vector


class Block(NamedTuple):
    """State and work space of one block of networks."""

    S: Floats  # (rows × size,) everything that moves
    I: Ints  # noqa: E741  # (n,) sample, event counters
    log: Ints  # (7 × capacity × 2,) per source a ring of (sample, entry)
    alive: NDArray[np.bool_]  # (lanes,) whose voltages are watched
    origin: Ints  # (lanes,) a network's own sample minus the block's
    record: Ints  # [0]: numbers used; then triples sample, kind, entry
    S_bits: NDArray[Any]  # S as integers
    exponent: Any  # the bits that are all set in a number that is not finite
    S_before: Floats
    I_before: Ints
    pending: Ints
    increment: Floats


class Wiring(NamedTuple):
    """What does not move: weights, targets, ages of arrival."""

    weight: Floats  # (ports × size,) at the targets
    reach: Ints  # (4, 4, size) targets of CE (in CI), CI (in CE), D2, D1 cells
    age: Ints  # (connections,) samples from event to arrival
    first_age: Ints  # (7,) the least of a source
    first_port: Ints  # (connections + 1,)
    row_a: Ints  # (ports,)
    row_b: Ints
    add_a: NDArray[np.float64]
    add_b: NDArray[np.float64]
    n_targets: Ints  # (ports,)
    offset: Ints  # (ports, 10) target minus source, 0..9


class Switches(NamedTuple):
    """Applied currents: at the new ``sample`` the current of ``row`` in ``lane`` becomes ``value``; in order."""

    sample: Ints
    row: Ints
    lane: Ints
    value: NDArray[np.float64]


class LaneState(NamedTuple):
    """Where one network stands, outside of any block; it continues bit for bit in any lane."""

    rows: Floats  # (rows, 10) of `batch_layout.ROW`
    events: Ints  # (m, 3) source, sample, cell: events of the last 1000 ms in order
    sample: int


def aligned(n: int, dtype: Any) -> NDArray[Any]:
    """Zeros on a cache line."""
    size = np.dtype(dtype).itemsize
    raw = np.zeros(n * size + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + n * size].view(dtype)


def row_size(lanes: int, width: int) -> int:
    """Entries of a row: cells × lanes, padded to whole vectors."""
    return math.ceil(N_CELLS * lanes / width) * width


def new_block(lanes: int, size: int, dtype: Any, sample: int = 0) -> Block:
    """An empty block; lanes are filled by `put_lane`."""
    S = aligned(lay.N_ROWS * size, dtype)
    S[: N_POPULATIONS * size] = np.nan  # an empty lane never fires
    bits = np.int64 if S.itemsize == 8 else np.int32
    exponent = np.array(np.inf, dtype=dtype).view(bits)[()]
    counters = np.zeros(bk.N_INTEGERS, dtype=np.int64)
    counters[bk.SAMPLE], counters[bk.NEXT_DUE] = sample, bk.NEVER
    return Block(
        S=S,
        I=counters,
        log=np.zeros(N_SOURCES * LOG_PER_LANE * lanes * 2, dtype=np.int64),
        alive=np.zeros(lanes, dtype=np.bool_),
        origin=np.zeros(lanes, dtype=np.int64),
        record=np.zeros(3 * bk.N_KINDS * size * 4 + 1, dtype=np.int64),
        S_bits=S.view(bits),
        exponent=exponent,
        S_before=np.zeros_like(S),
        I_before=counters.copy(),
        pending=np.zeros(3 * bk.N_KINDS * size + 1, dtype=np.int64),
        increment=aligned(2 * size, dtype),
    )


def new_wiring(dt_ms: float, size: int, dtype: Any) -> Wiring:
    """Wiring without weights; `wire_lane` fills them in."""
    age = np.array([lay.arrival_age(c, dt_ms) for c in lay.CONNECTIONS], dtype=np.int64)
    first_age = np.full(N_SOURCES, bk.NEVER, dtype=np.int64)
    for connection, a in zip(lay.CONNECTIONS, age, strict=True):
        first_age[connection.source] = min(first_age[connection.source], a)
    adds = []
    offset = np.zeros((lay.N_PORTS, N_CELLS), dtype=np.int64)
    n_targets = np.zeros(lay.N_PORTS, dtype=np.int64)
    for i, (c, port) in enumerate(lay.PORTS):
        sign = -1.0 if lay.CONNECTIONS[c].end else 1.0
        adds.append([sign * part for part in lay.filter_state(syn.KERNELS[port.kernel], int(age[c]), dt_ms)])
        offsets = range(N_CELLS) if port.offsets is None else [o % N_CELLS for o in port.offsets]
        n_targets[i] = len(offsets)
        offset[i, : len(offsets)] = list(offsets)
    classes = [c for c, _ in lay.PORTS]
    return Wiring(
        weight=np.zeros(lay.N_PORTS * size, dtype=dtype),
        reach=np.zeros((4, 4, size), dtype=np.int64) + np.arange(size),
        age=age,
        first_age=first_age,
        first_port=np.searchsorted(classes, np.arange(lay.N_CONNECTIONS + 1)).astype(np.int64),
        row_a=np.array([lay.ROW[port.rows[0]] for _, port in lay.PORTS], dtype=np.int64),
        row_b=np.array([lay.ROW[port.rows[1]] for _, port in lay.PORTS], dtype=np.int64),
        add_a=np.array([a for a, _ in adds]),
        add_b=np.array([b for _, b in adds]),
        n_targets=n_targets,
        offset=offset,
    )


def wire_lane(wiring: Wiring, network: Network, lane: int, lanes: int) -> None:
    """Put a network's weights and wiring into a lane."""
    entries = np.arange(N_CELLS) * lanes + lane
    conductance = lay.weights(network)
    weight = wiring.weight.reshape(lay.N_PORTS, -1)
    for i, (_, port) in enumerate(lay.PORTS):
        weight[i, entries] = conductance[port.weight]
    # rows of perm are sources by target: e-h CI->CE, i-l CE->CI, a-d D2->D2, m-o D1->D1
    for i, rows in enumerate((range(8, 12), range(4, 8), range(4), range(12, 15))):
        for q, row in enumerate(rows):
            wiring.reach[i, q, entries] = np.argsort(network.perm[row]) * lanes + lane


def lane_from_state(state: State, network: Network, dt_ms: float, gain: Floats | None = None) -> LaneState:
    """A network's scalar state as a lane: its event lists become filters."""
    rows = np.zeros((lay.N_ROWS, N_CELLS))
    rows[lay.ROW["V0"] : lay.ROW["V0"] + N_POPULATIONS] = state.V
    for name, values in (("th", state.th), ("stn", state.stn), ("gpe", state.gpe), ("gpi", state.gpi)):
        rows[lay.ROW[f"{name}0"] : lay.ROW[f"{name}0"] + len(values)] = values
    for name, values in (("d2", state.d2), ("d1", state.d1), ("u", state.u), ("gaba", state.gaba)):
        rows[lay.ROW[f"{name}0"] : lay.ROW[f"{name}0"] + len(values)] = values
    rows[lay.ROW["stn_ca"]], rows[lay.ROW["gpe_ca"]], rows[lay.ROW["gpi_ca"]] = state.stn_ca, state.gpe_ca, state.gpi_ca
    rows[lay.ROW["g_m"]] = network.g_m
    rows[lay.ROW["gain_th"]] = 1.0
    rows[lay.ROW["gain_stn"]] = 1.0 if gain is None else gain
    h = state.gpi_h_inf  # h∞ = σ((V + 58)/12): back to the voltage that it was taken at
    rows[lay.ROW["old_gpi"]] = _voltage_of_h_inf(h)
    perm = network.perm
    rows[lay.ROW["in_d2"]] = state.gaba[0][perm[0:4]].sum(axis=0)
    rows[lay.ROW["in_d1"]] = state.gaba[1][perm[12:15]].sum(axis=0)
    for target, s_row, sources in (("ce", 2, perm[4:8]), ("ci", 0, perm[8:12])):
        rows[lay.ROW[f"{target}_s"]] = state.ctx[s_row][sources].sum(axis=0)
        rows[lay.ROW[f"{target}_z"]] = state.ctx[s_row + 1][sources].sum(axis=0)
    events = _events_of(state)
    _fill_filters(rows, events, network, int(state.sample[0]), dt_ms)
    return LaneState(rows, events, int(state.sample[0]))


def _voltage_of_h_inf(h: Floats) -> Floats:
    """V with pallidum.h_inf(V) = h, by bisection on the readable function."""
    low, high = np.full(h.shape, -400.0), np.full(h.shape, 400.0)
    for _ in range(80):
        middle = 0.5 * (low + high)
        above = np.array([pallidum.h_inf(v) for v in middle]) < h  # h∞ falls with V
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.asarray(0.5 * (low + high))


def _events_of(state: State) -> Ints:
    found = [
        (int(state.event[source, k, (state.event_first[source, k] + i) % EVENT_SLOTS]), source, k)
        for source in range(N_SOURCES)
        for k in range(N_CELLS)
        for i in range(state.event_count[source, k])
    ]
    return np.array([(source, s, k) for s, source, k in sorted(found)], dtype=np.int64).reshape(-1, 3)


def _fill_filters(rows: Floats, events: Ints, network: Network, sample: int, dt_ms: float) -> None:
    """Filters at a sample: the state before that sample's arrivals, which the kernel serves first."""
    conductance = lay.weights(network)
    for connection in lay.CONNECTIONS:
        age_in = lay.arrival_age(connection, dt_ms)
        if connection.end:
            continue
        for source, s, k in events:
            age = sample - s
            if source != connection.source or age <= age_in or age > syn.kernel_span(dt_ms):
                continue
            for port in connection.ports:
                a, b = lay.filter_state(syn.KERNELS[port.kernel], int(age), dt_ms)
                offsets = range(N_CELLS) if port.offsets is None else port.offsets
                for o in offsets:
                    target = (k + o) % N_CELLS
                    rows[lay.ROW[port.rows[0]], target] += conductance[port.weight][target] * a
                    rows[lay.ROW[port.rows[1]], target] += conductance[port.weight][target] * b


def put_lane(block: Block, wiring: Wiring, lane: int, lanes: int, state: LaneState) -> int:
    """Put a network into a lane of a block; other lanes are not touched. Returns its sample minus the block's."""
    entries = np.arange(N_CELLS) * lanes + lane
    S = block.S.reshape(lay.N_ROWS, -1)
    S[:, entries] = state.rows
    block.alive[lane] = True
    now = int(block.I[bk.SAMPLE])
    shift = now - state.sample
    capacity = len(block.log) // (2 * N_SOURCES)
    span = int(wiring.age.max()) + 2  # what nothing reads any more makes room
    for source in range(N_SOURCES):
        kept = log_entries(block, source, span)
        kept = kept[kept[:, 1] % lanes != lane]
        new = state.events[state.events[:, 0] == source]
        added = np.stack([new[:, 1] + shift, new[:, 2] * lanes + lane], axis=1)
        merged = np.concatenate([kept, added])
        merged = merged[np.lexsort((merged[:, 1], merged[:, 0]))]
        if len(merged) > capacity - N_CELLS * lanes:  # the room that an update may need
            raise UserError(
                f"a network brings {len(new)} events of {POPULATIONS[source]} cells to {len(kept)} of its neighbours: "
                f"at most {capacity - N_CELLS * lanes} together are held"
            )
        ring = block.log.reshape(N_SOURCES, capacity, 2)
        ring[source, : len(merged)] = merged
        block.I[bk.HEAD + source] = len(merged)
        for c, connection in enumerate(lay.CONNECTIONS):
            if connection.source == source:
                served = merged[:, 0] + wiring.age[c] < now
                block.I[bk.TAIL + c] = int(served.sum())
    block.I[bk.NEXT_DUE] = block.I[bk.LFP_DUE] = now
    block.origin[lane] = -shift
    return -shift


def fullest_lanes(block: Block, lanes: int) -> list[tuple[int, int]]:
    """Source and lane to blame for each log without room for another update: the lane with most events in it."""
    capacity = len(block.log) // (2 * N_SOURCES)
    blamed = []
    for source in range(N_SOURCES):
        tails = [int(block.I[bk.TAIL + c]) for c, each in enumerate(lay.CONNECTIONS) if each.source == source]
        waiting = int(block.I[bk.HEAD + source]) - min(tails)
        if waiting > capacity - N_CELLS * lanes:
            entries = log_entries(block, source)[-waiting:, 1]
            blamed.append((source, int(np.bincount(entries % lanes, minlength=lanes).argmax())))
    return blamed


def log_entries(block: Block, source: int, span: int | None = None) -> Ints:
    """What the log of a source still holds, oldest first: (m, 2) sample, entry."""
    capacity = len(block.log) // (2 * N_SOURCES)
    ring = block.log.reshape(N_SOURCES, capacity, 2)
    head = int(block.I[bk.HEAD + source])
    order = np.arange(max(0, head - capacity), head) % capacity
    entries: Ints = ring[source, order]
    if span is not None:
        entries = entries[entries[:, 0] > int(block.I[bk.SAMPLE]) - span]
    return entries


def take_lane(block: Block, lane: int, lanes: int, shift: int, dt_ms: float) -> LaneState:
    """A copy of a lane; ``shift`` is its sample minus the block's."""
    entries = np.arange(N_CELLS) * lanes + lane
    rows = block.S.reshape(lay.N_ROWS, -1)[:, entries].copy()
    span = syn.kernel_span(dt_ms) + 2
    events = []
    for source in range(N_SOURCES):
        log = log_entries(block, source, span)
        log = log[log[:, 1] % lanes == lane]
        events.append(np.stack([np.full(len(log), source), log[:, 0] + shift, log[:, 1] // lanes], axis=1))
    return LaneState(rows, np.concatenate(events).astype(np.int64), int(block.I[bk.SAMPLE]) + shift)
