"""Striatal medium spiny neurons, D2 (indirect pathway) and D1 (direct): McCarthy et al. 2011, as in Kumaravelu et
al. 2016.

V in mV, t in ms, currents in µA/cm², conductances in mS/cm², C_m = 1 µF/cm², rates in 1/ms.
"""

from __future__ import annotations

import math

from envs.jit import rate
from envs.plant.common import linoid, sigma

G_NA, E_NA = 100.0, 50.0  # mS/cm², mV, fast sodium, Kumaravelu 2016
G_K, E_K = 80.0, -100.0  # mS/cm², mV, delayed rectifier, Kumaravelu 2016
G_L, E_L = 0.1, -67.0  # mS/cm², mV, leak, Kumaravelu 2016
E_M = -100.0  # mV, M-type potassium (conductance in NetworkParameters), Kumaravelu 2016

N_GATES = 4
M, H, N, P = range(N_GATES)  # rows of the gate array


@rate
def alpha_m(V: float) -> float:  # 1/ms
    return 0.32 * linoid(V + 54.0, 4.0)


@rate
def beta_m(V: float) -> float:  # 1/ms; x/(e^{x/5}-1) = linoid(-x, 5)
    return 0.28 * linoid(-(V + 27.0), 5.0)


@rate
def alpha_h(V: float) -> float:  # 1/ms
    return 0.128 * math.exp(-(V + 50.0) / 18.0)


@rate
def beta_h(V: float) -> float:  # 1/ms
    return 4.0 * sigma(-(V + 27.0) / 5.0)


@rate
def alpha_n(V: float) -> float:  # 1/ms
    return 0.032 * linoid(V + 52.0, 5.0)


@rate
def beta_n(V: float) -> float:  # 1/ms
    return 0.5 * math.exp(-(V + 57.0) / 40.0)


@rate
def alpha_p(V: float) -> float:  # 1/ms
    return 3.209e-4 * linoid(V + 30.0, 9.0)


@rate
def beta_p(V: float) -> float:  # 1/ms
    return 3.209e-4 * linoid(-(V + 30.0), 9.0)
