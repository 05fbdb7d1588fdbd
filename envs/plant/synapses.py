"""Synapses driven by events: the thirteen conductance kernels, and the constants of the four continuous ones.

A kernel K(age) is 0 before its delay D; then, with x = age - D,
    alpha:   K = g/(τ e^{-1}) x e^{-x/τ}
    biexp:   K = g f (e^{-x/τd} - e^{-x/τr}), f such that the peak is g.
S(t) = Σ over the events of the last 1000 ms of K(age). Source: Kumaravelu et al. 2016 (released code).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.jit import rate

KERNEL_SPAN_MS = 1000.0  # ms, a kernel ends at this age (released code)
FAST_SPAN_MS = 300.0  # ms, from here on all kernels but NMDA are below 1e-16 of their peak, which is less than rounding


class Kernel(NamedTuple):
    """One event kernel: peak g (1), delay (ms), time constants (ms; rise 0 means an alpha function)."""

    name: str
    source: str
    g: float
    delay_ms: float
    tau_decay_ms: float
    tau_rise_ms: float = 0.0


# Kumaravelu 2016: peak, delay (ms), decay and rise time constants (ms)
KERNELS = (
    Kernel("S7 th->ce", "th", 0.43, 5.0, 5.0),
    Kernel("S2a stn->gpe AMPA", "stn", 0.43, 2.0, 2.5, 0.4),
    Kernel("S2an stn->gpe NMDA", "stn", 0.43, 2.0, 67.0, 2.0),
    Kernel("S2b stn->gpi", "stn", 0.43, 1.5, 5.0),
    Kernel("S3a gpe->stn", "gpe", 0.3, 4.0, 7.7, 0.4),
    Kernel("S3b gpe->gpi", "gpe", 0.3, 3.0, 5.0),
    Kernel("S3c gpe->gpe", "gpe", 0.3, 1.0, 5.0),
    Kernel("S4 gpi->th", "gpi", 0.3, 5.0, 5.0),
    Kernel("S5 d2->gpe", "d2", 0.3, 5.0, 5.0),
    Kernel("S9 d1->gpi", "d1", 0.3, 4.0, 5.0),
    Kernel("S6a ce->d2,d1", "ce", 0.43, 5.1, 5.0),
    Kernel("S6b ce->stn AMPA", "ce", 0.43, 5.9, 2.49, 0.5),
    Kernel("S6bn ce->stn NMDA", "ce", 0.43, 5.9, 90.0, 2.0),
)
S7, S2A, S2AN, S2B, S3A, S3B, S3C, S4, S5, S9, S6A, S6B, S6BN = range(len(KERNELS))
N_KERNELS = len(KERNELS)

# Reversal potentials (mV), Kumaravelu 2016
E_EXC = 0.0  # AMPA, NMDA
E_GABA = -85.0  # pallidal, striatopallidal and intracortical inhibition
E_GABA_STR = -80.0  # inhibition within the striatum

# Fixed conductances (mS/cm² per unit S), Kumaravelu 2016
G_GPI_TH = 0.112
G_GPE_STN = 0.5
G_D2_GPE = 0.5
G_GPE_GPI = 0.5
G_D1_GPI = 0.5
G_D2_D2 = 0.1 / 4.0
G_D1_D1 = 0.1 / 3.0
G_CE_D2 = 0.07
G_CI_CE = 0.2
G_TH_CE = 0.15
G_CE_CI = 0.1

# Continuous synapses, Kumaravelu 2016
TAU_GABA_STR = 13.0  # ms, decay of the striatal GABA gates
TAU_CTX = 5.0  # ms, alpha function of the intracortical synapses
CTX_KICK = 0.43 / (TAU_CTX * math.exp(-1.0))  # 1/ms, impulse of one intracortical event


@rate
def gaba_opening(V: float) -> float:  # 1/ms, of a striatal GABA gate by its cell's own voltage, Kumaravelu 2016
    return 2.0 * (1.0 + math.tanh(V / 4.0))


def kernel_span(dt_ms: float) -> int:
    """Number of samples of a kernel that are ever used: ages 0 .. round(1000/dt) - 2."""
    return round(KERNEL_SPAN_MS / dt_ms) - 1


def kernel_table(kernel: Kernel, dt_ms: float) -> NDArray[np.float64]:
    """Sample one kernel on ages 0, dt, 2 dt, ...; shape (kernel_span(dt),), unit 1."""
    x = np.arange(kernel_span(dt_ms)) * dt_ms - kernel.delay_ms
    on = x >= 0.0
    x = np.where(on, x, 0.0)
    if kernel.tau_rise_ms == 0.0:
        tau = kernel.tau_decay_ms
        values = kernel.g / (tau * math.exp(-1.0)) * x * np.exp(-x / tau)
    else:
        decay, rise = kernel.tau_decay_ms, kernel.tau_rise_ms
        x_peak = decay * rise / (decay - rise) * math.log(decay / rise)
        f = 1.0 / (math.exp(-x_peak / decay) - math.exp(-x_peak / rise))
        values = kernel.g * f * (np.exp(-x / decay) - np.exp(-x / rise))
    return np.where(on, values, 0.0)


def kernel_tables(dt_ms: float) -> NDArray[np.float64]:
    """All kernels, shape (13, kernel_span(dt)), rows in the order of `KERNELS`."""
    return np.stack([kernel_table(kernel, dt_ms) for kernel in KERNELS])
