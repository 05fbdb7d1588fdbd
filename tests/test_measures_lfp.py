"""The LFP proxy by hand-computed currents, its band power by known signals, artefact and blanking."""

from __future__ import annotations

import math

import numpy as np
import pytest

from envs.biomarkers.bursts import find_bursts
from envs.biomarkers.lfp import (
    band_power,
    beta_envelope,
    blanked_samples,
    fill,
    lfp_proxy,
    spectra,
    stimulation_artefact,
    stn_currents,
    stn_synaptic_current,
)
from envs.errors import UserError
from envs.plant.common import CE, GPE, STN
from envs.plant.inputs import SmcRenewal
from envs.plant.network import Plant
from envs.plant.state import EVENT_SLOTS, Network, State, draw_network, initial_state
from envs.plant.synapses import kernel_tables

DT = 0.02
TABLES = kernel_tables(DT)
T = np.arange(4000) * 1.0  # ms


def _network() -> Network:
    """Known conductances: AMPA 0.1, 0.2, ..., 1; NMDA a hundredth of it."""
    g = np.arange(1, 11) / 10.0
    return draw_network(np.random.default_rng(0))._replace(g_ctx_stn_ampa=g, g_ctx_stn_nmda=g / 100.0)


def _state(events: list[tuple[int, int, int]], now: int) -> State:
    """A state at sample ``now`` with events (source row, cell, sample), oldest first."""
    state = initial_state(_network())
    state.V[STN] = -50.0
    state.sample[0] = now
    state.event_first[:] = EVENT_SLOTS - 1  # the ring wraps at once
    for source, cell, sample in events:
        at = (EVENT_SLOTS - 1 + state.event_count[source, cell]) % EVENT_SLOTS
        state.event[source, cell, at] = sample
        state.event_count[source, cell] += 1
    return state


def _biexp(g: float, x: float, decay: float, rise: float) -> float:
    peak = decay * rise / (decay - rise) * math.log(decay / rise)
    return g * (math.exp(-x / decay) - math.exp(-x / rise)) / (math.exp(-peak / decay) - math.exp(-peak / rise))


def test_no_events_no_current() -> None:
    currents = stn_synaptic_current(_state([], 1000), _network(), TABLES, DT)
    assert currents.shape == (3, 10)
    assert lfp_proxy(currents) == 0.0


def test_one_pallidal_event_gives_the_hand_computed_current() -> None:
    # Cell 3 of the GPe fired 10 ms ago; after its delay of 4 ms STN cells 3 and 2 hear it.
    currents = stn_synaptic_current(_state([(GPE, 3, 500)], 1000), _network(), TABLES, DT)
    expected = 0.5 * (-60.0 + 85.0) * _biexp(0.3, 6.0, 7.7, 0.4)
    assert currents[0].tolist() == pytest.approx([0, 0, expected, expected, 0, 0, 0, 0, 0, 0])
    assert not currents[1:].any()
    assert lfp_proxy(currents) == pytest.approx(2.0 * expected)


def test_cortical_events_add_up_and_carry_each_cell_s_conductance() -> None:
    # Cortical cell 0 (row 6 of the events) fired 10.9 and 5.9 + 0.1 ms ago: STN cells 0 and 9 hear it.
    currents = stn_synaptic_current(_state([(CE, 0, 455), (CE, 0, 700)], 1000), _network(), TABLES, DT)
    ampa = sum(_biexp(0.43, x, 2.49, 0.5) for x in (5.0, 0.1))
    nmda = sum(_biexp(0.43, x, 90.0, 2.0) for x in (5.0, 0.1))
    assert currents[1, [0, 9]].tolist() == pytest.approx([0.1 * -60.0 * ampa, 1.0 * -60.0 * ampa])
    assert currents[2, [0, 9]].tolist() == pytest.approx([0.001 * -60.0 * nmda, 0.01 * -60.0 * nmda])
    assert not currents[:, 1:9].any()
    assert lfp_proxy(currents) == pytest.approx(60.0 * 1.1 * (ampa + nmda / 100.0))


def test_old_events_end_and_own_voltage_can_be_asked_for() -> None:
    events = [(GPE, 0, 0), (GPE, 5, 60_500)]  # the first is older than 1000 ms
    held = stn_synaptic_current(_state(events, 61_000), _network(), TABLES, DT)
    assert np.flatnonzero(held[0]).tolist() == [4, 5]
    own = stn_synaptic_current(_state(events, 61_000), _network(), TABLES, DT, holding_mV=None)
    assert own[0, 5] / held[0, 5] == pytest.approx((-50.0 + 85.0) / (-60.0 + 85.0))
    with pytest.raises(UserError, match="kernel tables"):
        stn_synaptic_current(_state([], 0), _network(), TABLES, 0.01)


def test_currents_are_those_of_the_plant() -> None:
    """One update of the STN with and without its synapses differs by dt times these currents."""
    plant = Plant.draw(np.random.default_rng(1))
    zero = np.zeros(15_000)
    plant.advance(SmcRenewal(np.random.default_rng(2), DT).take(15_000), zero)
    currents = stn_synaptic_current(plant.state, plant.network, TABLES, DT, holding_mV=None)
    assert (np.abs(currents).sum(axis=1) > 0.0).all()
    silent = Plant.from_state(plant.get_state())
    silent.state.event_count[:] = 0
    for each in (plant, silent):
        each.advance(zero[:1], zero[:1])
    np.testing.assert_allclose(plant.state.V[STN] - silent.state.V[STN], -DT * currents.sum(axis=0), atol=1e-12)


def test_linear_in_its_activations() -> None:
    ones = np.ones(10)
    currents = stn_currents(np.full(10, -60.0), ones, ones, ones, _network())
    np.testing.assert_allclose(currents[0], 25.0)
    np.testing.assert_allclose(currents[1], -12.0 * np.arange(1, 11))


@pytest.mark.parametrize("length", [500, 1000])
@pytest.mark.parametrize("hz", [20.0, 24.3, 28.0])
def test_sinusoid_in_the_band_has_half_its_squared_amplitude(hz: float, length: int) -> None:
    signal = 5.0 + 3.0 * np.sin(2.0 * np.pi * hz * T / 1000.0 + 0.7)
    power = band_power(signal, np.array([length, 2000, 4000]), length)
    np.testing.assert_allclose(power, 4.5, rtol=0.02)


@pytest.mark.parametrize("hz", [3.0, 7.0, 45.0, 130.0])
def test_sinusoid_outside_the_band_has_no_power(hz: float) -> None:
    signal = 3.0 * np.sin(2.0 * np.pi * hz * T / 1000.0)
    assert band_power(signal, np.array([4000]), 1000)[0] < 0.05


def test_white_noise_has_a_flat_density() -> None:
    noise = np.random.default_rng(0).normal(0.0, 2.0, 60_000)
    ends = np.arange(1000, 60_001, 1000)
    frequencies, density = spectra(noise, ends, 1000)
    assert frequencies[[0, -1]].tolist() == [13.0, 35.0]
    assert density.mean() == pytest.approx(4.0 / 500.0, rel=0.05)  # variance over 0..500 Hz
    assert band_power(noise, ends, 1000).mean() == pytest.approx(4.0 * 22.0 / 500.0, rel=0.05)


@pytest.mark.parametrize(
    ("signal", "ends", "length", "words"),
    [
        (np.zeros((2, 2)), [1], 1, "shape"),
        (np.array([0.0, np.nan] * 1000), [1000], 1000, "sample 1 of the signal is not finite"),
        (np.zeros(1000), [999], 1000, "reaches beyond"),
        (np.zeros(1000), [1001], 1000, "reaches beyond"),
        (np.zeros(1000), [40], 40, "cannot resolve"),
    ],
)
def test_unusable_signals_are_refused(signal: np.ndarray, ends: list[int], length: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        band_power(signal, np.array(ends), length)


def test_blanked_samples_lie_around_the_pulses() -> None:
    times = np.arange(10) * 1.0
    assert np.flatnonzero(blanked_samples(times, np.array([3.0]), 1.0, 2.0)).tolist() == [2, 3, 4]
    assert not blanked_samples(times, np.zeros(0)).any()
    assert np.flatnonzero(blanked_samples(times, np.array([3.0, 3.5, 8.0]), 0.0, 1.0)).tolist() == [3, 4, 8]
    with pytest.raises(UserError, match="sorted"):
        blanked_samples(times, np.array([4.0, 3.0]))


def test_gaps_are_filled_by_lines_and_held_at_the_ends() -> None:
    signal = np.array([9.0, 1.0, 9.0, 9.0, 4.0, 9.0])
    bad = np.array([True, False, True, True, False, True])
    assert fill(signal, bad).tolist() == [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
    with pytest.raises(UserError, match="all 6 samples"):
        fill(signal, np.ones(6, dtype=bool))


def test_artefact_decays_and_blanking_takes_it_off() -> None:
    pulses = np.arange(0.0, 4000.0, 20.0) + 0.25
    artefact = stimulation_artefact(T, pulses, 100.0, tau_ms=0.5)
    assert artefact[1] == pytest.approx(100.0 * math.exp(-0.75 / 0.5))
    assert artefact[0] == 0.0
    beta = 2.0 * np.sin(2.0 * np.pi * 27.0 * T / 1000.0)
    bad, end = blanked_samples(T, pulses), np.array([4000])
    irregular = np.delete(pulses, np.random.default_rng(0).integers(0, len(pulses), 80))
    noisy = beta + stimulation_artefact(T, irregular, 300.0)
    assert band_power(noisy, end, 1000)[0] > 4.0
    assert band_power(fill(noisy, bad), end, 1000)[0] == pytest.approx(2.0, rel=0.1)


def test_envelope_shows_a_burst_of_known_amplitude_and_length() -> None:
    rng = np.random.default_rng(0)
    on = (T >= 1500.0) & (T < 2300.0)
    signal = np.where(on, 4.0, 0.2) * np.sin(2.0 * np.pi * 22.0 * T / 1000.0) + 0.1 * rng.standard_normal(len(T))
    envelope = beta_envelope(signal)
    assert envelope[1800:2000] == pytest.approx(4.0, rel=0.05)
    assert envelope[500:1000].max() < 0.4
    bursts = find_bursts(envelope, 1.0, threshold=2.0)
    assert len(bursts.onsets_ms) == 1
    assert bursts.onsets_ms[0] == pytest.approx(1500.0, abs=60.0)
    assert bursts.durations_ms[0] == pytest.approx(800.0, abs=80.0)
    with pytest.raises(UserError, match="at least"):
        beta_envelope(signal[:100])
    with pytest.raises(UserError, match="inside 0"):
        beta_envelope(signal, band_hz=(13.0, 600.0))
