"""Multitaper spectrum of the GPi spike trains and its 13-35 Hz integral, P_beta.

Point-process spectrum as in Chronux (tapers [3 5], pad 0, average over the 10 GPi cells), which Kumaravelu et al.
2016 use:
    J_k(f) = Σ_i h_k(m_i) e^{-2πi f m_i/Fs} - (n_sp/N) H_k(f),   S(f) = mean over tapers and cells of |J_k|²,
P_beta = trapezoid of S over the grid frequencies 13 < f < 35 Hz. Only these frequencies are computed, the tapers
come from a table, and a spike's phases are computed once for all windows that hold it: they are taken in absolute time,
which turns J by a phase alone. On the window's own grid the sums slide (`envs.biomarkers.sliding`); on the released
grid, which begins at a window's first spike, each window with other spikes than the last is summed by itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.sliding import WIDTH, plan, sliding_power
from envs.biomarkers.tapers import CYCLES_MAX, CYCLES_PER_POINT, N_TAPERS, PAD, TABLE_POINTS, taper_table
from envs.errors import UserError
from envs.jit import kernel, rate
from envs.plant.batch_vector import load, store, vector_rate
from envs.plant.common import N_CELLS

BETA_BAND_HZ = (13.0, 35.0)  # Hz, both ends excluded, Kumaravelu 2016
MAX_FREQUENCIES = 512  # grid frequencies in a band; a 4 s window at 0.02 ms has 115 in 13-35 Hz
MARGIN = 8  # cycles that rows padded to whole vectors may reach beyond the band

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@rate
def _next_pow2(n: int) -> int:
    p = 1
    while p < n:
        p *= 2
    return p


@rate
def _cubic(table: Floats, position: float, scale: float, out: Floats, at: int) -> None:
    """out[at + k] = scale × cubic Lagrange interpolation of the table's columns at a fractional row."""
    i = math.floor(position)
    t = position - i
    w0 = -t * (t - 1.0) * (t - 2.0) / 6.0 * scale
    w1 = (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0 * scale
    w2 = -(t + 1.0) * t * (t - 2.0) / 2.0 * scale
    w3 = (t + 1.0) * t * (t - 1.0) / 6.0 * scale
    for k in range(N_TAPERS):
        out[at + k] = w0 * table[i - 1, k] + w1 * table[i, k] + w2 * table[i + 1, k] + w3 * table[i + 2, k]


@rate
def _phases(samples: Ints, nfft: int, j0: int, row: int, c: Floats, s: Floats) -> None:
    """c, s [spike × row + j] = cos, sin of 2π (j0 + j) sample/nfft, by recursion over the frequencies.

    The angle is reduced as an integer, so a phase does not depend on where a trace begins.
    """
    for i in range(samples.shape[0]):
        t = 2.0 * math.pi * (samples[i] % nfft) / nfft
        start = 2.0 * math.pi * ((j0 * samples[i]) % nfft) / nfft
        a, b = math.cos(start), math.sin(start)
        da, db = math.cos(t), math.sin(t)
        for j in range(i * row, (i + 1) * row):
            c[j], s[j] = a, b
            a, b = a * da - b * db, a * db + b * da


@rate
def _means(transform: Floats, first: int, n: int, fs: float, j0: int, nfft: int, row: int, hc: Floats) -> None:
    """hc[(2k, 2k+1) × row + j] = real, imaginary part of H_k(f_j): at the grid's middle, turned to absolute time."""
    h = np.empty(N_TAPERS)
    for j in range(row):
        _cubic(transform, (j0 + j) * n / nfft * CYCLES_PER_POINT + PAD, 1.0, h, 0)
        turn = ((j0 + j) * (2 * first + n - 1)) % (2 * nfft)
        co, si = math.cos(math.pi * turn / nfft), math.sin(math.pi * turn / nfft)
        for k in range(N_TAPERS):
            if k % 2 == 0:
                hc[2 * k * row + j], hc[(2 * k + 1) * row + j] = co * h[k], -si * h[k]
            else:
                hc[2 * k * row + j], hc[(2 * k + 1) * row + j] = si * h[k], co * h[k]


@vector_rate
def _add_cell(lo: int, hi: int, row: int, c: Floats, s: Floats, h: Floats, hc: Floats, scale: float, out: Any) -> None:
    """out[j] += Σ_k |J_k(f_j)|² of one cell, whose spikes are lo..hi-1."""
    mean = (hi - lo) * scale
    for j in range(0, row, WIDTH):
        a0, b0 = load(hc, j) * -mean, load(hc, row + j) * -mean
        a1, b1 = load(hc, 2 * row + j) * -mean, load(hc, 3 * row + j) * -mean
        a2, b2 = load(hc, 4 * row + j) * -mean, load(hc, 5 * row + j) * -mean
        a3, b3 = load(hc, 6 * row + j) * -mean, load(hc, 7 * row + j) * -mean
        a4, b4 = load(hc, 8 * row + j) * -mean, load(hc, 9 * row + j) * -mean
        for i in range(lo, hi):
            co, si = load(c, i * row + j), load(s, i * row + j)
            at = i * N_TAPERS
            a0 += h[at] * co
            b0 -= h[at] * si
            a1 += h[at + 1] * co
            b1 -= h[at + 1] * si
            a2 += h[at + 2] * co
            b2 -= h[at + 2] * si
            a3 += h[at + 3] * co
            b3 -= h[at + 3] * si
            a4 += h[at + 4] * co
            b4 -= h[at + 4] * si
        power = a0 * a0 + a1 * a1 + a2 * a2 + a3 * a3 + a4 * a4 + (b0 * b0 + b1 * b1 + b2 * b2 + b3 * b3 + b4 * b4)
        store(out, j, load(out, j) + power)


@rate
def _bounds(samples: Ints, edge: Ints, start: int, stop: int, lo: Ints, hi: Ints) -> Any:
    """Move each cell's lo, hi to the spikes in start..stop-1; (whether any moved, first spike, last spike, count)."""
    moved, q0, q1, count = False, stop, start, 0
    for cell in range(N_CELLS):
        while hi[cell] < edge[cell + 1] and samples[hi[cell]] < stop:
            hi[cell] += 1
            moved = True
        while lo[cell] < hi[cell] and samples[lo[cell]] < start:
            lo[cell] += 1
            moved = True
        if hi[cell] > lo[cell]:
            q0, q1 = min(q0, samples[lo[cell]]), max(q1, samples[hi[cell] - 1])
            count += hi[cell] - lo[cell]
    return moved, q0, q1, count


@kernel
def _trace(
    samples: Ints,
    edge: Ints,
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
) -> Any:
    """Integral over the band for each window [start, start+length), spikes sorted by cell (from edge[cell] on), then
    sample.

    Returns index and spacing (Hz) of the grid frequencies of the last window, and their number, -1 if the band cannot
    be resolved. A window without a spike is NaN on the spike-bounded grid, 0 on the fixed one.
    """
    lo, hi = edge[:-1].copy(), edge[:-1].copy()
    h = np.empty(samples.shape[0] * N_TAPERS)
    c, s, hc, out = np.empty(0), np.empty(0), np.empty(0), np.empty(0)
    phases_of, j0, n_freq, row, df = 0, 0, 0, 0, 0.0
    for w in range(starts.shape[0]):
        moved, q0, q1, count = _bounds(samples, edge, starts[w], starts[w] + length, lo, hi)
        if count == 0:
            power[w] = 0.0 if fixed else np.nan
            spectrum[:] = power[w]
            continue
        if not fixed and not moved and w > 0:
            power[w] = power[w - 1]  # the grid depends on the spikes alone
            continue
        first = starts[w] if fixed else q0 - 1
        n = length + 1 if fixed else q1 - q0 + 3
        nfft = _next_pow2(n)
        if nfft != phases_of:
            phases_of = nfft
            df = fs / nfft
            j0 = math.floor(f_low / df) + 1
            n_freq = math.ceil(f_high / df) - j0
            if n_freq < 2 or n_freq > MAX_FREQUENCIES or f_high * n / fs > CYCLES_MAX - MARGIN:
                return j0, df, -1
            row = (n_freq + WIDTH - 1) // WIDTH * WIDTH
            c, s = np.empty(samples.shape[0] * row), np.empty(samples.shape[0] * row)
            hc, out = np.empty(2 * N_TAPERS * row), np.empty(row)
            _phases(samples, nfft, j0, row, c, s)
        _means(transform, first, n, fs, j0, nfft, row, hc)
        scale = math.sqrt(fs / n)  # the table holds h·√N, and the tapers carry √Fs
        out[:] = 0.0
        for cell in range(N_CELLS):
            for i in range(lo[cell], hi[cell]):
                u = (samples[i] - first + 0.5) / n
                _cubic(tapers, u * TABLE_POINTS - 0.5 + PAD, scale, h, i * N_TAPERS)
            if hi[cell] > lo[cell]:
                _add_cell(lo[cell], hi[cell], row, c, s, h, hc, scale, out)
        area = 0.0
        for j in range(n_freq):
            spectrum[j] = out[j] / (N_TAPERS * N_CELLS)
            area += spectrum[j] * df if 0 < j < n_freq - 1 else 0.5 * spectrum[j] * df
        power[w] = area
    return j0, df, n_freq


def _checked(spikes: Ints, starts: Ints) -> tuple[Ints, Ints, Ints]:
    """Samples, cells, window starts as the kernels take them."""
    if spikes.ndim != 2 or spikes.shape[1] != 2:
        raise UserError(f"spikes have shape {spikes.shape}: expected (n, 2), sample and cell")
    samples = np.ascontiguousarray(spikes[:, 0], dtype=np.int64)
    cells = np.ascontiguousarray(spikes[:, 1], dtype=np.int64)
    if np.any(np.diff(samples) < 0) or np.any(np.diff(starts) < 0):
        raise UserError("spikes and window starts must be sorted by sample")
    if len(cells) and not 0 <= cells.min() <= cells.max() < N_CELLS:
        raise UserError(f"spikes name the cells {cells.min()} to {cells.max()}: allowed are 0 to {N_CELLS - 1}")
    return samples, cells, np.ascontiguousarray(starts, dtype=np.int64)


def _unresolved(length: int, dt_ms: float, band_hz: tuple[float, float]) -> UserError:
    return UserError(
        f"a window of {length * dt_ms:g} ms cannot resolve {band_hz[0]:g}-{band_hz[1]:g} Hz: "
        f"allowed are windows of about 150 to {(CYCLES_MAX - MARGIN) / band_hz[1] * 1000:.0f} ms"
    )


def _run(
    spikes: Ints, starts: Ints, length: int, dt_ms: float, fixed: bool, band_hz: tuple[float, float]
) -> tuple[Floats, Floats, Floats]:
    """Every window by itself: power, and frequencies and spectrum of the last one."""
    samples, cells, starts = _checked(spikes, starts)
    order = np.argsort(cells, kind="stable")
    edge = np.searchsorted(cells[order], np.arange(N_CELLS + 1))
    table = taper_table()
    power, values = np.empty(len(starts)), np.zeros(MAX_FREQUENCIES)
    fs = 1000.0 / dt_ms
    j0, df, n_freq = _trace(
        samples[order], edge, starts, length, fs, *band_hz, fixed, table.tapers, table.transform, power, values
    )
    if n_freq < 0:
        raise _unresolved(length, dt_ms, band_hz)
    return power, (j0 + np.arange(n_freq)) * df, values[:n_freq]


def _slide(spikes: Ints, starts: Ints, length: int, dt_ms: float) -> Floats:
    """P_beta on the fixed grid, by sliding sums."""
    samples, cells, starts = _checked(spikes, starts)
    power = np.empty(len(starts))
    grid = plan(length + 1, 1000.0 / dt_ms, BETA_BAND_HZ)
    if grid is None:
        raise _unresolved(length, dt_ms, BETA_BAND_HZ)
    if len(starts):
        sliding_power(samples, cells, starts, length + 1, grid, power)
    return power


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
    if fixed_grid:
        return _slide(spikes, starts, length, dt_ms)
    power, _, _ = _run(spikes, starts, length, dt_ms, False, BETA_BAND_HZ)
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
