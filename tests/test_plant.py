"""Plant state, inputs, stimulation current."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from envs.plant import striatum
from envs.plant.inputs import SMC_AMPLITUDE, SmcQueue, SmcRenewal, draw_smc_onsets, smc_array
from envs.plant.network import Plant
from envs.plant.state import State, draw_network
from envs.stimulation import CurrentBuilder, MaskSource, Pulse, regular_train


def _plant(seed: int = 3) -> Plant:
    return Plant.draw(np.random.default_rng(seed))


def _inputs(n: int) -> tuple[np.ndarray, np.ndarray]:
    smc = SmcRenewal(np.random.default_rng(7), 0.02).take(n)
    return smc, regular_train(130.0, n, 0.02)


def test_save_restore_continue_is_the_uninterrupted_run() -> None:
    smc, dbs = _inputs(12_000)
    whole, split = _plant(), _plant()
    record = whole.advance(smc, dbs)
    first = split.advance(smc[:5000], dbs[:5000])
    again = Plant.from_state(split.get_state())
    split.advance(smc[5000:9000], dbs[5000:9000])  # the original goes on: the copy must not notice
    second = again.advance(smc[5000:], dbs[5000:])
    for name, expected in whole.state.to_dict().items():
        np.testing.assert_array_equal(again.state.to_dict()[name], expected, err_msg=name)
    np.testing.assert_array_equal(np.concatenate([first.events, second.events]), record.events)
    np.testing.assert_array_equal(np.concatenate([first.gpi_spikes, second.gpi_spikes]), record.gpi_spikes)
    assert len(record.gpi_spikes) > 20


def test_state_with_a_missing_or_misshapen_field_is_refused() -> None:
    values = _plant().state.to_dict()
    with pytest.raises(UserError, match="'stn_ca' has shape None"):
        State.from_dict({k: v for k, v in values.items() if k != "stn_ca"})
    with pytest.raises(UserError, match=r"'V' has shape \(8, 9\), expected \(8, 10\)"):
        State.from_dict({**values, "V": values["V"][:, :9]})


def test_non_finite_input_and_voltage_are_named() -> None:
    plant = _plant()
    smc = np.zeros(10)
    with pytest.raises(UserError, match="not finite"):
        plant.advance(smc, np.full(10, np.nan))
    plant.state.V[3, 4] = np.nan
    with pytest.raises(UserError, match=r"voltage of gpi cell 4 is not finite at 0\.20 ms"):
        plant.advance(smc, smc)
    with pytest.raises(UserError, match=r"shapes \(10,\) and \(9,\)"):
        _plant().advance(smc, smc[1:])


@pytest.mark.parametrize("dt", [0.0, 0.003, 0.05, 0.013, -0.02])
def test_untested_step_is_refused(dt: float) -> None:
    with pytest.raises(UserError, match="dt_ms"):
        Plant.draw(np.random.default_rng(0), dt_ms=dt)


def test_network_draws_have_the_released_structure() -> None:
    network = draw_network(np.random.default_rng(0))
    assert (np.sort(network.perm, axis=1) == np.arange(10)).all()
    assert np.count_nonzero(network.g_stn_gpi) == 5
    assert np.count_nonzero(network.g_stn_gpe_ampa) == np.count_nonzero(network.g_stn_gpe_nmda) == 2
    assert ((network.g_ctx_d1 >= 0.026) & (network.g_ctx_d1 <= 0.027)).all()
    with pytest.raises(UserError, match=r"pd is 1\.5"):
        draw_network(np.random.default_rng(0), pd=1.5)


@pytest.mark.parametrize(
    ("name", "V0", "limit"), [("alpha_m", -54, 1.28), ("beta_m", -27, 1.4), ("alpha_n", -52, 0.16)]
)
def test_removable_singularities_have_their_limits(name: str, V0: float, limit: float) -> None:
    rate = getattr(striatum, name)
    assert rate(V0) == pytest.approx(limit, rel=1e-12)
    assert rate(V0 + 1e-6) == pytest.approx(limit, rel=1e-6)
    assert rate(V0 - 1e-6) == pytest.approx(limit, rel=1e-6)


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 4000), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_smc_renewal_does_not_notice_boundaries(seed: int, cuts: list[int]) -> None:
    whole = SmcRenewal(np.random.default_rng(seed), 0.02).take(sum(cuts))
    train = SmcRenewal(np.random.default_rng(seed), 0.02)
    np.testing.assert_array_equal(np.concatenate([train.take(n) for n in cuts]), whole)


def test_smc_train_has_its_rate_and_width() -> None:
    onsets = draw_smc_onsets(np.random.default_rng(0), 5_000_000, 0.02)  # 100 s
    assert 13.0 < len(onsets) / 100.0 < 14.6  # harmonic mean of the gamma rates lies a little below 14 Hz
    train = smc_array(onsets[:1], 10_000, 0.02)
    assert np.count_nonzero(train) == 250
    assert train.max() == SMC_AMPLITUDE


def test_released_queue_keeps_overruns() -> None:
    queue = SmcQueue(np.random.default_rng(0), 0.02)
    queue.append_train(1000, onsets=[900])  # 250 samples wide: 150 too long
    queue.take(1000)
    queue.append_train(1000, onsets=[100])
    late = queue.take(1000)
    assert np.flatnonzero(late)[0] == 0
    assert (np.flatnonzero(late)[150:] == np.arange(250, 500)).all()


@given(
    period=st.integers(10, 200), width=st.integers(1, 9), cuts=st.lists(st.integers(1, 300), min_size=1, max_size=20)
)
@settings(max_examples=50, deadline=None)
def test_pulses_cross_chunk_borders_whole(period: int, width: int, cuts: list[int]) -> None:
    builder, total = CurrentBuilder(0.02), sum(cuts)
    onsets = list(range(0, total, period))
    expected = np.zeros(total + width)
    for onset in onsets:
        expected[onset : onset + width] = 300.0
    got, now = [], 0
    for n in cuts:
        for onset in [o for o in onsets if now <= o < now + n]:
            builder.add(Pulse(onset * 20, 300.0, width * 0.02))
        got.append(builder.take(n))
        now += n
    np.testing.assert_array_equal(np.concatenate(got), expected[:total])


def test_impossible_pulses_are_refused() -> None:
    builder = CurrentBuilder(0.02)
    with pytest.raises(UserError, match="no whole number"):
        builder.add(Pulse(0, 300.0, 0.31))
    builder.add(Pulse(0, 300.0, 0.3))
    with pytest.raises(UserError, match="overlaps"):
        builder.add(Pulse(200, 300.0, 0.3))
    builder.take(100)
    with pytest.raises(UserError, match="after the plant had passed"):
        builder.add(Pulse(1000, 300.0, 0.3))


def test_device_pulse_maps_to_the_plant() -> None:
    pulse = Pulse.from_device(40, 3000.0, 60.0)
    assert (pulse.amplitude_uA_cm2, pulse.width_ms) == pytest.approx((300.0, 0.3))
    assert pulse.charge_nC_cm2 == pytest.approx(90.0)
    source = MaskSource(300.0, 0.3)
    source.begin(np.array([1, 0, 1], np.int8), 0, (0, 20_000, 40_000))
    assert [p.t_us for p in source.until(20_000)] == [0]
    assert [p.t_us for p in source.until(60_000)] == [40_000]


def test_regular_train_keeps_real_time() -> None:
    train = regular_train(130.0, 50_000, 0.02)
    onsets = np.flatnonzero(np.diff(np.concatenate([[0.0], train])) > 0)
    assert len(onsets) == 130
    np.testing.assert_allclose(onsets * 0.02, np.arange(130) * 1000.0 / 130.0, atol=0.011)
    with pytest.raises(UserError, match="186"):
        regular_train(186.0, 1000, 0.02)
