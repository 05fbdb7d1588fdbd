"""Multitaper spectrum of the GPi spike trains and its 13-35 Hz integral, P_beta.

Point-process spectrum as in Chronux (tapers [3 5], pad 0, average over the 10 GPi cells), which Kumaravelu et al.
2016 use:
    J_k(f) = Σ_i h_k(m_i) e^{-2πi f m_i/Fs} - (n_sp/N) H_k(f),   S(f) = mean over tapers and cells of |J_k|²,
P_beta = trapezoid of S over the grid frequencies 13 < f < 35 Hz. Only these frequencies are computed, the tapers
come from a table,
and a spike's phases are computed once for all windows that hold it: they are taken in absolute time, which turns J
by a phase alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.tapers import CYCLES_MAX, CYCLES_PER_POINT, N_TAPERS, PAD, TABLE_POINTS, taper_table
from envs.errors import UserError
from envs.jit import kernel, rate
from envs.plant.common import N_CELLS

BETA_BAND_HZ = (13.0, 35.0)  # Hz, both ends excluded, Kumaravelu 2016
MAX_FREQUENCIES = 512  # grid frequencies in a band; a 4 s window at 0.02 ms has 115 in 13-35 Hz

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@rate
def _next_pow2(n: int) -> int:
    p = 1
    while p < n:
        p *= 2
    return p


@rate
def _cubic(table: Floats, position: float, out: Floats) -> None:
    """out[k] = cubic Lagrange interpolation of the table's columns at a fractional row."""
    i = math.floor(position)
    t = position - i
    w0 = -t * (t - 1.0) * (t - 2.0) / 6.0
    w1 = (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0
    w2 = -(t + 1.0) * t * (t - 2.0) / 2.0
    w3 = (t + 1.0) * t * (t - 1.0) / 6.0
    for k in range(N_TAPERS):
        out[k] = w0 * table[i - 1, k] + w1 * table[i, k] + w2 * table[i + 1, k] + w3 * table[i + 2, k]


@rate
def _phases(samples: Ints, fs: float, f0: float, df: float, n_freq: int, origin: int, c: Floats, s: Floats) -> None:
    """c, s [spike, frequency] = cos, sin of 2π f (sample - origin)/Fs, by recursion over the frequencies."""
    for i in range(samples.shape[0]):
        t = (samples[i] - origin) / fs
        a, b = math.cos(2.0 * math.pi * f0 * t), math.sin(2.0 * math.pi * f0 * t)
        da, db = math.cos(2.0 * math.pi * df * t), math.sin(2.0 * math.pi * df * t)
        for j in range(n_freq):
            c[i, j], s[i, j] = a, b
            a, b = a * da - b * db, a * db + b * da


@rate
def _window_spectrum(
    samples: Ints,
    cells: Ints,
    lo: int,
    hi: int,
    first: int,
    n: int,
    origin: int,
    fs: float,
    f0: float,
    df: float,
    n_freq: int,
    c: Floats,
    s: Floats,
    tapers: Floats,
    transform: Floats,
    re: Floats,
    im: Floats,
    out: Floats,
) -> None:
    """out[j] = S(f_j) of the spikes lo..hi-1 on a grid of n samples that begins at sample ``first``."""
    h = np.empty(N_TAPERS)
    n_spikes = np.zeros(N_CELLS)
    re[:, :, :] = 0.0
    im[:, :, :] = 0.0
    scale = math.sqrt(fs / n)  # the table holds h·√N, and the tapers carry √Fs
    for i in range(lo, hi):
        u = (samples[i] - first + 0.5) / n
        _cubic(tapers, u * TABLE_POINTS - 0.5 + PAD, h)
        cell = cells[i]
        n_spikes[cell] += 1.0
        for k in range(N_TAPERS):
            w = h[k] * scale
            for j in range(n_freq):
                re[cell, k, j] += w * c[i, j]
                im[cell, k, j] -= w * s[i, j]
    for j in range(n_freq):
        out[j] = 0.0
        f = f0 + j * df
        # H_k at the grid's own middle, turned into the time base of the phases.
        _cubic(transform, f * n / fs * CYCLES_PER_POINT + PAD, h)
        middle = (first - origin + 0.5 * (n - 1)) / fs
        co, si = math.cos(2.0 * math.pi * f * middle), math.sin(2.0 * math.pi * f * middle)
        for cell in range(N_CELLS):
            rate_n = n_spikes[cell] * scale
            for k in range(N_TAPERS):
                if k % 2 == 0:
                    a, b = co * h[k], -si * h[k]
                else:
                    a, b = si * h[k], co * h[k]
                x = re[cell, k, j] - rate_n * a
                y = im[cell, k, j] - rate_n * b
                out[j] += x * x + y * y
        out[j] /= N_TAPERS * N_CELLS


@kernel
def _trace(
    samples: Ints,
    cells: Ints,
    starts: Ints,
    length: int,
    fs: float,
    f_low: float,
    f_high: float,
    fixed: bool,
    tapers: Floats,
    transform: Floats,
    power: Floats,
    spectrum: Floats,
    frequencies: Floats,
) -> int:
    """Integral over the band for each window [start, start+length]; returns the number of grid frequencies of the
    last window.

    A window without a spike is NaN on the spike-bounded grid, 0 on the fixed one.
    """
    n_spikes = samples.shape[0]
    c = np.empty((n_spikes, MAX_FREQUENCIES))
    s = np.empty((n_spikes, MAX_FREQUENCIES))
    lo, hi = 0, 0
    nfft_of_phases, n_freq = 0, 0
    f0, df = 0.0, 0.0
    origin = starts[0]
    re = np.empty((N_CELLS, N_TAPERS, 1))
    im = np.empty((N_CELLS, N_TAPERS, 1))
    last_lo, last_hi = -1, -1
    for w in range(starts.shape[0]):
        while hi < n_spikes and samples[hi] < starts[w] + length:
            hi += 1
        while lo < hi and samples[lo] < starts[w]:
            lo += 1
        if hi == lo:
            power[w] = 0.0 if fixed else np.nan
            spectrum[:] = power[w]
            last_lo = -1
            continue
        if not fixed and lo == last_lo and hi == last_hi:
            power[w] = power[w - 1]  # the grid depends on the spikes alone
            continue
        last_lo, last_hi = lo, hi
        first = starts[w] if fixed else samples[lo] - 1
        n = length + 1 if fixed else samples[hi - 1] - samples[lo] + 3
        nfft = _next_pow2(n)
        if nfft != nfft_of_phases:
            nfft_of_phases = nfft
            df = fs / nfft
            j0 = math.floor(f_low / df) + 1
            j1 = math.ceil(f_high / df) - 1
            f0 = j0 * df
            n_freq = j1 - j0 + 1
            if n_freq < 2 or n_freq > MAX_FREQUENCIES or f_high * n / fs > CYCLES_MAX - 1:
                return -1
            _phases(samples, fs, f0, df, n_freq, origin, c, s)
            re = np.empty((N_CELLS, N_TAPERS, n_freq))
            im = np.empty((N_CELLS, N_TAPERS, n_freq))
            for j in range(n_freq):
                frequencies[j] = f0 + j * df
        _window_spectrum(
            samples, cells, lo, hi, first, n, origin, fs, f0, df, n_freq, c, s, tapers, transform, re, im, spectrum
        )
        area = 0.0
        for j in range(n_freq - 1):
            area += 0.5 * (spectrum[j] + spectrum[j + 1]) * df
        power[w] = area
    return n_freq


def _run(
    spikes: Ints, starts: Ints, length: int, dt_ms: float, fixed: bool, band_hz: tuple[float, float]
) -> tuple[Floats, Floats, Floats]:
    if spikes.ndim != 2 or spikes.shape[1] != 2:
        raise UserError(f"spikes have shape {spikes.shape}: expected (n, 2), sample and cell")
    if np.any(np.diff(spikes[:, 0]) < 0) or np.any(np.diff(starts) < 0):
        raise UserError("spikes and window starts must be sorted by sample")
    table = taper_table()
    power = np.empty(len(starts))
    spectrum, frequencies = np.zeros(MAX_FREQUENCIES), np.zeros(MAX_FREQUENCIES)
    samples = np.ascontiguousarray(spikes[:, 0], dtype=np.int64)
    cells = np.ascontiguousarray(spikes[:, 1], dtype=np.int64)
    starts = np.ascontiguousarray(starts, dtype=np.int64)
    n_freq = _trace(
        samples,
        cells,
        starts,
        length,
        1000.0 / dt_ms,
        *band_hz,
        fixed,
        table.tapers,
        table.transform,
        power,
        spectrum,
        frequencies,
    )
    if n_freq < 0:
        raise UserError(
            f"a window of {length * dt_ms:g} ms cannot resolve {band_hz[0]:g}-{band_hz[1]:g} Hz: "
            f"allowed are windows of about 150 to {(CYCLES_MAX - 1) / band_hz[1] * 1000:.0f} ms"
        )
    return power, frequencies[:n_freq], spectrum[:n_freq]


def beta_trace(spikes: Ints, starts: Ints, length: int, dt_ms: float, *, fixed_grid: bool) -> Floats:
    """P_beta (13-35 Hz) of sliding windows, shape (windows,).

    Args:
        spikes: GPi spikes sorted by sample, shape (n, 2): sample before the crossing, cell.
        starts: first sample of each window, sorted, shape (windows,); a window holds samples start .. start+length.
        length: window length in samples.
        dt_ms: plant step (ms).
        fixed_grid: True for the window's own grid; False for the released grid, from the first to the last spike.

    Raises:
        UserError: wrong shapes, unsorted input, or a window without any spike on the released grid.
    """
    power, _, _ = _run(spikes, starts, length, dt_ms, fixed_grid, BETA_BAND_HZ)
    if np.isnan(power).any():
        where = int(np.flatnonzero(np.isnan(power))[0])
        raise UserError(
            f"no GPi cell fires in the window that begins at sample {int(starts[where])}: P_beta is undefined"
        )
    return power


def spectrum(
    spikes: Ints,
    start: int,
    length: int,
    dt_ms: float,
    *,
    fixed_grid: bool,
    band_hz: tuple[float, float] = BETA_BAND_HZ,
) -> tuple[Floats, Floats, float]:
    """Spectrum of one window: frequencies (Hz), S(f), and its integral (P_beta for the default band).

    Raises:
        UserError: as `beta_trace`.
    """
    power, frequencies, values = _run(spikes, np.array([start]), length, dt_ms, fixed_grid, band_hz)
    if math.isnan(power[0]):
        raise UserError("no GPi cell fires in the window: its spectrum is undefined")
    return frequencies, values, float(power[0])
