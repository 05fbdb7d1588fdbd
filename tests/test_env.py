"""The Gymnasium environment: API, determinism, presets, state, wrappers, wrong input."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs.config import PRESETS, env_config
from envs.errors import UserError
from envs.registration import base_env, get_env_state, set_env_state
from envs.stimulation import MaskSource, Pulse
from envs.wrappers import beta_reward

ID = "sea_dbs/BasalGanglia-v0"
SHORT: dict[str, Any] = {  # a tenth of the paper's time: same code, less work
    "slots": 10,
    "window_ms": 200.0,
    "stride_ms": 20.0,
    "n_obs": 10,
    "settle_ms": 400.0,
    "episode_steps": 4,
}


def _make(**overrides: Any) -> gymnasium.Env[Any, Any]:
    return envs.make_env(**{**SHORT, **overrides})


def _rollout(env: gymnasium.Env[Any, Any], actions: np.ndarray) -> list[Any]:
    return [env.step(action) for action in actions]


def _bytes(steps: list[Any]) -> list[Any]:
    return [(step[0].tobytes(), step[1], step[4]) for step in steps]


def _actions(n: int, slots: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (n, slots)).astype(np.int8)


@pytest.mark.parametrize("preset", PRESETS)
def test_gymnasium_checker_passes_without_a_warning(preset: str) -> None:
    check_env(gymnasium.make(ID, preset=preset).unwrapped)  # warnings are errors here


def test_paper_preset_is_the_contract() -> None:
    env = gymnasium.make(ID, preset="paper")
    assert env.observation_space.shape == (1000,)
    assert env.action_space.shape == (50,)
    observation, info = env.reset(seed=0)
    assert 0.3 < observation.mean() < 0.6
    assert info["P_beta"] == pytest.approx(1000.0 * observation.mean(), rel=1e-6)
    observation, reward, terminated, truncated, info = env.step(np.ones(50, np.int8))
    assert reward == pytest.approx(beta_reward(float(observation.mean())))
    assert not terminated
    assert not truncated
    assert info["pulses"] == 50
    assert info["duty"] == 1.0
    assert info["charge_nC_cm2"] == pytest.approx(50 * 90.0)
    assert info["time_ms"] == pytest.approx(1000.0)


def test_released_preset_has_the_released_lengths() -> None:
    config = env_config("paper-released")
    assert (config.mode, config.spectral_grid) == ("reference", "spikes")
    env = _make(preset="paper-released")
    env.reset(seed=0)
    assert env.step(_actions(1)[0])[4]["time_ms"] == pytest.approx(200.02)  # one sample more, as released


def test_realtime_preset_sees_the_last_slot_ends() -> None:
    env = envs.make_env("realtime")
    observation, _ = env.reset(seed=1)
    assert observation.shape == (50,)
    step = env.step(np.ones(1, np.int8))
    np.testing.assert_array_equal(step[0][:-1], observation[1:])
    assert step[1] == pytest.approx(beta_reward(float(step[0][-1])))
    assert step[4]["time_ms"] == pytest.approx(20.0)


@pytest.mark.parametrize("preset", ["paper", "paper-released"])
def test_same_seed_same_bytes(preset: str) -> None:
    runs = []
    for seed in (5, 5, 6):
        env = _make(preset=preset)
        first, _ = env.reset(seed=seed)
        runs.append((first.tobytes(), _bytes(_rollout(env, _actions(3)))))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("preset", ["paper", "paper-released"])
def test_saved_state_continues_bit_for_bit(preset: str) -> None:
    make = {"preset": preset, "delay_steps": 2, "noise_sd": 0.01}
    env, copy = _make(**make), _make(**make)
    env.reset(seed=2)
    _rollout(env, _actions(2))
    saved = get_env_state(env)
    set_env_state(copy, saved)
    rest = _actions(2, seed=9)
    expected = _bytes(_rollout(env, rest))
    assert _bytes(_rollout(copy, rest)) == expected
    env.reset()
    copy.reset()  # the generators went along: the next episode is the same too
    assert _bytes(_rollout(env, rest)) == _bytes(_rollout(copy, rest))


def test_state_of_another_configuration_is_refused() -> None:
    env = _make()
    env.reset(seed=0)
    with pytest.raises(UserError, match="another configuration"):
        set_env_state(_make(pd=0.5), get_env_state(env))
    with pytest.raises(UserError, match="stateful layers"):
        set_env_state(_make(noise_sd=0.1), get_env_state(env))


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (np.ones(9, np.int8), r"shape \(9,\): expected \(10,\)"),
        (np.ones(10, np.float64), "dtype float64"),
        (np.full(10, np.nan), "dtype float64"),
        (np.full(10, 2, np.int8), "holds 2"),
    ],
)
def test_wrong_actions_are_refused(action: np.ndarray, words: str) -> None:
    env = _make()
    env.reset(seed=0)
    with pytest.raises(UserError, match=words):
        env.step(action)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, [1]])
def test_a_wrong_seed_is_refused(seed: Any) -> None:
    with pytest.raises(UserError, match=re.escape(f"the seed is {seed!r}: allowed are None and whole numbers from 0")):
        _make().reset(seed=seed)
    with pytest.raises(UserError, match="the seed is"):
        base_env(_make()).reset(seed=seed)


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(UserError, match="reset"):
        _make().step(_actions(1)[0])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"preset": "papre"}, "unknown preset 'papre'; did you mean 'paper'"),
        ({"slts": 3}, "unknown key 'slts' in the environment; did you mean 'slots'"),
        ({"slots": 0}, "'slots' in the environment is 0"),
        ({"pd": 1.2}, r"'pd' in the environment is 1\.2"),
        ({"dt_ms": 0.03}, "dt_ms"),
        ({"stim_hz": 30.0, "slots": 1, "n_obs": 20, "stride_ms": 20.0}, "must divide the decision"),
        ({"window_ms": 2500.0}, "settle_ms"),
        ({"width_ms": 0.25}, "width_ms"),
        ({"slots": 1, "stim_hz": 130.0, "n_obs": 100, "stride_ms": 1000.0 / 130.0}, "must divide an episode"),
    ],
)
def test_wrong_configuration_is_one_sentence(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        envs.make_env(**overrides)
    assert "\n" not in str(caught.value)


def test_slots_keep_real_time_over_decisions() -> None:
    """At 30 Hz a slot is no whole number of samples: onsets must not drift from step to step."""
    env = _make(slots=3, stim_hz=30.0, episode_steps=2, stride_ms=20.0, width_ms=0.3)
    seen: list[int] = []

    class Spy(MaskSource):
        def begin(self, action: np.ndarray, start_us: int, slot_us: tuple[int, ...]) -> None:
            seen.extend(slot_us)
            super().begin(action, start_us, slot_us)

    env.reset(seed=0)
    base_env(env).pulse_source = Spy(300.0, 0.3)
    _rollout(env, np.ones((2, 3), np.int8))
    np.testing.assert_allclose(seen, np.arange(6) * 1e6 / 30.0, atol=10.0)


def test_the_pulse_source_decides_what_the_plant_receives() -> None:
    class Withhold(MaskSource):
        def until(self, t_us: int) -> list[Pulse]:
            super().until(t_us)
            return []

    runs = []
    for source, action in ((None, np.zeros(10, np.int8)), (Withhold(300.0, 0.3), np.ones(10, np.int8))):
        env = _make()
        env.reset(seed=4)
        base_env(env).pulse_source = source
        runs.append(env.step(action))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[1][4]["pulses"] == 0
    assert runs[1][4]["duty"] == 0.0


def test_delay_and_noise_touch_the_observation_alone() -> None:
    plain, late, noisy = _make(), _make(delay_steps=1), _make(noise_sd=0.05)
    first = [env.reset(seed=3)[0] for env in (plain, late, noisy)]
    steps = [env.step(_actions(1)[0]) for env in (plain, late, noisy)]
    np.testing.assert_array_equal(steps[1][0], first[0])
    assert steps[0][1] == steps[1][1] == steps[2][1]
    assert steps[0][4] == steps[1][4] == steps[2][4]
    difference = steps[2][0] - steps[0][0]
    assert 0.01 < np.std(difference) < 0.1


def test_stimulation_lowers_beta_at_130_hz_and_raises_it_at_30() -> None:
    """What the released plant does (regular 30 Hz adds its own line)."""
    beta = {}
    for slots in (0, 30, 130):
        env = envs.make_env(
            slots=max(slots, 1), stim_hz=float(max(slots, 2)) if slots else 2.0, stride_ms=500.0, n_obs=2
        )
        env.reset(seed=0)
        for _ in range(2 if slots else 4):
            info = env.step(np.full(max(slots, 1), int(slots > 0), np.int8))[4]
        beta[slots] = info["P_beta_last"]
    assert beta[130] < 0.6 * beta[0]
    assert beta[30] > 1.15 * beta[0]
