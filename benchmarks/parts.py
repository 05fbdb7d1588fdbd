"""What each part of the fast kernel costs: the part alone, repeated on one state.

The parts are the kernel's own functions. What the whole costs beyond their sum is the rest: arrivals, event log,
records, switches, looks for non-finite voltages, and what parts cost each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from envs.plant import batch_kernel as bk
from envs.plant import synapses
from envs.plant.batch import BatchPlant
from envs.plant.batch_layout import decays
from envs.plant.batch_vector import vector_rate, vector_width
from envs.plant.common import D1, D2


@vector_rate
def _filters(S: Any, size: int, width: int, c: Any) -> None:
    """All synaptic filters, which the kernel reads and decays inside the nuclei."""
    for x in range(0, size, width):
        bk._alpha(S, bk.GPI_TH, size, x, c.alpha)
        bk._alpha(S, bk.TH_CE, size, x, c.alpha)
        bk._alpha(S, bk.GPE_INH, size, x, c.alpha)
        bk._alpha(S, bk.GPI_INH, size, x, c.alpha)
        bk._alpha(S, bk.GPI_EXC, size, x, c.alpha)
        bk._alpha(S, bk.D2_EXC, size, x, c.alpha)
        bk._alpha(S, bk.D1_EXC, size, x, c.alpha)
        bk._biexp(S, bk.GPE_AMPA, size, x, c.gpe_ampa_d, c.gpe_ampa_r)
        bk._biexp(S, bk.GPE_NMDA, size, x, c.gpe_nmda_d, c.gpe_nmda_r)
        bk._biexp(S, bk.STN_INH, size, x, c.stn_inh_d, c.stn_inh_r)
        bk._biexp(S, bk.STN_AMPA, size, x, c.stn_ampa_d, c.stn_ampa_r)
        bk._biexp(S, bk.STN_NMDA, size, x, c.stn_nmda_d, c.stn_nmda_r)


def _repeat(part: str, size: int, width: int) -> Callable[..., None]:
    G2, G1 = synapses.G_D2_D2, synapses.G_D1_D1

    @vector_rate
    def both_striata(S: Any, c: Any, pending: Any, increment: Any) -> None:
        bk._striatum(
            S, size, width, c, pending, D2, bk.D20, bk.D2_EXC, bk.GABA0, bk.IN_D2, G2, bk.D2_OPENING, increment
        )
        bk._striatum(
            S, size, width, c, pending, D1, bk.D10, bk.D1_EXC, bk.GABA0 + 1, bk.IN_D1, G1, bk.D1_OPENING, increment
        )

    nucleus = {"thalamus": bk._thalamus, "STN": bk._stn, "GPe": bk._gpe, "GPi": bk._gpi, "cortex": bk._cortex}.get(part)
    if part == "striatum":

        def run(S: Any, c: Any, pending: Any, increment: Any, n: int) -> None:
            for _ in range(n):
                both_striata(S, c, pending, increment)
                pending[0] = 0
    elif part == "synaptic filters":

        def run(S: Any, c: Any, pending: Any, increment: Any, n: int) -> None:
            for _ in range(n):
                _filters(S, size, width, c)
                pending[0] = 0
    else:

        def run(S: Any, c: Any, pending: Any, increment: Any, n: int) -> None:
            for _ in range(n):
                nucleus(S, size, width, c, pending)
                pending[0] = 0

    compiled: Callable[..., None] = numba.njit(nogil=True, error_model="numpy")(run)
    return compiled


PARTS = ("thalamus", "STN", "GPe", "GPi", "striatum", "cortex", "synaptic filters")


def costs(plant: BatchPlant, updates: int = 20_000, repeats: int = 5) -> dict[str, float]:
    """CPU ns a network and update of each part, on the state of a full block of a plant."""
    block = plant._blocks[0]
    size = len(block.S) // len(bk.ROW)
    lanes, c = len(block.alive), decays(plant.dt_ms)
    result = {}
    for part in PARTS:
        run = _repeat(part, size, vector_width(block.S.dtype))
        best = float("inf")
        for _ in range(repeats + 1):  # the first one compiles
            S, pending, increment = block.S.copy(), block.pending.copy(), block.increment.copy()
            start = time.process_time()
            run(S, c, pending, increment, updates)
            best = min(best, time.process_time() - start)
            assert np.isfinite(S[: 8 * size]).any()
        result[part] = best / updates / lanes * 1e9
    return result
