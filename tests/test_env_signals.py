"""Presets pattern and paper-30, the LFP as observation, the energy price, and what ``measures`` tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import envs
from envs.biomarkers.error_index import error_index
from envs.biomarkers.lfp import band_power
from envs.config import PRESETS, env_config
from envs.errors import UserError
from envs.plant.inputs import SmcRenewal
from envs.plant.network import Record
from envs.plant.single import FastPlant, FastPlant32, RelayPlant, RelayPlant32
from envs.plant.state import draw_network
from envs.registration import base_env, get_env_state, set_env_state
from envs.signals import LFP_BETA_SCALE, LFP_SCALE, RATE_SCALE_HZ, LfpTrack
from envs.slots import slot_edges
from envs.stimulation import regular_train
from envs.vector import BasalGangliaVectorEnv
from envs.watch import WatchedPlant
from envs.wrappers import beta_reward

SHORT: dict[str, dict[str, Any]] = {
    "paper": {"slots": 5, "window_ms": 200.0, "stride_ms": 20.0, "n_obs": 6, "settle_ms": 320.0},
    "paper-released": {"slots": 10, "window_ms": 200.0, "stride_ms": 20.0, "n_obs": 6, "settle_ms": 320.0},
    "paper-30": {"slots": 3, "window_ms": 200.0, "stride_ms": 20.0, "n_obs": 6, "settle_ms": 320.0},
    "realtime": {"window_ms": 200.0, "n_obs": 6, "settle_ms": 320.0},
    "pattern": {"window_ms": 200.0, "n_obs": 16, "settle_ms": 320.0},
    "timing": {"window_ms": 200.0, "n_obs": 16, "settle_ms": 320.0},
}


def _bits(n: int, lanes: int, slots: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 2, (n, lanes, slots)).astype(np.int8)


@pytest.mark.parametrize("more", [{"obs": "lfp"}, {"obs": "lfp", "measures": True, "precision": "float32"}])
@pytest.mark.parametrize("preset", PRESETS)
def test_lanes_equal_single_environments(preset: str, more: dict[str, Any]) -> None:
    make = {"preset": preset, **SHORT[preset], **more}
    many = BasalGangliaVectorEnv(2, **make)
    single = [envs.make_env(**make) for _ in range(2)]
    first, told = many.reset(seed=8)
    for i, env in enumerate(single):
        observation, info = env.reset(seed=8 + i)
        np.testing.assert_array_equal(first[i], observation)
        assert told["lfp_beta"][i] == info["lfp_beta"]
    for action in _bits(3, 2, many.config.slots):
        step = many.step(action)
        for i, env in enumerate(single):
            observation, reward, _, _, info = env.step(action[i])
            np.testing.assert_array_equal(step[0][i], observation)
            assert step[1][i] == reward
            for key, value in info.items():
                np.testing.assert_array_equal(step[4][key][i], value, err_msg=key)


def test_pattern_slots_keep_their_phase_and_are_384_or_385_samples() -> None:
    edges = slot_edges(env_config("pattern"), -63, 1363)
    assert set(np.diff(edges)) == {384, 385}
    assert edges[63] == 0
    assert edges[-1] == 500_000  # 1,300 slots are 10 s


def test_pattern_observes_slot_rates_and_the_newest_beta_and_pays_for_pulses() -> None:
    env = envs.make_env("pattern", precision="float32")
    base = base_env(env)
    observation, _ = env.reset(seed=2)
    assert observation.shape == (64,)
    for bit in (1, 0, 1):
        observation, reward, _, _, info = env.step(np.array([bit], np.int8))
        assert info["pulses"] == bit
        assert observation[-1] == np.float32(info["P_beta_last"] / 1000.0)
        assert reward == pytest.approx(beta_reward(float(observation[-1])) - 2.0 * bit, abs=1e-12)
    now, edges = base.ready().sample, slot_edges(base.config, 3 - 63, 63) + round(2000.0 / 0.02)
    assert edges[-1] == now
    for i in (0, 40, 62):
        count = np.sum((base.spikes[:, 0] >= edges[i]) & (base.spikes[:, 0] < edges[i + 1]))
        rate = count / 10 / ((edges[i + 1] - edges[i]) * 2e-5)
        assert observation[i] == pytest.approx(rate / RATE_SCALE_HZ, rel=1e-6)


def test_a_decision_does_not_change_what_was_observed_before_it() -> None:
    """Causal: the samples of earlier slots stand, whatever is decided later."""
    for obs in ("gpi", "lfp"):
        seen = []
        for bit in (0, 1):
            env = envs.make_env("pattern", obs=obs, **SHORT["pattern"])
            before, _ = env.reset(seed=2)
            after = env.step(np.array([bit], np.int8))[0]
            np.testing.assert_array_equal(after[:-2], before[1:-1])
            seen.append(after)
        if obs == "lfp":
            assert seen[0][-2] != seen[1][-2]  # but the slot just past does


def test_the_energy_price_is_the_share_of_130_hz() -> None:
    rewards: dict[float, float] = {}
    for price in (0.0, 0.5):
        env = envs.make_env(**SHORT["paper"], energy_price=price)
        env.reset(seed=0)
        rewards[price] = float(env.step(np.array([1, 0, 1, 0, 0], np.int8))[1])
    assert rewards[0.0] - rewards[0.5] == pytest.approx(0.5 * 2 / 13)  # 100 ms of 130 Hz are 13 pulses


def test_lfp_observation_is_the_power_of_the_held_proxy_and_reward_stays_gpi_beta() -> None:
    env = envs.make_env(**SHORT["paper"], obs="lfp")
    env.reset(seed=1)
    observation, reward, _, _, info = env.step(np.array([1, 0, 1, 0, 0], np.int8))
    base = base_env(env)
    assert reward == beta_reward(float(np.mean(base.beta)))
    assert observation[-1] == np.float32(info["lfp_beta"] / LFP_BETA_SCALE)
    # the same plant, without the environment
    rng = np.random.default_rng(np.random.SeedSequence(1))
    smc = SmcRenewal(rng, 0.02)
    network = draw_network(rng)
    first = smc.take(16_000)
    pulses = np.zeros(5_000)
    pulses[0:15] = pulses[2000:2015] = 300.0
    plant = FastPlant(network)
    lfp = np.concatenate([plant.advance(first, np.zeros(16_000)).lfp, plant.advance(smc.take(5_000), pulses).lfp])
    for p in (320, 360):  # ms; a pulse hides the samples at p and p + 1 ms
        lfp[p : p + 2] = lfp[p - 1]
    expected = band_power(lfp, np.arange(320, 421, 20), 200) / LFP_BETA_SCALE
    np.testing.assert_allclose(observation, expected, rtol=1e-6)


def test_blanking_holds_the_last_good_value_across_calls() -> None:
    track = LfpTrack(env_config("pattern", obs="lfp"))
    empty = np.zeros((0, 3), np.int64)

    def record(first: int, values: list[float]) -> Record:
        samples = first + 50 * np.arange(len(values))
        return Record(empty, empty[:, :2], samples, np.array(values))

    track.add([record(0, [1.0, 2.0, 3.0])], np.array([140]))  # hides 150 .. 239
    track.add([record(150, [9.0, 9.0, 5.0])], np.array([140]))
    assert track.values.tolist() == [1.0, 2.0, 3.0, 3.0, 3.0, 5.0]
    assert track.slot_means(np.array([0, 101, 300])).tolist() == [2.0, pytest.approx(11.0 / 3.0)]
    assert LFP_SCALE == 50.0


@pytest.mark.parametrize(("plain", "watching"), [(FastPlant, RelayPlant), (FastPlant32, RelayPlant32)])
def test_the_relay_kernel_changes_no_byte(plain: type[FastPlant], watching: type[FastPlant]) -> None:
    network = draw_network(np.random.default_rng(3))
    smc, dbs = SmcRenewal(np.random.default_rng(4), 0.02).take(40_000), regular_train(130.0, 40_000, 0.02)
    a, b = plain(network), watching(network)
    first, second = a.advance(smc, dbs), b.advance(smc, dbs)
    for name in ("events", "gpi_spikes", "lfp"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert a.state.V.tobytes() == b.state.V.tobytes()
    assert len(first.th_spikes) == 0 < len(second.th_spikes)
    if watching is RelayPlant:  # float64 has the reference's spikes
        watched = WatchedPlant(network)
        watched.advance(smc, dbs)
        order = np.lexsort((second.th_spikes[:, 1], second.th_spikes[:, 0]))
        np.testing.assert_array_equal(second.th_spikes[order], watched.watched.th_spikes)


def test_measures_are_the_analysis_of_what_was_watched_and_survive_a_state() -> None:
    make = {**SHORT["paper"], "measures": True, "slots": 25}
    env, copy = envs.make_env(**make), envs.make_env(**make)
    env.reset(seed=3)
    env.step(np.ones(25, np.int8))
    copy.reset(seed=0)
    set_env_state(copy, get_env_state(env))
    action = np.zeros(25, np.int8)
    info = env.step(action)[4]
    assert copy.step(action)[4] == info
    base = base_env(env)
    assert base.measures is not None
    seen, now = base.measures.watched, base.ready().sample
    whole = error_index(seen.th_spikes, seen.onsets, np.array([16_000]), now - 16_000, 0.02)
    assert info["episode_EI"] == whole.ei[0]
    assert info["episode_inputs"] == whole.inputs[0] > 5
    assert len(seen.lfp) == 320 + 1000
    assert info["P_beta_7_35"] > info["P_beta_last"]
    assert 0.0 <= info["above_share"] <= 1.0


def test_measures_taken_every_100_ms_are_those_of_every_decision_where_they_are_taken() -> None:
    make = {"preset": "pattern", "settle_ms": 1200.0, "measures": True}
    each, some = envs.make_env(**make), envs.make_env(**make, measures_every_ms=100.0)
    each.reset(seed=3)
    some.reset(seed=3)
    slow = ("EI", "P_beta_7_35", "lfp_beta", "episode_EI", "episode_inputs")
    taken = []
    for step in range(39):
        action = np.array([step % 3 == 0], np.int8)
        told, now = each.step(action)[4], some.step(action)[4]
        rest = {name for name in told if not name.startswith(("EI", "episode_EI", *slow))}
        assert {name: now[name] for name in rest} == {name: told[name] for name in rest}
        if all(now[name] == told[name] or np.isnan(told[name]) for name in slow):
            taken.append(step)
    assert taken == [12, 25, 38]  # 100 ms after the reset, and so on: 13 slots of 1/130 s
    some.step(np.array([1], np.int8))
    copy = envs.make_env(**make, measures_every_ms=100.0)
    copy.reset(seed=4)
    set_env_state(copy, get_env_state(some))
    for bit in (1, 0, 0):
        assert copy.step(np.array([bit], np.int8))[4] == some.step(np.array([bit], np.int8))[4]


@pytest.mark.parametrize(
    ("preset", "values", "words"),
    [
        ("pattern", {"slots": 2}, "view 'slots' needs slots 1"),
        ("pattern", {"reward_signal": "mean"}, "allowed is 'newest'"),
        ("pattern", {"missing_share": 0.1}, "allowed is 0"),
        ("paper", {"obs": "lfp", "artefact": "raw"}, "always blanked"),
        ("pattern", {"obs": "lfp", "artefact_ms": 8.0}, "hides whole slots"),
        ("realtime", {"obs": "lfp", "kernel": "reference"}, "need the kernel 'fast'"),
        ("paper", {"measures": True, "kernel": "reference"}, "need the kernel 'fast'"),
        ("paper", {"obs": "lfp", "stride_ms": 0.5}, "whole number of LFP samples"),
        ("paper", {"energy_price": -1.0}, "energy_price"),
    ],
)
def test_wrong_settings_are_refused(preset: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        env_config(preset, **values)
