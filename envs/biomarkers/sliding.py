"""P_beta of sliding windows on a fixed grid, by sliding sums.

A taper of n points is a short Fourier sum in the position from the window's middle: with period 2·nfft, terms up to
q = 12 give it within 2e-10 of its size (measured for all n). So its spectrum at grid frequency j needs only the plain
sums over the spikes
    X_b = Σ_i e^{-2πi b m_i/(2 nfft)}
at the half-bins b = 2j-12 .. 2j+12, and a window that moves adds what enters and subtracts what leaves. The phasors
are added as integers (units of 2^-40), which is exact: a window's value does not depend on where the sums began, hence
not on how a trace is split into calls.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.tapers import N_TAPERS, PAD, TABLE_POINTS, taper_table
from envs.jit import kernel, rate
from envs.plant.batch_vector import load, store, vector_rate, vector_width
from envs.plant.common import N_CELLS

TERMS = 12  # highest term of a taper's Fourier sum, even
UNIT = 2.0**40  # a phasor of 1 as an integer
WIDTH = vector_width(np.float64)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Plan(NamedTuple):
    """What depends on the window's length and the band alone.

    The half-bins are kept in two rows, even and odd ones, so that a taper's terms read neighbouring entries: entry e
    of a row is half-bin ``first`` + 2e (+ 1 in the odd row).
    """

    nfft: int
    first: int  # lowest half-bin
    row: int  # entries of a row, padded
    coefficients: Floats  # (TERMS + 1, 5) of e^{±2πi q v/(2 nfft)} in taper k
    mean: Floats  # (2 row,) transform of a window of ones over n, about its middle
    weights: Floats  # (padded,) trapezoid weight of each grid frequency over tapers and cells


@lru_cache(maxsize=8)
def plan(n: int, fs: float, band_hz: tuple[float, float]) -> Plan | None:
    """Coefficients and layout for windows of n samples; fs in Hz. None: the band holds less than two frequencies."""
    nfft = 1 << (n - 1).bit_length()
    df = fs / nfft
    j0, j1 = math.floor(band_hz[0] / df) + 1, math.ceil(band_hz[1] / df) - 1
    n_freq = j1 - j0 + 1
    if n_freq < 2:
        return None
    padded = math.ceil(n_freq / WIDTH) * WIDTH
    first, row = 2 * j0 - TERMS, padded + TERMS + WIDTH
    v = ((np.arange(TABLE_POINTS) + 0.5) / TABLE_POINTS - 0.5) * n / (2.0 * nfft)  # position, in periods
    waves = 2.0 * np.pi * np.outer(v, np.arange(TERMS + 1))
    tapers = taper_table().tapers[PAD:-PAD]
    coefficients = np.zeros((TERMS + 1, N_TAPERS))
    for k in range(N_TAPERS):  # even tapers are cosines, odd ones sines; half of each to e^{+…} and e^{-…}
        basis = np.cos(waves) if k % 2 == 0 else np.sin(waves)
        coefficients[:, k] = 0.5 * np.linalg.lstsq(basis, tapers[:, k], rcond=1e-13)[0]
    b = first + np.concatenate([2 * np.arange(row), 2 * np.arange(row) + 1])
    angle = np.pi * b / (2.0 * nfft)
    sine = np.where(b == 0, 1.0, np.sin(angle))
    mean = np.where(b == 0, 1.0, np.sin(n * angle) / (n * sine))
    weights = np.zeros(padded)
    weights[:n_freq] = df * fs / n / (N_TAPERS * N_CELLS)
    weights[0] *= 0.5
    weights[n_freq - 1] *= 0.5
    return Plan(nfft, first, row, coefficients, mean, weights)


@rate
def _phasor_rows(turn: int, period: int, first: int, row: int, c: Any, s: Any, at: int) -> None:
    """c, s [at + entry] = cos, sin of 2π b·turn/period for all half-bins b, by recursion."""
    angle = 2.0 * math.pi * ((first * turn) % period) / period
    a, b = math.cos(angle), math.sin(angle)
    angle = 2.0 * math.pi * (turn % period) / period
    da, db = math.cos(angle), math.sin(angle)
    for e in range(row):
        c[at + e], s[at + e] = a, b
        a, b = a * da - b * db, a * db + b * da
        c[at + row + e], s[at + row + e] = a, b
        a, b = a * da - b * db, a * db + b * da


@vector_rate
def _cell_power(re: Floats, im: Floats, row: int, coefficients: Floats, weights: Floats, total: Any) -> Any:
    """Weighted Σ_k |J_k|² over the grid frequencies of one cell, added to a vector."""
    for j in range(0, weights.shape[0], WIDTH):
        zero = load(weights, j) * 0.0
        a0, a1, a2, a3, a4 = zero, zero, zero, zero, zero
        b0, b1, b2, b3, b4 = zero, zero, zero, zero, zero
        for q in range(TERMS + 1):
            parity = q & 1  # the terms of odd q lie in the odd row
            low = parity * row + j + (TERMS - q - parity) // 2
            high = parity * row + j + (TERMS + q - parity) // 2
            u, v = load(re, low), load(re, high)
            plus, minus = u + v, u - v
            a0 += coefficients[q, 0] * plus
            a1 += coefficients[q, 1] * minus
            a2 += coefficients[q, 2] * plus
            a3 += coefficients[q, 3] * minus
            a4 += coefficients[q, 4] * plus
            u, v = load(im, low), load(im, high)
            plus, minus = u + v, u - v
            b0 += coefficients[q, 0] * plus
            b1 += coefficients[q, 1] * minus
            b2 += coefficients[q, 2] * plus
            b3 += coefficients[q, 3] * minus
            b4 += coefficients[q, 4] * plus
        power = a0 * a0 + a1 * a1 + a2 * a2 + a3 * a3 + a4 * a4 + (b0 * b0 + b1 * b1 + b2 * b2 + b3 * b3 + b4 * b4)
        total += load(weights, j) * power
    return total


@vector_rate
def _turn(x: Floats, y: Floats, at: int, c: Floats, s: Floats, mean: Floats, spikes: float, re: Any, im: Any) -> None:
    """re + i im = a cell's sums, turned to the window's middle, less those of a train at its mean rate."""
    for e in range(0, mean.shape[0], WIDTH):
        u, v, co, si = load(x, at + e), load(y, at + e), load(c, e), load(s, e)
        store(re, e, u * co - v * si - spikes * load(mean, e))
        store(im, e, u * si + v * co)


@kernel
def sliding_power(samples: Ints, cells: Ints, starts: Ints, n: int, p: Plan, power: Floats) -> None:
    """power[w] = P_beta of the spikes in start .. start + n - 2 on a grid of n samples."""
    row, bins = p.row, 2 * p.row
    n_spikes = samples.shape[0]
    c, s = np.empty(n_spikes * bins, dtype=np.int64), np.empty(n_spikes * bins, dtype=np.int64)
    x, y = np.zeros(N_CELLS * bins, dtype=np.int64), np.zeros(N_CELLS * bins, dtype=np.int64)
    xf, yf = np.zeros(N_CELLS * bins), np.zeros(N_CELLS * bins)
    co, si, re, im = np.zeros(bins), np.zeros(bins), np.zeros(bins), np.zeros(bins)
    count = np.zeros(N_CELLS, dtype=np.int64)
    part = np.zeros(WIDTH)
    lo = 0
    while lo < n_spikes and samples[lo] < starts[0]:
        lo += 1
    hi = lo
    for w in range(starts.shape[0]):
        moved = 0  # bit of each cell whose sums changed
        while hi < n_spikes and samples[hi] < starts[w] + n - 1:
            _phasor_rows(samples[hi], 2 * p.nfft, p.first, row, co, si, 0)
            cell = cells[hi]
            for e in range(bins):
                c[hi * bins + e] = np.int64(np.rint(co[e] * UNIT))
                s[hi * bins + e] = np.int64(np.rint(-si[e] * UNIT))
                x[cell * bins + e] += c[hi * bins + e]
                y[cell * bins + e] += s[hi * bins + e]
            count[cell] += 1
            moved |= 1 << cell
            hi += 1
        while lo < hi and samples[lo] < starts[w]:
            cell = cells[lo]
            for e in range(bins):
                x[cell * bins + e] -= c[lo * bins + e]
                y[cell * bins + e] -= s[lo * bins + e]
            count[cell] -= 1
            moved |= 1 << cell
            lo += 1
        _phasor_rows(2 * starts[w] + n - 1, 4 * p.nfft, p.first, row, co, si, 0)
        total = load(part, 0) * 0.0
        for cell in range(N_CELLS):
            if moved >> cell & 1:
                for e in range(cell * bins, (cell + 1) * bins):
                    xf[e], yf[e] = x[e] * (1.0 / UNIT), y[e] * (1.0 / UNIT)
            if count[cell] > 0:
                _turn(xf, yf, cell * bins, co, si, p.mean, count[cell], re, im)
                total = _cell_power(re, im, row, p.coefficients, p.weights, total)
        store(part, 0, total)
        power[w] = part.sum()
