"""Where everything of a block of networks lies: rows of one flat array, connection classes, event ports.

A block holds ``lanes`` networks. Its state is one flat array of rows; a row holds one variable of one population, entry
cell × lanes + lane, padded to whole vectors. A connection is all synapses of one source population with one delay; a
port is where it arrives: two rows (the recursion of its kernel) on the target population.

Kernels are recursions, exact on the samples: alpha, K = c x e^{-x/τ}: (S, y) ← ρ (S + y, y), an event adds c dt to y;
double exponential: two decays (rise and decay), an event adds to both, S is their difference. The weight is folded into
the event, so kernels of one τ and one reversal potential share a filter, and neighbour sums vanish from the inner loop.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.plant import synapses as syn
from envs.plant.common import CE, D1, D2, GPE, GPI, N_CELLS, STN, TH
from envs.plant.state import Network

_ROWS = (
    *(f"V{p}" for p in range(8)),
    *(f"th{i}" for i in range(2)),
    *(f"stn{i}" for i in range(11)),
    "stn_ca",
    *(f"gpe{i}" for i in range(3)),
    "gpe_ca",
    *(f"gpi{i}" for i in range(3)),
    "gpi_ca",
    *(f"d2{i}" for i in range(4)),
    *(f"d1{i}" for i in range(4)),
    "u0",
    "u1",
    *("gaba0", "gaba1"),  # S1c of each D2 cell, S8 of each D1 cell
    *("in_d2", "in_d1"),  # their sums at the targets
    *("ce_s", "ce_z", "ci_s", "ci_z"),  # intracortical S and Z, summed at the target
    # filters at the targets: (S, y) of alpha functions, (decay, rise) of double exponentials
    *("gpi_th_s", "gpi_th_y"),
    *("th_ce_s", "th_ce_y"),
    *("gpe_inh_s", "gpe_inh_y"),  # from GPe and D2
    *("gpi_inh_s", "gpi_inh_y"),  # from GPe and D1
    *("gpi_exc_s", "gpi_exc_y"),  # from STN
    *("d2_exc_s", "d2_exc_y"),
    *("d1_exc_s", "d1_exc_y"),
    *("gpe_ampa_d", "gpe_ampa_r"),
    *("gpe_nmda_d", "gpe_nmda_r"),
    *("stn_inh_d", "stn_inh_r"),
    *("stn_ampa_d", "stn_ampa_r"),
    *("stn_nmda_d", "stn_nmda_r"),
    "i_th",  # applied currents (µA/cm²), as they stand
    "i_stn",
    "gain_th",  # share of the lane's current that reaches a cell
    "gain_stn",
    "g_m",  # mS/cm², striatal M conductance
    "old_gpi",  # V of GPi at the sample before
)
ROW = {name: i for i, name in enumerate(_ROWS)}
N_ROWS = len(_ROWS)
FILTERS = tuple(name for name in _ROWS if name[-2:] in ("_s", "_y", "_d", "_r"))
assert len(ROW) == N_ROWS


class Port(NamedTuple):
    """Where one kernel arrives: target rows, target cells relative to the source (None: all), kernel, weight."""

    kernel: int  # index into synapses.KERNELS
    rows: tuple[str, str]
    offsets: tuple[int, ...] | None
    weight: str  # key of `weights`


class Connection(NamedTuple):
    """All synapses of one source with one delay (or the end of their kernels)."""

    source: int
    ports: tuple[Port, ...]
    end: bool = False  # the kernels end here, at age 1000 ms


# Offsets: target minus source. "Target k hears k+1" means that source j reaches j-1.
CONNECTIONS = (
    Connection(TH, (Port(syn.S7, ("th_ce_s", "th_ce_y"), (0,), "th_ce"),)),
    Connection(
        STN,
        (
            Port(syn.S2A, ("gpe_ampa_d", "gpe_ampa_r"), (0, 1), "stn_gpe_ampa"),
            Port(syn.S2AN, ("gpe_nmda_d", "gpe_nmda_r"), (0, 1), "stn_gpe_nmda"),
        ),
    ),
    Connection(STN, (Port(syn.S2B, ("gpi_exc_s", "gpi_exc_y"), (0, 1), "stn_gpi"),)),
    Connection(GPE, (Port(syn.S3A, ("stn_inh_d", "stn_inh_r"), (0, -1), "gpe_stn"),)),
    Connection(GPE, (Port(syn.S3B, ("gpi_inh_s", "gpi_inh_y"), (-1, 2), "gpe_gpi"),)),
    Connection(GPE, (Port(syn.S3C, ("gpe_inh_s", "gpe_inh_y"), (-1, 2), "gpe_gpe"),)),
    Connection(GPI, (Port(syn.S4, ("gpi_th_s", "gpi_th_y"), (0,), "gpi_th"),)),
    Connection(D2, (Port(syn.S5, ("gpe_inh_s", "gpe_inh_y"), None, "d2_gpe"),)),
    Connection(D1, (Port(syn.S9, ("gpi_inh_s", "gpi_inh_y"), None, "d1_gpi"),)),
    Connection(
        CE,
        (
            Port(syn.S6A, ("d2_exc_s", "d2_exc_y"), (0,), "ce_d2"),
            Port(syn.S6A, ("d1_exc_s", "d1_exc_y"), (0,), "ce_d1"),
        ),
    ),
    Connection(
        CE,
        (
            Port(syn.S6B, ("stn_ampa_d", "stn_ampa_r"), (0, -1), "ce_stn_ampa"),
            Port(syn.S6BN, ("stn_nmda_d", "stn_nmda_r"), (0, -1), "ce_stn_nmda"),
        ),
    ),
    Connection(STN, (Port(syn.S2AN, ("gpe_nmda_d", "gpe_nmda_r"), (0, 1), "stn_gpe_nmda"),), end=True),
    Connection(CE, (Port(syn.S6BN, ("stn_nmda_d", "stn_nmda_r"), (0, -1), "ce_stn_nmda"),), end=True),
)
PORTS = tuple((c, port) for c, connection in enumerate(CONNECTIONS) for port in connection.ports)
N_CONNECTIONS, N_PORTS = len(CONNECTIONS), len(PORTS)


def weights(network: Network) -> dict[str, NDArray[np.float64]]:
    """Conductance at each target cell (mS/cm² per unit S), by name of a port's weight; shapes (10,)."""
    ones = np.ones(N_CELLS)
    return {
        "th_ce": syn.G_TH_CE * ones,
        "stn_gpe_ampa": network.g_stn_gpe_ampa,
        "stn_gpe_nmda": network.g_stn_gpe_nmda,
        "stn_gpi": network.g_stn_gpi,
        "gpe_stn": syn.G_GPE_STN * ones,
        "gpe_gpi": syn.G_GPE_GPI * ones,
        "gpe_gpe": network.g_gpe_gpe_factor * network.g_gpe_gpe,
        "gpi_th": syn.G_GPI_TH * ones,
        "d2_gpe": syn.G_D2_GPE * ones,
        "d1_gpi": syn.G_D1_GPI * ones,
        "ce_d2": syn.G_CE_D2 * ones,
        "ce_d1": network.g_ctx_d1,
        "ce_stn_ampa": network.g_ctx_stn_ampa,
        "ce_stn_nmda": network.g_ctx_stn_nmda,
    }


def delay_samples(kernel: syn.Kernel, dt_ms: float) -> int:
    """First sample of age at which the kernel acts."""
    return math.ceil(kernel.delay_ms / dt_ms - 1e-9)


def arrival_age(connection: Connection, dt_ms: float) -> int:
    """Age of an event (samples) at which a connection is served."""
    if connection.end:
        return syn.kernel_span(dt_ms)
    return delay_samples(syn.KERNELS[connection.ports[0].kernel], dt_ms)


def filter_state(kernel: syn.Kernel, age: int, dt_ms: float) -> tuple[float, float]:
    """What one event of weight 1 contributes to a filter's two rows at an age (samples) past its delay."""
    x = max(age * dt_ms - kernel.delay_ms, 0.0)
    if kernel.tau_rise_ms == 0.0:
        c = kernel.g / (kernel.tau_decay_ms * math.exp(-1.0))
        e = math.exp(-x / kernel.tau_decay_ms)
        return c * x * e, c * dt_ms * e
    decay, rise = kernel.tau_decay_ms, kernel.tau_rise_ms
    x_peak = decay * rise / (decay - rise) * math.log(decay / rise)
    f = kernel.g / (math.exp(-x_peak / decay) - math.exp(-x_peak / rise))
    return f * math.exp(-x / decay), f * math.exp(-x / rise)


class Decay(NamedTuple):
    """Factors a step, and the step itself (ms)."""

    dt: float
    alpha: float  # of all alpha functions: one τ
    gpe_ampa_d: float
    gpe_ampa_r: float
    gpe_nmda_d: float
    gpe_nmda_r: float
    stn_inh_d: float
    stn_inh_r: float
    stn_ampa_d: float
    stn_ampa_r: float
    stn_nmda_d: float
    stn_nmda_r: float
    gaba: float


def decays(dt_ms: float) -> Decay:
    """Decay factors of all filters for one step."""
    taus = {k.tau_decay_ms for k in syn.KERNELS if k.tau_rise_ms == 0.0}
    assert len(taus) == 1, "alpha kernels share filters, so they share τ"

    factors = {"dt": dt_ms, "alpha": math.exp(-dt_ms / taus.pop()), "gaba": 1.0 - dt_ms / syn.TAU_GABA_STR}
    for _, port in PORTS:
        kernel = syn.KERNELS[port.kernel]
        if kernel.tau_rise_ms > 0.0:
            factors[port.rows[0]] = math.exp(-dt_ms / kernel.tau_decay_ms)
            factors[port.rows[1]] = math.exp(-dt_ms / kernel.tau_rise_ms)
    return Decay(**factors)
