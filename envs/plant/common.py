"""What several nuclei share: the order of populations, the sigmoid, the removable 0/0."""

from __future__ import annotations

import math

from envs.jit import rate

POPULATIONS = ("th", "stn", "gpe", "gpi", "d2", "d1", "ce", "ci")
"""Order of the rows of every (8, 10) array: thalamus, STN, GPe, GPi, striatum D2 and D1, cortex excitatory and
inhibitory."""

TH, STN, GPE, GPI, D2, D1, CE, CI = range(8)
N_POPULATIONS = 8
N_CELLS = 10  # cells a population, Kumaravelu 2016

EVENT_THRESHOLD_MV = -10.0  # mV, upward crossing that starts synaptic transmission, Kumaravelu 2016 (released code)
GPI_SPIKE_THRESHOLD_MV = -20.0  # mV, upward crossing that the biomarker counts, Kumaravelu 2016 (released code)


@rate
def sigma(x: float) -> float:
    """σ(x) = 1/(1+e^x), the falling sigmoid of all gates; e^x may overflow to infinity, then σ is 0, as it should."""
    return 1.0 / (1.0 + math.exp(x))


@rate
def linoid(x: float, slope: float) -> float:
    """x/(1 - e^{-x/slope}); at x = 0 its limit, the slope."""
    if abs(x) < 1e-9 * slope:
        return slope + 0.5 * x
    return x / (1.0 - math.exp(-x / slope))
