"""The plant as explicit values: what a network is (draws, parameters) and where it stands (state)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.jit import kernel
from envs.plant import cortex, pallidum, stn, striatum, thalamus
from envs.plant.common import CE, CI, D1, D2, GPE, GPI, N_CELLS, N_POPULATIONS, STN, TH

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

EVENT_SLOTS = 512  # events (a power of two) that a cell can hold of the last 1000 ms; the fastest follows 185 Hz

N_PERMUTATIONS = 15  # a..o: a-d D2->D2, e-h CI->CE, i-l CE->CI, m-o D1->D1
SD_V0_MV, MEAN_V0_MV, MEAN_V0_STR_MV = 5.0, -62.0, -63.8  # mV, initial voltages, Kumaravelu 2016


class Network(NamedTuple):
    """One network: every random draw, and the parameters that disease changes. Shapes (10,) unless stated.

    ``pd`` runs from 0 (healthy) to 1 (6-OHDA parkinsonian) and changes three things: striatal M conductance,
    cortical drive of D1, coupling within the GPe (Kumaravelu 2016).
    """

    v0: Array  # (6, 10) mV, initial voltages of th, stn, gpe, gpi, d2, d1
    perm: Ints  # (15, 10) 0-based source cells
    g_ctx_stn_ampa: Array  # mS/cm²
    g_ctx_stn_nmda: Array  # mS/cm²
    g_ctx_d1: Array  # mS/cm²
    g_gpe_gpe: Array  # mS/cm², times g_gpe_gpe_factor
    g_stn_gpe_ampa: Array  # mS/cm²
    g_stn_gpe_nmda: Array  # mS/cm²
    g_stn_gpi: Array  # mS/cm²
    g_m: float  # mS/cm², striatal M-type potassium: 2.6 healthy, 1.5 parkinsonian
    g_gpe_gpe_factor: float  # 0.25 healthy, 1 parkinsonian


class State(NamedTuple):
    """Where a network stands after some sample: everything that the next update reads.

    Copy it, save it, load it: continuing from a copy gives the same trajectory, bit for bit.
    """

    V: Array  # (8, 10) mV
    th: Array  # (2, 10) gates h, r
    stn: Array  # (11, 10) gates, order of envs.plant.stn
    stn_ca: Array  # (10,)
    gpe: Array  # (3, 10) gates n, h, r
    gpe_ca: Array  # (10,)
    gpi: Array  # (3, 10)
    gpi_ca: Array  # (10,)
    gpi_h_inf: Array  # (10,) h∞ at the last update's old voltage; the released code overwrites h by it between steps
    d2: Array  # (4, 10) gates m, h, n, p
    d1: Array  # (4, 10)
    u: Array  # (2, 10) recovery of ce, ci
    gaba: Array  # (2, 10) S1c of d2, S8 of d1
    ctx: Array  # (4, 10) S1a, Z1a of ce; S1b, Z1b of ci
    event: Ints  # (7, 10, EVENT_SLOTS) ring of event samples; sources th, stn, gpe, gpi, d2, d1, ce
    event_first: Ints  # (7, 10) ring position of the oldest event that still acts
    event_count: Ints  # (7, 10)
    sample: Ints  # (1,) index of the sample that this state describes

    def copy(self) -> State:
        """A deep copy."""
        return State.from_dict(self.to_dict())

    def to_dict(self) -> dict[str, NDArray[Any]]:
        """Plain arrays by name, for saving."""
        return {name: np.array(field) for name, field in zip(self._fields, self, strict=True)}

    @classmethod
    def from_dict(cls, values: dict[str, NDArray[Any]]) -> State:
        """The state that `to_dict` saved.

        Raises:
            UserError: a field is missing or has another shape.
        """
        fields: dict[str, Any] = {}
        for name, like in _empty_state()._asdict().items():
            shape = np.shape(values[name]) if name in values else None
            if shape != like.shape:
                raise UserError(f"the plant state's field '{name}' has shape {shape}, expected {like.shape}")
            fields[name] = np.array(values[name], dtype=like.dtype)
        return cls(**fields)


def _empty_state() -> State:
    def floats(*shape: int) -> Array:
        return np.zeros(shape)

    def ints(*shape: int) -> Ints:
        return np.zeros(shape, dtype=np.int64)

    n = N_CELLS
    return State(
        V=floats(N_POPULATIONS, n),
        th=floats(2, n),
        stn=floats(stn.N_GATES, n),
        stn_ca=floats(n),
        gpe=floats(pallidum.N_GATES, n),
        gpe_ca=floats(n),
        gpi=floats(pallidum.N_GATES, n),
        gpi_ca=floats(n),
        gpi_h_inf=floats(n),
        d2=floats(striatum.N_GATES, n),
        d1=floats(striatum.N_GATES, n),
        u=floats(2, n),
        gaba=floats(2, n),
        ctx=floats(4, n),
        event=ints(7, n, EVENT_SLOTS),
        event_first=ints(7, n),
        event_count=ints(7, n),
        sample=ints(1),
    )


def initial_state(network: Network) -> State:
    """Sample 0: drawn voltages, every gate at its steady state, no events, all synapses 0 (Kumaravelu 2016)."""
    state = _empty_state()
    state.V[: len(network.v0)] = network.v0
    state.V[CE] = state.V[CI] = cortex.V_START
    state.u[:] = cortex.U_START
    _steady_gates(state.V, state.th, state.stn, state.gpe, state.gpi, state.d2, state.d1)
    state.gpi_h_inf[:] = state.gpi[pallidum.H]
    state.stn_ca[:] = stn.CA_START
    state.gpe_ca[:] = state.gpi_ca[:] = pallidum.CA_START
    return state


@kernel
def _steady_gates(V: Array, th: Array, s: Array, gpe: Array, gpi: Array, d2: Array, d1: Array) -> None:
    """Every gate at its steady state; one kernel, so that a process starts from the cache."""
    for k in range(N_CELLS):
        th[0, k], th[1, k] = thalamus.h_inf(V[TH, k]), thalamus.r_inf(V[TH, k])
        v = V[STN, k]
        s[stn.N, k], s[stn.M, k], s[stn.H, k], s[stn.A, k] = stn.n_inf(v), stn.m_inf(v), stn.h_inf(v), stn.a_inf(v)
        s[stn.B, k], s[stn.C, k], s[stn.DD1, k], s[stn.DD2, k] = (
            stn.b_inf(v),
            stn.c_inf(v),
            stn.d1_inf(v),
            stn.d2_inf(v),
        )
        s[stn.P, k], s[stn.Q, k], s[stn.R, k] = stn.p_inf(v), stn.q_inf(v), stn.r_inf(v)
        for gates, row in ((gpe, GPE), (gpi, GPI)):
            v = V[row, k]
            gates[pallidum.N, k] = pallidum.n_inf(v)
            gates[pallidum.H, k] = pallidum.h_inf(v)
            gates[pallidum.R, k] = pallidum.r_inf(v)
        for gates, row in ((d2, D2), (d1, D1)):
            v = V[row, k]
            gates[striatum.M, k] = striatum.alpha_m(v) / (striatum.alpha_m(v) + striatum.beta_m(v))
            gates[striatum.H, k] = striatum.alpha_h(v) / (striatum.alpha_h(v) + striatum.beta_h(v))
            gates[striatum.N, k] = striatum.alpha_n(v) / (striatum.alpha_n(v) + striatum.beta_n(v))
            gates[striatum.P, k] = striatum.alpha_p(v) / (striatum.alpha_p(v) + striatum.beta_p(v))


def disease_parameters(pd: float) -> dict[str, float]:
    """The parameters between healthy (pd 0) and parkinsonian (pd 1), Kumaravelu 2016.

    Raises:
        UserError: pd outside 0..1.
    """
    if not 0.0 <= pd <= 1.0:
        raise UserError(f"the disease parameter pd is {pd}: allowed are 0 (healthy) to 1 (parkinsonian)")
    return {"g_m": 2.6 - 1.1 * pd, "g_gpe_gpe_factor": 0.25 * (3.0 * pd + 1.0)}


def ctx_d1_base(pd: float) -> float:
    """The part of the cortical drive of D1 (mS/cm²) that disease changes, Kumaravelu 2016."""
    return 0.07 - 0.044 * pd


def draw_network(rng: np.random.Generator, pd: float = 1.0) -> Network:
    """Draw a network in the order of the released code (after its SMC train): voltages, wiring, conductances.

    Between-network spread is large by design: cortical drive of STN and coupling within GPe scale with U(0,1).
    """
    z = rng.standard_normal((6, N_CELLS))
    means = np.array([MEAN_V0_MV] * 4 + [MEAN_V0_STR_MV] * 2)
    perm = np.stack([rng.permutation(N_CELLS) for _ in range(N_PERMUTATIONS)]).astype(np.int64)
    g_ctx_stn_ampa = 0.3 * rng.random(N_CELLS)  # mS/cm², Kumaravelu 2016
    g_ctx_stn_nmda = 0.003 * rng.random(N_CELLS)  # mS/cm², Kumaravelu 2016
    g_ctx_d1 = ctx_d1_base(pd) + 0.001 * rng.random(N_CELLS)  # mS/cm², Kumaravelu 2016
    g_gpe_gpe = rng.random(N_CELLS)  # mS/cm², Kumaravelu 2016
    strengths = rng.random(2)
    g_stn_gpe_nmda = np.zeros(N_CELLS)
    g_stn_gpe_nmda[rng.choice(N_CELLS, 2, replace=False)] = 0.002 * strengths  # mS/cm², on 2 cells, Kumaravelu 2016
    strengths = rng.random(2)
    g_stn_gpe_ampa = np.zeros(N_CELLS)
    g_stn_gpe_ampa[rng.choice(N_CELLS, 2, replace=False)] = 0.3 * strengths  # mS/cm², on 2 cells, Kumaravelu 2016
    g_stn_gpi = np.zeros(N_CELLS)
    g_stn_gpi[rng.choice(N_CELLS, 5, replace=False)] = 0.15  # mS/cm², on 5 cells, Kumaravelu 2016
    return Network(
        v0=means[:, None] + SD_V0_MV * z,
        perm=perm,
        g_ctx_stn_ampa=g_ctx_stn_ampa,
        g_ctx_stn_nmda=g_ctx_stn_nmda,
        g_ctx_d1=g_ctx_d1,
        g_gpe_gpe=g_gpe_gpe,
        g_stn_gpe_ampa=g_stn_gpe_ampa,
        g_stn_gpe_nmda=g_stn_gpe_nmda,
        g_stn_gpi=g_stn_gpi,
        **disease_parameters(pd),
    )
