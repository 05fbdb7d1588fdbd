"""Subthalamic nucleus: eleven gates and calcium (Otsuka et al. 2004, as in Kumaravelu et al. 2016).

V in mV, t in ms, currents in µA/cm², conductances in mS/cm², C_m = 1 µF/cm², Ca in the model's unit (Nernst
outside: 2000).
"""

from __future__ import annotations

import math

from envs.jit import rate
from envs.plant.common import sigma

G_NA, E_NA = 49.0, 60.0  # mS/cm², mV, fast sodium, Kumaravelu 2016
G_K, E_K = 57.0, -90.0  # mS/cm², mV, delayed rectifier, Kumaravelu 2016
G_A = 5.0  # mS/cm², A-type potassium, Kumaravelu 2016
G_LEAK, E_LEAK = 0.35, -60.0  # mS/cm², mV, leak, Kumaravelu 2016
G_L = 15.0  # mS/cm², L-type calcium, Kumaravelu 2016
G_T = 5.0  # mS/cm², T-type calcium, Kumaravelu 2016
G_CAK = 1.0  # mS/cm², calcium-activated potassium, Kumaravelu 2016
CA_OUT = 2000.0  # outer calcium, Kumaravelu 2016
NERNST_MV = 8314.0 * 298.0 / (2.0 * 96485.0)  # mV, RT/2F at 298 K
CA_INFLUX = 1.0 / (2.0 * 96485.0)  # calcium per µA/cm² and ms, 1/2F
CA_DECAY = 0.002  # 1/ms, calcium pump, Kumaravelu 2016
CA_START = 0.005  # initial calcium, Kumaravelu 2016

N_GATES = 11
N, M, H, A, B, C, DD1, DD2, P, Q, R = range(N_GATES)  # rows of the gate array


@rate
def n_inf(V: float) -> float:  # 1
    return sigma(-(V + 41.0) / 14.0)


@rate
def tau_n(V: float) -> float:  # ms
    return 11.0 / (math.exp((V + 40.0) / 40.0) + math.exp(-(V + 40.0) / 50.0))


@rate
def m_inf(V: float) -> float:  # 1
    return sigma(-(V + 40.0) / 8.0)


@rate
def tau_m(V: float) -> float:  # ms
    return 0.2 + 3.0 * sigma((V + 53.0) / 0.7)


@rate
def h_inf(V: float) -> float:  # 1
    return sigma((V + 45.5) / 6.4)


@rate
def tau_h(V: float) -> float:  # ms
    return 24.5 / (math.exp((V + 50.0) / 15.0) + math.exp(-(V + 50.0) / 16.0))


@rate
def a_inf(V: float) -> float:  # 1
    return sigma(-(V + 45.0) / 14.7)


@rate
def tau_a(V: float) -> float:  # ms
    return 1.0 + sigma((V + 40.0) / 0.5)


@rate
def b_inf(V: float) -> float:  # 1
    return sigma((V + 90.0) / 7.5)


@rate
def tau_b(V: float) -> float:  # ms
    return 200.0 / (math.exp((V + 60.0) / 30.0) + math.exp(-(V + 40.0) / 10.0))


@rate
def c_inf(V: float) -> float:  # 1
    return sigma(-(V + 30.6) / 5.0)


@rate
def tau_c(V: float) -> float:  # ms
    return 45.0 + 10.0 / (math.exp((V + 27.0) / 20.0) + math.exp(-(V + 50.0) / 15.0))


@rate
def d1_inf(V: float) -> float:  # 1
    return sigma((V + 60.0) / 7.5)


@rate
def tau_d1(V: float) -> float:  # ms
    return 400.0 + 500.0 / (math.exp((V + 40.0) / 15.0) + math.exp(-(V + 20.0) / 20.0))


@rate
def d2_inf(V: float) -> float:  # 1; of V with the constants of a calcium dependence, as released
    return sigma((V - 0.1) / 0.02)


TAU_D2 = 130.0  # ms, Kumaravelu 2016


@rate
def p_inf(V: float) -> float:  # 1
    return sigma(-(V + 56.0) / 6.7)


@rate
def tau_p(V: float) -> float:  # ms
    return 5.0 + 0.33 / (math.exp((V + 27.0) / 10.0) + math.exp(-(V + 102.0) / 15.0))


@rate
def q_inf(V: float) -> float:  # 1
    return sigma((V + 85.0) / 5.8)


@rate
def tau_q(V: float) -> float:  # ms
    return 400.0 / (math.exp((V + 50.0) / 15.0) + math.exp(-(V + 50.0) / 16.0))


@rate
def r_inf(V: float) -> float:  # 1; of V with the constants of a calcium dependence, as released
    return sigma(-(V - 0.17) / 0.08)


TAU_R = 2.0  # ms, Kumaravelu 2016


@rate
def calcium_reversal(Ca: float) -> float:  # mV
    return NERNST_MV * math.log(CA_OUT / Ca)
