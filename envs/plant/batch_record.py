"""A block's record sorted into one `Record` a network; compiled, for at slots of a few ms it outweighed the plant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.jit import kernel
from envs.plant import batch_kernel as bk
from envs.plant.common import CI
from envs.plant.network import Record

KINDS = 4  # events, GPi spikes, relay spikes, LFP
Ints = NDArray[np.int64]


@kernel
def _count(raw: Ints, lanes: int) -> Ints:
    """Where each kind of each lane ends, (KINDS, lanes + 1) from 0, in the order of lanes."""
    ends = np.zeros((KINDS, lanes + 1), dtype=np.int64)
    for row in range(len(raw)):
        kind = raw[row, 1]
        if kind >= bk.LFP:
            ends[3, kind - bk.LFP + 1] += 1
        else:
            which = 0 if kind <= CI else (1 if kind == bk.GPI_SPIKE else 2)
            ends[which, raw[row, 2] % lanes + 1] += 1
    for which in range(KINDS):
        for lane in range(lanes):
            ends[which, lane + 1] += ends[which, lane]
    return ends


@kernel
def _sort(raw: Ints, origins: Ints, ends: Ints, events: Ints, gpi: Ints, relay: Ints, at: Ints, lfp: Ints) -> None:
    """Fill the arrays of each kind, lane after lane, in the order of the record."""
    lanes = len(origins)
    place = ends[:, :-1].copy()
    for row in range(len(raw)):
        sample, kind, cell = raw[row]
        if kind >= bk.LFP:
            lane = kind - bk.LFP
            at[place[3, lane]] = sample + origins[lane]
            lfp[place[3, lane]] = cell
            place[3, lane] += 1
            continue
        lane = cell % lanes
        if kind <= CI:
            to = place[0, lane]
            events[to, 0], events[to, 1], events[to, 2] = sample + origins[lane], kind, cell // lanes
            place[0, lane] += 1
            continue
        which = 1 if kind == bk.GPI_SPIKE else 2
        target = gpi if which == 1 else relay
        to = place[which, lane]
        target[to, 0], target[to, 1] = sample + origins[lane], cell // lanes
        place[which, lane] += 1


def split(raw: Ints, origins: Ints, used: int) -> list[Record]:
    """The records of the first ``used`` lanes of a block.

    Args:
        raw: the block's record, (m, 3): sample, kind (LFP: 16 + lane), cell · lanes + lane (LFP: the value's bits).
        origins: of each lane (lanes,), the sample of its own clock at the block's sample 0.
        used: lanes that hold a network.
    """
    lanes = len(origins)
    ends = _count(raw, lanes)
    n_events, n_gpi, n_relay, n_lfp = (int(n) for n in ends[:, -1])
    events, gpi, relay = (np.empty(s, np.int64) for s in ((n_events, 3), (n_gpi, 2), (n_relay, 2)))
    at, bits = np.empty(n_lfp, np.int64), np.empty(n_lfp, np.int64)
    _sort(raw, origins, ends, events, gpi, relay, at, bits)
    lfp, (e, g, r, v) = bits.view(np.float64), ends.tolist()
    return [
        Record(
            events[e[k] : e[k + 1]],
            gpi[g[k] : g[k + 1]],
            at[v[k] : v[k + 1]],
            lfp[v[k] : v[k + 1]],
            relay[r[k] : r[k + 1]],
        )
        for k in range(used)
    ]
