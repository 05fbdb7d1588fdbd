"""The thalamic error index: hand-made trains, a literal second implementation, the released values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.basal_ganglia import BasalGangliaEnv
from envs.biomarkers.error_index import ErrorIndex, error_index, input_onsets
from envs.errors import UserError
from envs.npz import read_npz
from envs.plant.inputs import SmcRenewal
from envs.plant.network import Plant
from envs.stimulation import regular_train
from envs.verify import ENV_KEYS, oracle_env
from envs.watch import WatchedPlant

DT = 0.02  # ms
MS = 50  # samples a ms
GOLDEN = Path(__file__).parent / "golden" / "env_s0_short.npz"


def _one_window(
    spikes: list[tuple[float, int]], onsets: list[float], length: float = 100.0, *, reference: bool = False
) -> ErrorIndex:
    """Spikes (ms, cell) and onsets (ms) in the window 0..length ms."""
    trains = np.array([(round(t * MS), cell) for t, cell in spikes], dtype=np.int64).reshape(-1, 2)
    samples = np.array([round(t * MS) for t in onsets], dtype=np.int64)
    return error_index(trains, samples, np.array([0]), round(length * MS), DT, reference=reference)


def _relay(t: float) -> list[tuple[float, int]]:
    """Every cell answers at t."""
    return [(t, cell) for cell in range(10)]


def test_faithful_relay_has_no_error() -> None:
    result = _one_window([*_relay(15.0), *_relay(70.0)], [10.0, 60.0])
    assert result.ei[0] == 0.0
    assert result.inputs[0] == 2


def test_each_kind_of_error_is_counted() -> None:
    spikes = [*_relay(15.0), *_relay(70.0)]
    spikes.remove((15.0, 3))  # missed, one of 20 answers
    spikes += [(20.0, 4), (21.0, 4)]  # three spikes in 25 ms are one bad response
    spikes += [(40.0, 5), (45.0, 5), (90.0, 6)]  # three spurious spikes
    result = _one_window(spikes, [10.0, 60.0])
    parts = (result.missed[0], result.bad[0], result.spurious[0], result.ei[0])
    assert parts == pytest.approx((1 / 20, 1 / 20, 3 / 20, 5 / 20))


def test_borders_of_the_response_and_of_the_window() -> None:
    assert _one_window(_relay(10.0), [10.0]).ei[0] == 0.0  # at the onset: a response
    assert _one_window(_relay(34.98), [10.0]).ei[0] == 0.0  # the last sample before 25 ms
    late = _one_window(_relay(35.0), [10.0])
    assert (late.missed[0], late.spurious[0]) == (1.0, 1.0)
    assert _one_window([], [75.0]).inputs[0] == 1  # 25 ms left
    assert _one_window([], [75.02]).inputs[0] == 0
    assert _one_window([], [0.0]).inputs[0] == 0  # not strictly inside
    end = _one_window([*_relay(15.0), (100.0, 0), (100.02, 1)], [10.0])
    assert end.spurious[0] == pytest.approx(0.1)  # the window's last sample belongs to it, the next does not


def test_spikes_before_the_first_input_do_not_count() -> None:
    assert _one_window([(5.0, 0), *_relay(15.0)], [10.0]).ei[0] == 0.0


def test_released_form_has_no_limit_on_the_last_input() -> None:
    late = _relay(50.0)  # 40 ms after the input
    assert _one_window(late, [10.0]).ei[0] == 2.0  # missed, and spurious
    assert _one_window(late, [10.0], reference=True).ei[0] == 0.0  # taken for the response
    # A later input, too near to the end to count, bounds the response, and "late" spikes count twice.
    both = _one_window(late, [10.0, 80.0], reference=True)
    assert (both.missed[0], both.spurious[0]) == (0.0, 1.0)


def test_window_without_a_counted_input_is_nan() -> None:
    result = error_index(np.zeros((0, 2)), np.array([500]), np.array([0, 600]), 5000, DT)
    assert result.ei[0] == 1.0
    assert np.isnan(result.ei[1])
    assert result.inputs.tolist() == [1, 0]


def _literal(
    spikes: np.ndarray, onsets: np.ndarray, start: int, length: int, limit: int, reference: bool
) -> tuple[float, int]:
    """The definition, word by word."""
    end = start + length
    inside = [int(p) for p in onsets if start < p < end]
    counted = [p for p in inside if p <= end - limit]
    errors = 0
    for cell in range(10):
        train = [int(t) for t, k in spikes if k == cell and start < t <= end]
        for p in counted:
            following = next((q for q in inside if q > p), None)
            until = end + 1 if following is None else following
            response, late = (p, p + limit), (p + limit, until)
            if reference and p == counted[-1]:
                response = (p, end if following is None else following)
                late = (0, 0) if following is None else late
            answers = sum(response[0] <= t < response[1] for t in train)
            errors += (answers == 0) + (answers > 1) + sum(late[0] <= t < late[1] for t in train)
    return (errors / 10 / len(counted) if counted else np.nan), len(counted)


@given(
    spikes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 9)), max_size=80),
    onsets=st.lists(st.integers(0, 4000), max_size=12, unique=True),
    starts=st.lists(st.integers(0, 2500), min_size=1, max_size=6),
    length=st.integers(100, 2000),
    reference=st.booleans(),
)
@settings(max_examples=150)
def test_sums_over_all_windows_are_the_literal_definition(
    spikes: list[tuple[int, int]], onsets: list[int], starts: list[int], length: int, reference: bool
) -> None:
    trains, samples = np.array(spikes, dtype=np.int64).reshape(-1, 2), np.array(sorted(onsets), dtype=np.int64)
    dt = 0.2  # ms: 125 samples of response, so that all cases occur often
    result = error_index(trains, samples, np.array(starts), length, dt, reference=reference)
    for w, start in enumerate(starts):
        ei, inputs = _literal(trains, samples, start, length, 125, reference)
        np.testing.assert_allclose(result.ei[w], ei, rtol=1e-12)
        assert result.inputs[w] == inputs


def test_wrong_input_is_refused() -> None:
    one = np.array([0])
    with pytest.raises(UserError, match=r"shape \(3,\)"):
        error_index(np.zeros(3), one, one, 100, DT)
    with pytest.raises(UserError, match="a cell outside 0"):
        error_index(np.array([[5, 10]]), one, one, 100, DT)
    with pytest.raises(UserError, match="sorted"):
        error_index(np.zeros((0, 2)), np.array([5, 3]), one, 100, DT)


def test_onsets_are_rising_edges_across_chunks() -> None:
    current = np.array([0.0, 3.5, 3.5, 0.0, 3.5])
    assert input_onsets(current, 100).tolist() == [101, 104]
    assert input_onsets(current[2:], 102, before=3.5).tolist() == [104]


def test_released_error_index_is_reproduced() -> None:
    class Watched(BasalGangliaEnv):
        plant_type = WatchedPlant

    data = read_npz(GOLDEN, ENV_KEYS)
    env, options = oracle_env(data, Watched)
    c = env.config
    window, stride = round(c.window_ms / c.dt_ms), round(c.stride_ms / c.dt_ms)
    env.reset(seed=0, options=options)
    seen = []
    for step in range(4):
        if step:
            env.step(data["actions"][step - 1])
        plant = env.ready()
        assert isinstance(plant, WatchedPlant)
        watched = plant.watched
        starts = plant.sample - window - np.arange(c.n_obs - 1, -1, -1) * stride
        onsets = watched.onsets - (step == 0)  # the released reset dates them one sample early
        result = error_index(watched.th_spikes, onsets, starts, window, c.dt_ms, reference=True)
        np.testing.assert_allclose(result.ei, data[f"ei_{step}"], atol=1e-12)
        seen += result.ei.tolist()
    assert np.isnan(seen).sum() == 2  # where the release would stop
    assert np.nanmax(seen) > 0.5


def test_watching_does_not_change_the_plant() -> None:
    n = 4000
    smc = SmcRenewal(np.random.default_rng(7), DT).take(n)
    dbs = regular_train(130.0, n, DT)
    plain, watched = Plant.draw(np.random.default_rng(3)), WatchedPlant.draw(np.random.default_rng(3))
    expected = plain.advance(smc, dbs)
    parts = [watched.advance(smc[:1501], dbs[:1501]), watched.advance(smc[1501:], dbs[1501:])]
    np.testing.assert_array_equal(np.concatenate([part.events for part in parts]), expected.events)
    np.testing.assert_array_equal(np.concatenate([part.gpi_spikes for part in parts]), expected.gpi_spikes)
    for name, value in plain.state.to_dict().items():
        np.testing.assert_array_equal(watched.state.to_dict()[name], value, err_msg=name)
    seen = watched.watched
    assert seen.lfp_samples.tolist() == list(range(50, n + 1, 50))
    assert len(seen.lfp) == 80
    np.testing.assert_array_equal(seen.onsets, input_onsets(smc, 1))
    relayed = expected.events[expected.events[:, 1] == 0]  # -40 mV is passed just before -10 mV
    for sample, _, cell in relayed:
        lag = sample - seen.th_spikes[seen.th_spikes[:, 1] == cell, 0]
        assert ((lag >= 0) & (lag <= 3 * MS)).any()
