"""Slepian tapers for any window length from one table, and their transforms.

The DPSS of N points is the DPSS of 8192 points resampled at (m+½)/N and scaled by √(8192/N) (relative error of
P_beta 2e-7); its transform depends on f·N/Fs alone, so it is tabulated once as well.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TIME_HALFBANDWIDTH = 3.0  # NW, Chronux tapers [3 5], Kumaravelu 2016
N_TAPERS = 5  # K, Chronux tapers [3 5], Kumaravelu 2016
TABLE_POINTS = 8192  # points of the tabulated tapers
CYCLES_MAX = 136  # cycles a window up to which the transforms are tabulated
CYCLES_PER_POINT = 64  # table points a cycle
PAD = 2  # points beyond either end, for cubic interpolation

Floats = NDArray[np.float64]


class TaperTable(NamedTuple):
    """Tapers on u = position in the window (0..1), and their transforms on x = cycles a window."""

    tapers: Floats  # (points + 2 PAD, 5): h_k(u)·√N at u = (m+½)/points
    transform: (
        Floats  # (cycles·64 + 1 + 2 PAD, 5): ∫ h_k(u)√N e^{-2πi x (u-½)} du, real for even k, imaginary part for odd k
    )


@lru_cache(maxsize=1)
def taper_table() -> TaperTable:
    """Build the table (once a process, 0.1 s)."""
    from scipy.signal.windows import dpss

    h = np.asarray(dpss(TABLE_POINTS, TIME_HALFBANDWIDTH, N_TAPERS), dtype=np.float64).T * np.sqrt(TABLE_POINTS)
    # Beyond the ends the table continues by a cubic through its last points.
    nodes = np.arange(4)
    low = np.stack([np.polyval(np.polyfit(nodes, h[:4, k], 3), [-2, -1]) for k in range(N_TAPERS)], axis=1)
    high = np.stack([np.polyval(np.polyfit(nodes, h[-4:, k], 3), [4, 5]) for k in range(N_TAPERS)], axis=1)
    x = np.arange(-PAD, CYCLES_MAX * CYCLES_PER_POINT + 1 + PAD)
    spectrum = np.fft.fft(h, n=TABLE_POINTS * CYCLES_PER_POINT, axis=0)[x]
    # Position of sample m is (m+½)/points; centred on the window's middle the transforms are real or imaginary.
    phase = np.exp(-2j * np.pi * (x / CYCLES_PER_POINT) * (0.5 / TABLE_POINTS - 0.5))
    centred = spectrum * phase[:, None] / TABLE_POINTS
    transform = np.where(np.arange(N_TAPERS) % 2 == 0, centred.real, centred.imag)
    return TaperTable(np.ascontiguousarray(np.vstack([low, h, high])), np.ascontiguousarray(transform))
