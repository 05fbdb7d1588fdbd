"""STN local field potential (LFP): a proxy from synaptic currents, and the beta power of an analogue signal.

A point neuron has no extracellular field, so the field is approximated from what a simulation does hold: the sum over
the STN cells of the absolute synaptic currents, excitatory and inhibitory (the proxy Σ|I| of Mazzoni et al. 2008 and
2015, PLoS Comput Biol 11:e1004584; that the LFP of the STN follows its synaptic currents is assumed as in Fleming et
al. 2020, Front Neurosci 14:166). The driving force is taken at a holding voltage of -60 mV, as for dendrites that the
somatic spike does not reach: with the cells' own voltage each stimulated spike multiplies the currents, and at one
sample a millisecond the harmonics of 130 Hz fold into the beta band (measured on four plants: 130 Hz stimulation then
raises this beta by 30 to 100 %, where it halves that of the GPi; at the holding voltage it lowers it by 13 to 40 %).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.tapers import N_TAPERS, TIME_HALFBANDWIDTH
from envs.errors import UserError
from envs.plant.common import CE, GPE, N_CELLS, STN
from envs.plant.state import EVENT_SLOTS, Network, State
from envs.plant.stn import E_LEAK
from envs.plant.synapses import E_EXC, E_GABA, G_GPE_STN, S3A, S6B, S6BN

LFP_STEP_MS = 1.0  # ms between two LFP samples
HOLDING_MV = E_LEAK  # mV, driving force of the proxy: the leak reversal, -60 mV
LFP_BAND_HZ = (13.0, 35.0)  # Hz, both ends included: the band of P_beta
BLANK_BEFORE_MS, BLANK_AFTER_MS = (
    0.5,
    2.0,
)  # ms around a pulse's start; ours, covers pulse and evoked spike

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


# -- the proxy -----------------------------------------------------------------------------------------------------


def stn_currents(V: Floats, S3a: Floats, S6b: Floats, S6bn: Floats, network: Network) -> Floats:
    """Synaptic currents of the STN cells (µA/cm², outward positive), shape (3, 10): GPe, cortical AMPA and NMDA.

    The same currents as in the update of the plant (Kumaravelu 2016): target k hears the sources k and k+1.

    Args:
        V: voltages of the STN cells (mV), shape (10,).
        S3a: activation by the GPe cells, shape (10,); S6b, S6bn: by the excitatory cortical cells.
        network: the drawn conductances.
    """
    I_gpe = G_GPE_STN * (V - E_GABA) * (S3a + np.roll(S3a, -1))
    I_ampa = network.g_ctx_stn_ampa * (V - E_EXC) * (S6b + np.roll(S6b, -1))
    I_nmda = network.g_ctx_stn_nmda * (V - E_EXC) * (S6bn + np.roll(S6bn, -1))
    return np.stack([I_gpe, I_ampa, I_nmda])


def lfp_proxy(currents: Floats) -> float:
    """Σ|I| over the cells and synapses of `stn_currents` (µA/cm²), Mazzoni 2015."""
    return float(np.abs(currents).sum())


def stn_synaptic_current(
    state: State, network: Network, tables: Floats, dt: float, holding_mV: float | None = HOLDING_MV
) -> Floats:
    """`stn_currents` of a network at the sample where its state stands, shape (3, 10).

    Args:
        state: where the network stands.
        network: the network.
        tables: kernels of `envs.plant.synapses.kernel_tables` for this step, shape (13, span).
        dt: plant step (ms).
        holding_mV: voltage of the driving force; None takes the cells' own: the currents of the plant's next update.

    Raises:
        UserError: the tables were made for another step.
    """
    if tables.shape[1] != round(1000.0 / dt) - 1:
        raise UserError(f"the kernel tables hold {tables.shape[1]} samples: dt {dt:g} ms needs {round(1000 / dt) - 1}")
    S3a = _activation(state, GPE, tables[S3A])
    S6b, S6bn = _activation(state, CE, tables[S6B]), _activation(state, CE, tables[S6BN])
    V = state.V[STN] if holding_mV is None else np.full(N_CELLS, holding_mV)
    return stn_currents(V, S3a, S6b, S6bn, network)


def _activation(state: State, source: int, table: Floats) -> Floats:
    """S(k) = Σ K(age) over the events of each source cell, shape (10,). (Sources th..d1, ce are rows 0..6.)"""
    count = state.event_count[source]
    if not count.any():
        return np.zeros(N_CELLS)
    i = np.arange(int(count.max()))
    ring = (state.event_first[source][:, None] + i) % EVENT_SLOTS
    age = state.sample[0] - np.take_along_axis(state.event[source], ring, axis=1)
    live = (i < count[:, None]) & (age < len(table))
    return np.asarray(np.where(live, table[np.where(live, age, 0)], 0.0).sum(axis=1), dtype=np.float64)


# -- artefact and blanking -----------------------------------------------------------------------------------------


def stimulation_artefact(times_ms: Floats, pulses_ms: Floats, amplitude: float, tau_ms: float = 0.5) -> Floats:
    """The decaying potential that each pulse leaves in a recording, shape of times_ms.

    amplitude·e^{-(t-p)/τ} from the pulse's start p on; τ stands for the amplifier's recovery.

    Raises:
        UserError: tau_ms is not above 0.
    """
    if not tau_ms > 0.0:
        raise UserError(f"the artefact's time constant is {tau_ms} ms: allowed are values above 0")
    age = np.asarray(times_ms)[:, None] - np.asarray(pulses_ms)[None, :]
    return np.asarray(np.where(age >= 0.0, amplitude * np.exp(-np.maximum(age, 0.0) / tau_ms), 0.0).sum(axis=1))


def blanked_samples(
    times_ms: Floats, pulses_ms: Floats, before_ms: float = BLANK_BEFORE_MS, after_ms: float = BLANK_AFTER_MS
) -> Bools:
    """Which samples lie in [p - before, p + after) of some pulse p and are not to be trusted, shape of times_ms.

    Raises:
        UserError: a negative interval, or unsorted pulses.
    """
    if before_ms < 0.0 or after_ms < 0.0:
        raise UserError(f"the blanking of {before_ms} ms before and {after_ms} ms after a pulse must not be negative")
    times, pulses = np.asarray(times_ms, dtype=np.float64), np.asarray(pulses_ms, dtype=np.float64)
    if np.any(np.diff(pulses) < 0.0):
        raise UserError("the pulse times must be sorted")
    # A pulse p hits t if t - after < p <= t + before.
    hits = np.searchsorted(pulses, times + before_ms, "right") - np.searchsorted(pulses, times - after_ms, "right")
    return np.asarray(hits > 0)


def fill(signal: Floats, bad: Bools) -> Floats:
    """The signal with bad samples replaced by a straight line between their neighbours; the ends hold the nearest.

    Raises:
        UserError: shapes differ, or no sample is good.
    """
    if signal.shape != bad.shape or signal.ndim != 1:
        raise UserError(f"signal and mask have shapes {signal.shape} and {bad.shape}: both must be (n,)")
    if bad.all():
        raise UserError(f"all {len(bad)} samples of the signal are blanked: shorten the blanking or stimulate less")
    at = np.arange(len(signal))
    return np.where(bad, np.interp(at, at[~bad], signal[~bad]), signal)


# -- beta power ----------------------------------------------------------------------------------------------------


class _Projection(NamedTuple):
    frequencies: Floats  # (f,) Hz
    matrix: NDArray[np.complex128]  # (n, tapers·f): tapered sine waves, scaled to a one-sided density


@lru_cache(maxsize=4)
def _projection(n: int, fs_hz: float, band_hz: tuple[float, float]) -> _Projection:
    from scipy.signal.windows import dpss

    low, high = band_hz
    frequencies = np.arange(np.ceil(low * n / fs_hz - 1e-9), np.floor(high * n / fs_hz + 1e-9) + 1.0) * fs_hz / n
    if len(frequencies) < 2 or high >= fs_hz / 2.0:
        raise UserError(f"a window of {n} samples at {fs_hz:g} Hz cannot resolve {low:g}-{high:g} Hz")
    tapers = np.asarray(dpss(n, TIME_HALFBANDWIDTH, N_TAPERS), dtype=np.float64)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(n), frequencies) / fs_hz)
    matrix = (tapers.T[:, :, None] * waves[:, None, :]).reshape(n, -1) * np.sqrt(2.0 / (fs_hz * N_TAPERS))
    return _Projection(frequencies, matrix - matrix.mean(axis=0))  # the window's mean is taken off


def band_power(
    signal: Floats,
    ends: NDArray[np.int64],
    length: int,
    fs_hz: float = 1000.0 / LFP_STEP_MS,
    band_hz: tuple[float, float] = LFP_BAND_HZ,
) -> Floats:
    """Power of sliding windows in a band (unit of the signal, squared), shape (windows,).

    Multitaper density (NW 3, 5 tapers, as P_beta) at multiples of fs/length, integrated by the trapezoid rule; the
    mean of each window is taken off. A sinusoid of amplitude A well inside the band has the power A²/2.

    Args:
        signal: samples, shape (n,).
        ends: index after the last sample of each window, shape (windows,).
        length: samples a window.
        fs_hz: sampling rate.
        band_hz: the band; default 13-35 Hz.

    Raises:
        UserError: a window reaches beyond the signal, a value is not finite, or the band cannot be resolved.
    """
    frequencies, density = spectra(signal, ends, length, fs_hz, band_hz)
    return np.asarray(np.trapezoid(density, frequencies, axis=1), dtype=np.float64)


def spectra(
    signal: Floats,
    ends: NDArray[np.int64],
    length: int,
    fs_hz: float = 1000.0 / LFP_STEP_MS,
    band_hz: tuple[float, float] = LFP_BAND_HZ,
) -> tuple[Floats, Floats]:
    """Frequencies (f,) in Hz and the one-sided density of each window (windows, f); see `band_power`.

    Raises:
        UserError: as `band_power`.
    """
    signal, ends = np.asarray(signal, dtype=np.float64), np.atleast_1d(np.asarray(ends, dtype=np.int64))
    if signal.ndim != 1:
        raise UserError(f"the signal has shape {signal.shape}: expected (n,)")
    if not np.isfinite(signal).all():
        raise UserError(f"sample {int(np.flatnonzero(~np.isfinite(signal))[0])} of the signal is not finite")
    if len(ends) and not (ends.min() >= length and ends.max() <= len(signal)):
        raise UserError(f"a window of {length} samples reaches beyond the signal of {len(signal)} samples")
    projection = _projection(length, fs_hz, band_hz)
    windows = np.lib.stride_tricks.sliding_window_view(signal, length)[ends - length]
    # real times (real, imaginary) columns: half the work of the complex product
    amplitude = np.ascontiguousarray(windows) @ projection.matrix.view(np.float64)
    amplitude = amplitude.reshape(len(ends), N_TAPERS, len(projection.frequencies), 2)
    return projection.frequencies, np.asarray((amplitude**2).sum(axis=(1, 3)))


def beta_envelope(
    signal: Floats,
    fs_hz: float = 1000.0 / LFP_STEP_MS,
    band_hz: tuple[float, float] = LFP_BAND_HZ,
    smooth_ms: float = 200.0,
) -> Floats:
    """Amplitude of the band over time, shape (n,), for bursts; it looks ahead, so it is for analysis, not for control.

    Band-pass (Butterworth, order 2, forward and back), magnitude of the analytic signal, moving average of 0.2 s as
    in Tinkhauser et al. 2017 (Brain 140:1053).

    Raises:
        UserError: the band is not inside 0..fs/2, or the signal is shorter than the filter needs.
    """
    from scipy import signal as sp

    if not 0.0 < band_hz[0] < band_hz[1] < fs_hz / 2.0:
        raise UserError(f"the band {band_hz[0]:g}-{band_hz[1]:g} Hz must lie inside 0..{fs_hz / 2:g} Hz")
    smooth = max(1, round(smooth_ms * fs_hz / 1000.0))
    needed = max(smooth, round(3.0 * fs_hz / band_hz[0]))
    if signal.ndim != 1 or len(signal) < needed:
        raise UserError(f"the signal has shape {signal.shape}: expected (n,) with at least {needed} samples")
    design: Callable[..., Floats] = sp.butter
    sos = design(2, band_hz, btype="bandpass", fs=fs_hz, output="sos")
    magnitude = np.abs(sp.hilbert(np.asarray(sp.sosfiltfilt(sos, signal - signal.mean()), dtype=np.float64)))
    weight = np.convolve(np.ones(len(signal)), np.ones(smooth), mode="same")
    return np.asarray(np.convolve(magnitude, np.ones(smooth), mode="same") / weight, dtype=np.float64)
