"""P_beta against its definition, written out with SciPy's own tapers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal.windows import dpss

from envs.biomarkers.multitaper import BETA_BAND_HZ, _run, beta_trace, spectrum
from envs.errors import UserError


def _definition(spikes: np.ndarray, first: int, n: int, dt_ms: float) -> float:
    """Chronux's point-process multitaper spectrum [3 5], pad 0, integrated over 13 < f < 35 Hz."""
    fs = 1000.0 / dt_ms
    nfft = max(2 ** int(np.ceil(np.log2(n))), n)
    tapers = dpss(n, 3, 5) * np.sqrt(fs)
    f = np.arange(nfft) * fs / nfft
    band = (f > 13.0) & (f < 35.0)
    transforms = np.fft.fft(tapers, nfft)[:, band]
    total = np.zeros(band.sum())
    for cell in range(10):
        m = spikes[spikes[:, 1] == cell, 0] - first
        phases = np.exp(-2j * np.pi * np.outer(m, f[band]) / fs)
        J = tapers[:, m] @ phases - len(m) / n * transforms
        total += (np.abs(J) ** 2).mean(axis=0)
    return float(np.trapezoid(total / 10.0, f[band]))


def _spikes(seed: int, n: int = 300, end: int = 60_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.integers(0, end, n)), rng.integers(0, 9, n)], axis=1)  # cell 9 is silent


@pytest.mark.parametrize("seed", [0, 1])
def test_both_grids_equal_the_definition(seed: int) -> None:
    spikes = _spikes(seed)
    starts = np.array([50, 3_333, 9_000])
    fixed = beta_trace(spikes, starts, 50_000, 0.02, fixed_grid=True)
    released = beta_trace(spikes, starts, 50_000, 0.02, fixed_grid=False)
    for w, start in enumerate(starts):
        inside = spikes[(spikes[:, 0] >= start) & (spikes[:, 0] < start + 50_000)]
        q0, q1 = inside[0, 0], inside[-1, 0]
        assert released[w] == pytest.approx(_definition(inside, q0 - 1, q1 - q0 + 3, 0.02), rel=1e-6)
        assert fixed[w] == pytest.approx(_definition(inside, start, 50_001, 0.02), rel=1e-6)


@pytest.mark.parametrize("dt_ms", [0.01, 0.02])
@pytest.mark.parametrize("length_ms", [150, 327.7, 655.36, 1000, 1310, 1311, 3500])
def test_sliding_sums_are_the_single_windows_at_any_length(length_ms: float, dt_ms: float) -> None:
    length = round(length_ms / dt_ms)
    spikes = _spikes(2, n=900, end=3 * length)
    starts = np.sort(np.random.default_rng(1).integers(0, 2 * length, 12))
    each = _run(spikes, starts, length, dt_ms, True, BETA_BAND_HZ)[0]
    np.testing.assert_allclose(beta_trace(spikes, starts, length, dt_ms, fixed_grid=True), each, rtol=2e-7)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_trace_is_the_same_bytes_however_it_is_split(fixed: bool) -> None:
    spikes = _spikes(3, n=700, end=120_000) + np.array([10**9, 0])  # after 5.5 hours
    starts = 10**9 + np.arange(0, 60_000, 50)
    whole = beta_trace(spikes, starts, 50_000, 0.02, fixed_grid=fixed)
    parts, at = [], 0
    for n in (1, 1, 50, 400, 748):
        some = starts[at : at + n]
        kept = (spikes[:, 0] >= some[0] - 3 * n) & (spikes[:, 0] < some[-1] + 50_000)
        parts.append(beta_trace(spikes[kept], some, 50_000, 0.02, fixed_grid=fixed))
        at += n
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_windows_with_the_same_spikes_have_the_same_value_on_the_released_grid() -> None:
    spikes = np.array([[10_000 + 997 * i, i % 10] for i in range(40)])
    power = beta_trace(spikes, np.arange(0, 9_000, 50), 50_000, 0.02, fixed_grid=False)
    assert (power == power[0]).all()


def test_a_regular_train_in_the_band_has_its_line() -> None:
    spikes = np.stack(
        [np.repeat(np.arange(25) * 2000 + 500, 10), np.tile(np.arange(10), 25)], axis=1
    )  # 25 Hz, all cells
    f, S, beta = spectrum(spikes, 0, 50_000, 0.02, fixed_grid=True, band_hz=(1.0, 40.0))
    # The [3 5] tapers spread a line over ±3 Hz.
    assert abs(f[np.argmax(S)] - 25.0) <= 3.0
    assert S[np.abs(f - 25.0) > 4.0].max() < 0.01 * S.max()
    assert beta == pytest.approx(25.0**2, rel=1e-3)  # a line of a train at rate r holds r²


def test_poisson_trains_have_a_flat_spectrum_at_their_rate() -> None:
    rng = np.random.default_rng(0)
    total = 0.0
    for _ in range(20):
        spikes = np.stack([np.sort(rng.integers(0, 50_000, 250)), rng.integers(0, 10, 250)], axis=1)
        total += beta_trace(spikes, np.array([0]), 50_000, 0.02, fixed_grid=True)[0]
    assert total / 20.0 == pytest.approx(25.0 * 20.6, rel=0.05)  # 25 Hz a cell × the width of the grid inside 13-35 Hz


def test_silence() -> None:
    none = np.zeros((0, 2), dtype=np.int64)
    assert beta_trace(none, np.array([0]), 50_000, 0.02, fixed_grid=True)[0] == 0.0
    with pytest.raises(UserError, match="no GPi cell fires in the window that begins at sample 7"):
        beta_trace(none, np.array([7]), 50_000, 0.02, fixed_grid=False)


def test_wrong_input_is_refused() -> None:
    spikes = _spikes(0)
    with pytest.raises(UserError, match="sorted"):
        beta_trace(spikes[::-1], np.array([0]), 50_000, 0.02, fixed_grid=True)
    with pytest.raises(UserError, match=r"shape \(300,\)"):
        beta_trace(spikes[:, 0], np.array([0]), 50_000, 0.02, fixed_grid=True)
    with pytest.raises(UserError, match=r"cells 0 to 16: allowed are 0 to 9"):
        beta_trace(spikes * np.array([1, 2]), np.array([0]), 50_000, 0.02, fixed_grid=False)
    with pytest.raises(UserError, match="cannot resolve"):
        beta_trace(spikes, np.array([0]), 200, 0.02, fixed_grid=True)
