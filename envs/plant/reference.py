"""The scalar reference kernel: one network, forward Euler, written as the equations are.

It is the yardstick: literal (event lists, sampled kernels summed oldest first, strict arithmetic) rather than fast.
Order of an update from sample s-1 to s: all currents and rates from the old state; voltages and gates; the continuous
synapses; events. No nucleus sees another's new value.
"""

from __future__ import annotations

import numpy as np

from envs.jit import kernel, rate
from envs.plant import cortex, pallidum, stn, striatum, synapses, thalamus
from envs.plant.common import (
    CE,
    CI,
    D1,
    D2,
    EVENT_THRESHOLD_MV,
    GPE,
    GPI,
    GPI_SPIKE_THRESHOLD_MV,
    N_CELLS,
    N_POPULATIONS,
    STN,
    TH,
)
from envs.plant.state import EVENT_SLOTS, Array, Ints, Network, State

OK, EVENTS_FULL, RECORD_FULL = 0, 1, 2  # what `advance` reports


@rate
def _sum_kernels(S: Array, tables: Array, dt: float, event: Ints, first: Ints, count: Ints, s: int) -> None:
    """S[kernel, cell] = Σ K(age) over the events that the source cell had up to sample s, oldest first."""
    span = tables.shape[1]
    fast_span = round(synapses.FAST_SPAN_MS / dt)
    S[:, :] = 0.0
    for source in range(7):
        for k in range(N_CELLS):
            while count[source, k] > 0 and s - event[source, k, first[source, k]] >= span:
                first[source, k] = (first[source, k] + 1) & (EVENT_SLOTS - 1)
                count[source, k] -= 1
            for i in range(count[source, k]):
                age = s - event[source, k, (first[source, k] + i) & (EVENT_SLOTS - 1)]
                if source == STN:
                    S[synapses.S2AN, k] += tables[synapses.S2AN, age]
                elif source == CE:
                    S[synapses.S6BN, k] += tables[synapses.S6BN, age]
                if age >= fast_span:
                    continue
                if source == TH:
                    S[synapses.S7, k] += tables[synapses.S7, age]
                elif source == STN:
                    S[synapses.S2A, k] += tables[synapses.S2A, age]
                    S[synapses.S2B, k] += tables[synapses.S2B, age]
                elif source == GPE:
                    S[synapses.S3A, k] += tables[synapses.S3A, age]
                    S[synapses.S3B, k] += tables[synapses.S3B, age]
                    S[synapses.S3C, k] += tables[synapses.S3C, age]
                elif source == GPI:
                    S[synapses.S4, k] += tables[synapses.S4, age]
                elif source == D2:
                    S[synapses.S5, k] += tables[synapses.S5, age]
                elif source == D1:
                    S[synapses.S9, k] += tables[synapses.S9, age]
                else:
                    S[synapses.S6A, k] += tables[synapses.S6A, age]
                    S[synapses.S6B, k] += tables[synapses.S6B, age]


@rate
def _thalamus(k: int, V: float, gates: Array, I_in: float, dt: float) -> float:
    h, r = gates[0, k], gates[1, k]
    I_ion = thalamus.ionic_current(V, h, r)
    gates[0, k] = h + dt * (thalamus.h_inf(V) - h) / thalamus.tau_h(V)
    gates[1, k] = r + dt * (thalamus.r_inf(V) - r) / thalamus.tau_r(V)
    V_new: float = V + dt * (-I_ion + I_in)
    return V_new


@rate
def _stn(k: int, V: float, g: Array, calcium: Array, I_in: float, dt: float) -> float:
    n, m, h, a, b, c = g[stn.N, k], g[stn.M, k], g[stn.H, k], g[stn.A, k], g[stn.B, k], g[stn.C, k]
    d1, d2, p, q, r = g[stn.DD1, k], g[stn.DD2, k], g[stn.P, k], g[stn.Q, k], g[stn.R, k]
    Ca = calcium[k]
    E_Ca = stn.calcium_reversal(Ca)
    I_Na = stn.G_NA * (m * m * m) * h * (V - stn.E_NA)
    I_K = stn.G_K * (n * n * n * n) * (V - stn.E_K)
    I_A = stn.G_A * (a * a) * b * (V - stn.E_K)
    I_leak = stn.G_LEAK * (V - stn.E_LEAK)
    I_L = stn.G_L * (c * c) * d1 * d2 * (V - E_Ca)
    I_T = stn.G_T * (p * p) * q * (V - E_Ca)
    I_CaK = stn.G_CAK * (r * r) * (V - stn.E_K)
    g[stn.N, k] = n + dt * (stn.n_inf(V) - n) / stn.tau_n(V)
    g[stn.M, k] = m + dt * (stn.m_inf(V) - m) / stn.tau_m(V)
    g[stn.H, k] = h + dt * (stn.h_inf(V) - h) / stn.tau_h(V)
    g[stn.A, k] = a + dt * (stn.a_inf(V) - a) / stn.tau_a(V)
    g[stn.B, k] = b + dt * (stn.b_inf(V) - b) / stn.tau_b(V)
    g[stn.C, k] = c + dt * (stn.c_inf(V) - c) / stn.tau_c(V)
    g[stn.DD1, k] = d1 + dt * (stn.d1_inf(V) - d1) / stn.tau_d1(V)
    g[stn.DD2, k] = d2 + dt * (stn.d2_inf(V) - d2) / stn.TAU_D2
    g[stn.P, k] = p + dt * (stn.p_inf(V) - p) / stn.tau_p(V)
    g[stn.Q, k] = q + dt * (stn.q_inf(V) - q) / stn.tau_q(V)
    g[stn.R, k] = r + dt * (stn.r_inf(V) - r) / stn.TAU_R
    calcium[k] = Ca + dt * (-stn.CA_INFLUX * (I_L + I_T) - stn.CA_DECAY * Ca)
    V_new: float = V + dt * (-I_Na - I_K - I_A - I_L - I_T - I_CaK - I_leak + I_in)
    return V_new


@rate
def _pallidum(k: int, V: float, g: Array, calcium: Array, I_in: float, dt: float) -> float:
    n, h, r, Ca = g[pallidum.N, k], g[pallidum.H, k], g[pallidum.R, k], calcium[k]
    m, a, s = pallidum.m_inf(V), pallidum.a_inf(V), pallidum.s_inf(V)
    I_leak = pallidum.G_L * (V - pallidum.E_L)
    I_K = pallidum.G_K * (n * n * n * n) * (V - pallidum.E_K)
    I_Na = pallidum.G_NA * (m * m * m) * h * (V - pallidum.E_NA)
    I_T = pallidum.G_T * (a * a * a) * r * (V - pallidum.E_CA)
    I_Ca = pallidum.G_CA * (s * s) * (V - pallidum.E_CA)
    I_AHP = pallidum.G_AHP * (V - pallidum.E_K) * (Ca / (Ca + pallidum.K_AHP))
    tau = pallidum.tau_nh(V)
    g[pallidum.N, k] = n + dt * (pallidum.PHI_N * (pallidum.n_inf(V) - n) / tau)
    g[pallidum.H, k] = h + dt * (pallidum.PHI_H * (pallidum.h_inf(V) - h) / tau)
    g[pallidum.R, k] = r + dt * ((pallidum.r_inf(V) - r) / pallidum.TAU_R)
    calcium[k] = Ca + dt * (pallidum.CA_RATE * (-I_Ca - I_T - pallidum.CA_PUMP * Ca))
    V_new: float = V + dt * (-I_leak - I_K - I_Na - I_T - I_Ca - I_AHP + I_in + pallidum.I_APPLIED)
    return V_new


@rate
def _striatum(k: int, V: float, g: Array, g_m: float, I_in: float, dt: float) -> float:
    m, h, n, p = g[striatum.M, k], g[striatum.H, k], g[striatum.N, k], g[striatum.P, k]
    I_Na = striatum.G_NA * (m * m * m) * h * (V - striatum.E_NA)
    I_K = striatum.G_K * (n * n * n * n) * (V - striatum.E_K)
    I_leak = striatum.G_L * (V - striatum.E_L)
    I_M = g_m * p * (V - striatum.E_M)
    g[striatum.M, k] = m + dt * (striatum.alpha_m(V) * (1.0 - m) - striatum.beta_m(V) * m)
    g[striatum.H, k] = h + dt * (striatum.alpha_h(V) * (1.0 - h) - striatum.beta_h(V) * h)
    g[striatum.N, k] = n + dt * (striatum.alpha_n(V) * (1.0 - n) - striatum.beta_n(V) * n)
    g[striatum.P, k] = p + dt * (striatum.alpha_p(V) * (1.0 - p) - striatum.beta_p(V) * p)
    V_new: float = V + dt * (-I_Na - I_K - I_leak - I_M + I_in)
    return V_new


@rate
def _cortex(k: int, v: float, u: Array, a: float, d: float, I_in: float, dt: float) -> float:
    """One Izhikevich cell; the reset comes one update after the peak and discards the Euler value of u."""
    u_old = u[k]
    if v >= cortex.V_PEAK:
        u[k] = u_old + d
        return cortex.V_RESET
    u[k] = u_old + dt * (a * (cortex.B_REC * v - u_old))
    return v + dt * (cortex.dv(v, u_old) + I_in)


@rate
def _currents(I: Array, V: Array, S: Array, gaba: Array, ctx: Array, net: Network, smc: float, dbs: float) -> None:  # noqa: E741
    """Synaptic and applied currents into every cell (µA/cm², inward positive), from the old state."""
    all_d2 = 0.0
    all_d1 = 0.0
    for k in range(N_CELLS):
        all_d2 += S[synapses.S5, k]
        all_d1 += S[synapses.S9, k]
    perm = net.perm
    for k in range(N_CELLS):
        k1, km1, km2 = (k + 1) % N_CELLS, (k + N_CELLS - 1) % N_CELLS, (k + N_CELLS - 2) % N_CELLS
        I[TH, k] = -synapses.G_GPI_TH * (V[TH, k] - synapses.E_GABA) * S[synapses.S4, k] + smc

        v = V[STN, k]
        I_gpe = synapses.G_GPE_STN * (v - synapses.E_GABA) * (S[synapses.S3A, k] + S[synapses.S3A, k1])
        I_ampa = net.g_ctx_stn_ampa[k] * v * (S[synapses.S6B, k] + S[synapses.S6B, k1])
        I_nmda = net.g_ctx_stn_nmda[k] * v * (S[synapses.S6BN, k] + S[synapses.S6BN, k1])
        I[STN, k] = -I_gpe - I_ampa - I_nmda + dbs

        v = V[GPE, k]
        I_ampa = net.g_stn_gpe_ampa[k] * v * (S[synapses.S2A, k] + S[synapses.S2A, km1])
        I_nmda = net.g_stn_gpe_nmda[k] * v * (S[synapses.S2AN, k] + S[synapses.S2AN, km1])
        within = S[synapses.S3C, k1] + S[synapses.S3C, km2]
        I_gpe = net.g_gpe_gpe_factor * net.g_gpe_gpe[k] * (v - synapses.E_GABA) * within
        I_d2 = synapses.G_D2_GPE * (v - synapses.E_GABA) * all_d2
        I[GPE, k] = -I_ampa - I_nmda - I_gpe - I_d2

        v = V[GPI, k]
        I_stn = net.g_stn_gpi[k] * v * (S[synapses.S2B, k] + S[synapses.S2B, km1])
        I_gpe = synapses.G_GPE_GPI * (v - synapses.E_GABA) * (S[synapses.S3B, k1] + S[synapses.S3B, km2])
        I_d1 = synapses.G_D1_GPI * (v - synapses.E_GABA) * all_d1
        I[GPI, k] = -I_stn - I_gpe - I_d1

        d2_in = gaba[0, perm[0, k]] + gaba[0, perm[1, k]] + gaba[0, perm[2, k]] + gaba[0, perm[3, k]]
        d1_in = gaba[1, perm[12, k]] + gaba[1, perm[13, k]] + gaba[1, perm[14, k]]
        v = V[D2, k]
        I[D2, k] = -synapses.G_D2_D2 * (v - synapses.E_GABA_STR) * d2_in - synapses.G_CE_D2 * v * S[synapses.S6A, k]
        v = V[D1, k]
        I[D1, k] = -synapses.G_D1_D1 * (v - synapses.E_GABA_STR) * d1_in - net.g_ctx_d1[k] * v * S[synapses.S6A, k]

        ci_in = ctx[2, perm[4, k]] + ctx[2, perm[5, k]] + ctx[2, perm[6, k]] + ctx[2, perm[7, k]]
        ce_in = ctx[0, perm[8, k]] + ctx[0, perm[9, k]] + ctx[0, perm[10, k]] + ctx[0, perm[11, k]]
        v = V[CE, k]
        I[CE, k] = -synapses.G_CI_CE * (v - synapses.E_GABA) * ci_in - synapses.G_TH_CE * v * S[synapses.S7, k]
        I[CI, k] = -synapses.G_CE_CI * V[CI, k] * ce_in


@rate
def _continuous_synapses(old: Array, V: Array, gaba: Array, ctx: Array, dt: float) -> None:
    """Striatal GABA gates from the old voltage; intracortical alpha synapses kicked on the upward crossing."""
    for k in range(N_CELLS):
        for row, population in ((0, D2), (1, D1)):
            s = gaba[row, k]
            opening = synapses.gaba_opening(old[population, k])
            gaba[row, k] = s + dt * (opening * (1.0 - s) - s / synapses.TAU_GABA_STR)
        for row, population in ((0, CE), (2, CI)):
            crossed = old[population, k] < EVENT_THRESHOLD_MV and V[population, k] > EVENT_THRESHOLD_MV
            kick = synapses.CTX_KICK / dt if crossed else 0.0
            z = ctx[row + 1, k]
            ctx[row, k] += dt * z
            decay = (2.0 / synapses.TAU_CTX) * z + (1.0 / (synapses.TAU_CTX * synapses.TAU_CTX)) * ctx[row, k]
            ctx[row + 1, k] = z + dt * (kick - decay)


@kernel
def advance(
    state: State,
    net: Network,
    tables: Array,
    dt: float,
    smc: Array,
    dbs: Array,
    events: Ints,
    gpi_spikes: Ints,
    counts: Ints,
) -> int:
    """Advance a network by len(smc) updates, in place.

    Args:
        state: where the network stands; changed in place.
        net: the network.
        tables: kernels of `envs.plant.synapses.kernel_tables`, shape (13, span).
        dt: step (ms).
        smc: sensorimotor input into all thalamic cells at each new sample (µA/cm²), shape (n,).
        dbs: stimulation current into all STN cells at each new sample (µA/cm²), shape (n,).
        events: record (m, 3): sample, population, cell of each event; filled from counts[0].
        gpi_spikes: record (m, 2): sample before the -20 mV crossing, cell; filled from counts[1].
        counts: (2,) rows used of the two records.

    Returns:
        OK, EVENTS_FULL (a cell had more than EVENT_SLOTS events in a second) or RECORD_FULL.
    """
    V = state.V
    old = np.empty_like(V)
    I = np.empty_like(V)  # noqa: E741
    S = np.empty((synapses.N_KERNELS, N_CELLS))
    for i in range(smc.shape[0]):
        s = state.sample[0] + 1
        _sum_kernels(S, tables, dt, state.event, state.event_first, state.event_count, s - 1)
        old[:, :] = V
        _currents(I, old, S, state.gaba, state.ctx, net, smc[i], dbs[i])
        for k in range(N_CELLS):
            V[TH, k] = _thalamus(k, old[TH, k], state.th, I[TH, k], dt)
            V[STN, k] = _stn(k, old[STN, k], state.stn, state.stn_ca, I[STN, k], dt)
            V[GPE, k] = _pallidum(k, old[GPE, k], state.gpe, state.gpe_ca, I[GPE, k], dt)
            state.gpi_h_inf[k] = pallidum.h_inf(old[GPI, k])
            V[GPI, k] = _pallidum(k, old[GPI, k], state.gpi, state.gpi_ca, I[GPI, k], dt)
            V[D2, k] = _striatum(k, old[D2, k], state.d2, net.g_m, I[D2, k], dt)
            V[D1, k] = _striatum(k, old[D1, k], state.d1, net.g_m, I[D1, k], dt)
            V[CE, k] = _cortex(k, old[CE, k], state.u[0], cortex.A_EXC, cortex.D_EXC, I[CE, k], dt)
            V[CI, k] = _cortex(k, old[CI, k], state.u[1], cortex.A_INH, cortex.D_INH, I[CI, k], dt)
        _continuous_synapses(old, V, state.gaba, state.ctx, dt)
        for population in range(N_POPULATIONS):
            for k in range(N_CELLS):
                if population >= CE:
                    fired = old[population, k] >= cortex.V_PEAK
                else:
                    fired = old[population, k] < EVENT_THRESHOLD_MV and V[population, k] > EVENT_THRESHOLD_MV
                if fired:
                    if counts[0] == events.shape[0]:
                        return RECORD_FULL
                    events[counts[0], 0], events[counts[0], 1], events[counts[0], 2] = s, population, k
                    counts[0] += 1
                    if population != CI:
                        n = state.event_count[population, k]
                        if n == EVENT_SLOTS:
                            return EVENTS_FULL
                        state.event[population, k, (state.event_first[population, k] + n) % EVENT_SLOTS] = s
                        state.event_count[population, k] = n + 1
        for k in range(N_CELLS):
            if old[GPI, k] <= GPI_SPIKE_THRESHOLD_MV and V[GPI, k] > GPI_SPIKE_THRESHOLD_MV:
                if counts[1] == gpi_spikes.shape[0]:
                    return RECORD_FULL
                gpi_spikes[counts[1], 0], gpi_spikes[counts[1], 1] = s - 1, k
                counts[1] += 1
        state.sample[0] = s
    return OK
