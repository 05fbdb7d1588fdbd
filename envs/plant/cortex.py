"""Cortex: Izhikevich cells (Izhikevich 2003), regular spiking (excitatory) and fast spiking (inhibitory).

v in mV, t in ms; v' = 0.04 v² + 5 v + 140 - u + I, u' = a (b v - u); on v ≥ 30: v = c, u += d.
"""

from __future__ import annotations

from envs.jit import rate

A_EXC, D_EXC = 0.02, 8.0  # 1/ms, mV/ms, regular spiking, Izhikevich 2003
A_INH, D_INH = 0.1, 2.0  # 1/ms, mV/ms, fast spiking, Izhikevich 2003
B_REC = 0.2  # 1/ms, both, Izhikevich 2003
V_PEAK, V_RESET = 30.0, -65.0  # mV, Izhikevich 2003
V_START, U_START = -65.0, -13.0  # mV, mV/ms, Kumaravelu 2016


@rate
def dv(v: float, u: float) -> float:  # mV/ms, without input
    return 0.04 * (v * v) + 5.0 * v + 140.0 - u
