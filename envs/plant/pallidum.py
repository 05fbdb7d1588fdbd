"""Globus pallidus, external and internal: one intrinsic model (Rubin & Terman 2004, as in Kumaravelu et al. 2016).

V in mV, t in ms, currents in µA/cm², conductances in mS/cm², C_m = 1 µF/cm².
"""

from __future__ import annotations

from envs.jit import rate
from envs.plant.common import sigma

G_L, E_L = 0.1, -65.0  # mS/cm², mV, leak, Kumaravelu 2016
G_K, E_K = 30.0, -80.0  # mS/cm², mV, delayed rectifier, Kumaravelu 2016
G_NA, E_NA = 120.0, 55.0  # mS/cm², mV, fast sodium, Kumaravelu 2016
G_T, E_CA = 0.5, 120.0  # mS/cm², mV, T-type calcium, Kumaravelu 2016
G_CA = 0.15  # mS/cm², high-threshold calcium, Kumaravelu 2016
G_AHP = 10.0  # mS/cm², calcium-activated potassium, Kumaravelu 2016
K_AHP = 10.0  # half-activation of the AHP in units of calcium, Kumaravelu 2016
CA_RATE = 1e-4  # calcium per µA/cm² and ms, Kumaravelu 2016
CA_PUMP = 15.0  # calcium pump, Kumaravelu 2016
CA_START = 0.1  # initial calcium, Kumaravelu 2016
TAU_R = 30.0  # ms, T-type inactivation, Kumaravelu 2016
PHI_N = 0.1  # 1, rate factor of n, Kumaravelu 2016
PHI_H = 0.05  # 1, rate factor of h, Kumaravelu 2016
I_APPLIED = 3.0  # µA/cm², constant drive of GPe and GPi, Kumaravelu 2016

N_GATES = 3
N, H, R = range(N_GATES)  # rows of the gate array


@rate
def m_inf(V: float) -> float:  # 1
    return sigma(-(V + 37.0) / 10.0)


@rate
def n_inf(V: float) -> float:  # 1
    return sigma(-(V + 50.0) / 14.0)


@rate
def h_inf(V: float) -> float:  # 1
    return sigma((V + 58.0) / 12.0)


@rate
def a_inf(V: float) -> float:  # 1
    return sigma(-(V + 57.0) / 2.0)


@rate
def r_inf(V: float) -> float:  # 1
    return sigma((V + 70.0) / 2.0)


@rate
def s_inf(V: float) -> float:  # 1
    return sigma(-(V + 35.0) / 2.0)


@rate
def tau_nh(V: float) -> float:  # ms, of both n and h
    return 0.05 + 0.27 * sigma((V + 40.0) / 12.0)
