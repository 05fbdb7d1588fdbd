"""Sensing wrappers: stimulation artefact and its blanking, missing samples."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import envs
from envs.errors import UserError
from envs.registration import base_env, get_env_state, set_env_state
from envs.wrappers import MissingSamples
from envs.wrappers.artefact import recorded_spikes
from envs.wrappers.missing import LossProcess, fill_missing

SHORT: dict[str, Any] = {
    "slots": 5,
    "window_ms": 150.0,
    "stride_ms": 20.0,
    "n_obs": 6,
    "settle_ms": 260.0,
    "episode_steps": 4,
}
ON, OFF = np.ones(5, np.int8), np.zeros(5, np.int8)


def _make(**overrides: Any) -> gymnasium.Env[Any, Any]:
    return envs.make_env(**{**SHORT, **overrides})


# -- artefact ------------------------------------------------------------------------------------------------------


def test_spikes_near_a_pulse_are_lost_and_raw_artefacts_are_taken_for_spikes() -> None:
    spikes = np.array([[99, 0], [100, 1], [149, 2], [150, 3], [400, 4]])
    blanked = recorded_spikes(spikes, np.array([100]), 50, spurious=False)
    assert blanked.tolist() == [[99, 0], [150, 3], [400, 4]]
    raw = recorded_spikes(spikes, np.array([100]), 50, spurious=True)
    assert raw.tolist() == [[99, 0], *([100, cell] for cell in range(10)), [150, 3], [400, 4]]
    assert recorded_spikes(spikes, np.zeros(0, np.int64), 50, spurious=True).tolist() == spikes.tolist()


def test_artefact_touches_the_observation_only_when_there_are_pulses() -> None:
    plain, raw, blanked = _make(), _make(artefact="raw"), _make(artefact="blanked")
    first = [env.reset(seed=3)[0] for env in (plain, raw, blanked)]
    np.testing.assert_array_equal(first[0], first[1])
    quiet = [env.step(OFF) for env in (plain, raw, blanked)]
    np.testing.assert_array_equal(quiet[0][0], quiet[2][0])
    loud = [env.step(ON) for env in (plain, raw, blanked)]
    assert loud[0][1] == loud[1][1] == loud[2][1]  # the reward is the true one
    assert loud[0][4] == loud[1][4] == loud[2][4]
    assert np.abs(loud[1][0] - loud[0][0]).max() > 0.05
    assert np.abs(loud[2][0] - loud[0][0]).max() > 1e-4
    # 50 Hz artefacts on all cells at once are far from the truth, missing a few spikes is not.
    assert np.abs(loud[2][0] - loud[0][0]).mean() < np.abs(loud[1][0] - loud[0][0]).mean()


def test_pulses_are_remembered_as_far_back_as_windows_reach() -> None:
    env = _make()
    env.reset(seed=0)
    for _ in range(4):
        env.step(ON)
    base = base_env(env)
    ago = (base.ready().sample - base.pulse_samples) * base.config.dt_ms
    # 150 ms window + 100 ms of strides + 20 ms for artefacts that reach in; pulses every 20 ms
    assert ago.tolist() == pytest.approx(np.arange(260.0, 0.0, -20.0).tolist())
    env.reset(seed=0)
    assert len(base.pulse_samples) == 0


def test_artefact_longer_than_pulses_are_remembered_is_refused() -> None:
    with pytest.raises(UserError, match="artefact_ms"):
        _make(artefact="raw", artefact_ms=21.0)


# -- missing samples -----------------------------------------------------------------------------------------------


def test_lost_values_are_held_or_bridged() -> None:
    values = np.array([10, 11, 12, 13, 14, 15], dtype=np.float32)
    lost = np.array([True, False, True, True, False, True])
    assert fill_missing(values, lost, 5.0, "hold").tolist() == [5, 11, 11, 11, 14, 14]
    assert fill_missing(values, lost, 5.0, "interpolate").tolist() == [8, 11, 12, 13, 14, 14]
    everything = np.ones(6, dtype=bool)
    assert fill_missing(values, everything, 5.0, "hold").tolist() == [5.0] * 6
    assert fill_missing(values, everything, 5.0, "interpolate").tolist() == [5.0] * 6


@pytest.mark.parametrize(("share", "run"), [(0.1, None), (0.5, None), (0.3, 20.0), (0.9, 50.0)])
def test_losses_have_their_share_and_their_runs(share: float, run: float | None) -> None:
    lost = LossProcess(share, run).draw(np.random.default_rng(0), 200_000, False)
    assert lost.mean() == pytest.approx(share, abs=0.03)
    n_runs = np.count_nonzero(lost[1:] & ~lost[:-1])
    assert lost.sum() / n_runs == pytest.approx(run or 1.0 / (1.0 - share), rel=0.1)


def test_impossible_losses_are_refused() -> None:
    with pytest.raises(UserError, match="runs of 2 missing samples"):
        _make(missing_share=0.9, missing_run=2.0)
    with pytest.raises(UserError, match="missing_share"):
        _make(missing_share=0.99)
    with pytest.raises(UserError, match="7 new values"):
        MissingSamples(_make(), 0.1, 7)


class _Counting(gymnasium.Env[Any, Any]):
    """Observes the last six of 0, 1, 2, ...; each step brings two new values."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1e6, (6,), np.float32)
        self.action_space = gymnasium.spaces.MultiBinary(1)
        self.newest = 5

    def _observation(self) -> np.ndarray:
        return np.arange(self.newest - 5, self.newest + 1, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.newest = 5
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.newest += 2
        return self._observation(), 0.0, False, False, {}


@given(seed=st.integers(0, 1000), share=st.floats(0.05, 0.9))
def test_a_lost_value_stays_lost_and_is_counted_once(seed: int, share: float) -> None:
    env = MissingSamples(_Counting(), share, 2)
    observation, info = env.reset(seed=seed)
    held = {i: float(observation[i]) for i in range(6)}  # value index -> what was shown for it
    for step in range(1, 12):
        observation, _, _, _, info = env.step(np.zeros(1, np.int8))
        for i, shown in enumerate(observation):
            index = 2 * step + i
            assert held.setdefault(index, float(shown)) == shown
    lost = [index for index, shown in held.items() if shown != index]
    assert info["episode_missing"] == len(lost)
    for index in lost:  # what is shown is the newest value that was received before
        assert held[index] == max(i for i in held if i < index and held[i] == i)


@pytest.mark.parametrize("how", ["hold", "interpolate"])
def test_missing_samples_in_the_environment(how: str) -> None:
    plain, lossy = _make(), _make(missing_share=0.4, missing_run=3.0, missing_fill=how)
    truth = [plain.reset(seed=1)[0], *(plain.step(ON)[0] for _ in range(3))]
    first, info = lossy.reset(seed=1)
    steps = [lossy.step(ON) for _ in range(3)]
    total = info["missing"]
    for true, (observation, *_, info) in zip(truth[1:], steps, strict=True):
        assert np.isfinite(observation).all()
        total += info["missing"]
        assert (observation != true).any() or not info["missing"]
    assert info["episode_missing"] == total > 0
    assert first.dtype == steps[0][0].dtype == np.float32


def test_sensing_continues_bit_for_bit() -> None:
    make = {"artefact": "blanked", "missing_share": 0.4, "missing_run": 3.0, "noise_sd": 0.01, "delay_steps": 1}
    env, copy = _make(**make), _make(**make)
    env.reset(seed=2)
    env.step(ON)
    set_env_state(copy, get_env_state(env))
    for action in (OFF, ON):
        ours, theirs = env.step(action), copy.step(action)
        assert ours[0].tobytes() == theirs[0].tobytes()
        assert ours[4] == theirs[4]
    assert env.reset()[0].tobytes() == copy.reset()[0].tobytes()
