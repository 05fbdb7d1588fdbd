"""Thalamus: Hodgkin-Huxley-like relay cell with a T-type current (Rubin & Terman 2004, as in Kumaravelu et al. 2016).

V in mV, t in ms, currents in µA/cm², conductances in mS/cm², C_m = 1 µF/cm².
"""

from __future__ import annotations

import math

from envs.jit import rate
from envs.plant.common import sigma

G_L, E_L = 0.05, -70.0  # mS/cm², mV, leak, Kumaravelu 2016
G_NA, E_NA = 3.0, 50.0  # mS/cm², mV, fast sodium, Kumaravelu 2016
G_K, E_K = 5.0, -75.0  # mS/cm², mV, delayed rectifier, Kumaravelu 2016
G_T, E_T = 5.0, 0.0  # mS/cm², mV, T-type current; reversal 0 as released, not a calcium potential


@rate
def m_inf(V: float) -> float:  # 1
    return sigma(-(V + 37.0) / 7.0)


@rate
def p_inf(V: float) -> float:  # 1
    return sigma(-(V + 60.0) / 6.2)


@rate
def h_inf(V: float) -> float:  # 1
    return sigma((V + 41.0) / 4.0)


@rate
def tau_h(V: float) -> float:  # ms
    return 1.0 / (0.128 * math.exp(-(V + 46.0) / 18.0) + 4.0 * sigma(-(V + 23.0) / 5.0))


@rate
def r_inf(V: float) -> float:  # 1
    return sigma((V + 84.0) / 4.0)


@rate
def tau_r(V: float) -> float:  # ms
    return 0.15 * (28.0 + math.exp(-(V + 25.0) / 10.5))


@rate
def ionic_current(V: float, h: float, r: float) -> float:  # µA/cm², outward positive
    I_L = G_L * (V - E_L)
    m = m_inf(V)
    I_Na = G_NA * (m * m * m) * h * (V - E_NA)
    n = 0.75 * (1.0 - h)
    I_K = G_K * (n * n * n * n) * (V - E_K)
    p = p_inf(V)
    I_T = G_T * (p * p) * r * (V - E_T)
    return I_L + I_K + I_Na + I_T
