"""The vector environment: lane for lane the single environment, both autoreset modes, states, failures, wrong input."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import envs
from envs import basal_ganglia
from envs.config import EnvConfig
from envs.errors import UserError
from envs.patients import Patient, Recruitment
from envs.plant.batch import BatchPlant
from envs.plant.state import draw_network
from envs.registration import base_env, get_env_state, set_env_state
from envs.slots import slot_samples
from envs.vector import BasalGangliaVectorEnv

SHORT: dict[str, Any] = {
    "slots": 5,
    "window_ms": 150.0,
    "stride_ms": 20.0,
    "n_obs": 6,
    "settle_ms": 260.0,
    "episode_steps": 3,
}
SENSED: dict[str, Any] = {
    "noise_sd": 0.01,
    "delay_steps": 1,
    "artefact": "blanked",
    "missing_share": 0.2,
    "drift": "circadian",
}
WEAK = Patient(seed=7, severity=0.7, charge_efficacy=0.5, electrode_gain=1.3, recruitment=Recruitment())


def _vector(n: int, **overrides: Any) -> BasalGangliaVectorEnv:
    env = gymnasium.make_vec(
        envs.ENV_ID, num_envs=n, vectorization_mode="vector_entry_point", **{**SHORT, **overrides}
    ).unwrapped
    assert isinstance(env, BasalGangliaVectorEnv)
    return env


def _sync(n: int, mode: AutoresetMode, patients: Any = None, **overrides: Any) -> SyncVectorEnv:
    patients = patients or [None] * n
    makers = [lambda p=p: envs.make_env(**{**SHORT, **overrides}, patient=p) for p in patients]
    return SyncVectorEnv(makers, autoreset_mode=mode)


def _actions(n: int, steps: int, slots: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (steps, n, slots)).astype(np.int8)


def _same(a: Any, b: Any) -> None:
    """Equal to the last bit, whatever the nesting."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert set(a) == set(b)
        for key in a:
            _same(a[key], b[key])
    elif isinstance(a, tuple | list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _same(x, y)
    elif isinstance(a, np.ndarray) and a.dtype != object:
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, np.ndarray):
        _same(list(a), list(b))
    else:
        assert a == b


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(
    ("precision", "preset", "sensing"),
    [("float64", "paper", {}), ("float32", "paper", SENSED), ("float64", "paper-released", {"slots": 8})],
)
def test_lanes_are_gymnasiums_own_vector_of_single_environments(
    mode: AutoresetMode, precision: str, preset: str, sensing: dict[str, Any]
) -> None:
    """Observations, rewards, ends and infos, over the autoreset: `SyncVectorEnv` is Gymnasium's reference."""
    make = {"precision": precision, "preset": preset, **sensing}
    patients = [None, WEAK, Patient(seed=5)]
    ours, theirs = _vector(3, autoreset_mode=mode, patients=patients, **make), _sync(3, mode, patients, **make)
    _same(ours.reset(seed=11), theirs.reset(seed=11))
    for actions in _actions(3, 5, slots=sensing.get("slots", 5)):
        _same(ours.step(actions), theirs.step(actions))
    assert ours.metadata["autoreset_mode"] is mode
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space


def test_same_step_tells_the_last_observation_of_the_episode() -> None:
    env = _vector(2, autoreset_mode="SameStep", episode_steps=1)
    env.reset(seed=0)
    single = envs.make_env(**{**SHORT, "episode_steps": 1})
    single.reset(seed=1)
    actions = _actions(2, 1)[0]
    observation, _, _, truncated, infos = env.step(actions)
    last = single.step(actions[1])
    assert truncated.all()
    np.testing.assert_array_equal(infos["final_obs"][1], last[0])
    assert infos["final_info"]["pulses"][1] == last[4]["pulses"]
    np.testing.assert_array_equal(observation[1], single.reset()[0])
    assert infos["step"][1] == 0


def test_float32_lanes_are_the_same_bytes_in_any_place_of_any_batch_on_any_threads() -> None:
    runs: dict[int, list[bytes]] = {}
    actions = _actions(1, 2)[:, 0]
    for seeds, threads in (([3], 1), ([9, 3, 4], 1), ([*range(20, 29), 3], 2)):
        env = _vector(len(seeds), precision="float32", threads=threads)
        first, _ = env.reset(seed=seeds)
        where = seeds.index(3)
        run = [first[where].tobytes()]
        for action in actions:
            step = env.step(np.tile(action, (len(seeds), 1)))
            run += [step[0][where].tobytes(), step[1][where].tobytes()]
        runs[len(seeds)] = [*run, env.lane(where).ready().state.V.tobytes()]
    assert runs[1] == runs[3] == runs[10]
    single = envs.make_env(**SHORT, precision="float32")
    assert single.reset(seed=3)[0].tobytes() == runs[1][0]
    assert [single.step(action)[0].tobytes() for action in actions] == runs[1][1:-1:2]
    assert base_env(single).ready().state.V.tobytes() == runs[1][-1]


def test_lanes_whose_decisions_differ_in_length_advance_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a slot is no whole number of samples a decision's length goes by its phase; here odd ones are longer."""

    def uneven(config: EnvConfig, decision: int) -> list[int]:
        slots = slot_samples(config, decision)
        return [*slots[:-1], slots[-1] + decision % 2]

    monkeypatch.setattr(basal_ganglia, "slot_samples", uneven)
    make = {"episode_steps": 8}
    ours = _vector(3, autoreset_mode="Disabled", **make)
    singles = [envs.make_env(**{**SHORT, **make}) for _ in range(3)]
    first, _ = ours.reset(seed=0)
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(first[i], single.reset(seed=i)[0])
    actions = _actions(3, 4)
    lengths = set()
    for step, action in enumerate(actions):
        if step == 1:
            again, _ = ours.reset(seed=[None, 40, None], options={"reset_mask": np.array([False, True, False])})
            np.testing.assert_array_equal(again[1], singles[1].reset(seed=40)[0])
        before = [ours.lane(i).ready().sample for i in range(3)]
        stepped = ours.step(action)
        lengths.add(tuple(ours.lane(i).ready().sample - before[i] for i in range(3)))
        for i, single in enumerate(singles):
            expected = single.step(action[i])
            np.testing.assert_array_equal(stepped[0][i], expected[0])
            assert stepped[1][i] == expected[1]
    assert any(len(set(of_lanes)) > 1 for of_lanes in lengths)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_restored_vector_continues_bit_for_bit_and_so_does_a_single_lane(precision: str) -> None:
    make = {"precision": precision, **SENSED}
    env, copy = _vector(3, patients=WEAK, **make), _vector(3, **make)
    env.reset(seed=2)
    rest = _actions(3, 5)
    env.step(rest[0])
    saved = env.get_state()
    copy.set_state(saved)
    single = envs.make_env(**SHORT, **make)
    if precision == "float32":
        set_env_state(single, saved["lanes"][1])
    for step, actions in enumerate(rest[1:]):  # over an autoreset
        expected = env.step(actions)
        _same(copy.step(actions), expected)
        if precision == "float32" and step < 2:
            np.testing.assert_array_equal(single.step(actions[1])[0], expected[0][1])
    _same(get_env_state(copy._lanes[0].env), get_env_state(env._lanes[0].env))


def test_a_lane_with_a_non_finite_voltage_is_named_and_the_others_go_on() -> None:
    env, whole = _vector(3), _vector(3)
    env.reset(seed=5)
    whole.reset(seed=5)
    actions = _actions(3, 3)
    env.step(actions[0])
    whole.step(actions[0])
    env.lane(1).ready().rows(0, "stn_ca")[0, 4] = np.nan  # type: ignore[union-attr]
    with pytest.warns(RuntimeWarning, match=r"environment 1 was stopped: .*stn cell 4"):
        observation, reward, terminated, truncated, infos = env.step(actions[1])
    expected = whole.step(actions[1])
    assert truncated.tolist() == [False, True, False]
    assert not terminated.any()
    assert reward[1] == 0.0
    assert "stn cell 4 of network 1 is not finite at 360.02 ms" in infos["failure"][1]
    assert infos["_failure"].tolist() == [False, True, False]
    assert np.isfinite(observation).all()
    np.testing.assert_array_equal(observation[[0, 2]], expected[0][[0, 2]])
    after, expected = env.step(actions[2]), whole.step(actions[2])
    np.testing.assert_array_equal(after[0][[0, 2]], expected[0][[0, 2]])
    assert after[4]["step"].tolist() == [3, 0, 3]  # the failed lane has started afresh
    assert "failure" not in after[4]


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_lane_spoiled_between_steps_is_named_and_the_others_go_on(precision: str) -> None:
    env, whole = (_vector(8, precision=precision, autoreset_mode="Disabled", episode_steps=9) for _ in range(2))
    actions = _actions(8, 4)
    for each in (env, whole):
        each.reset(seed=5)
        each.step(actions[0])
    env.lane(1).ready().rows(0, "V0", 8)[3, 4] = np.nan  # type: ignore[union-attr]
    others = [i for i in range(8) if i != 1]
    with pytest.warns(RuntimeWarning, match="environment 1 was stopped"):
        step = env.step(actions[1])
    expected = whole.step(actions[1])
    assert np.flatnonzero(step[3]).tolist() == [1]
    assert step[4]["failure"][1] == "the voltage of gpi cell 4 of network 1 is not finite at 360.00 ms"
    assert step[0][others].tobytes() == expected[0][others].tobytes()
    assert step[1][others].tobytes() == expected[1][others].tobytes()

    copy = _vector(8, precision=precision, autoreset_mode="Disabled", episode_steps=9)
    copy.set_state(env.get_state())  # with a lane that has failed
    only = np.arange(8) == 1
    for each in (env, copy, whole):
        each.reset(seed=40, options={"reset_mask": only})
    for action in actions[2:]:
        expected = whole.step(action)
        _same(env.step(action), expected)
        _same(copy.step(action), expected)


def test_a_lane_that_fires_too_fast_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    make: dict[str, Any] = {"precision": "float32", "slots": 30}  # decisions of 600 ms
    env, whole = _vector(3, **make), _vector(3, **make)
    begin_step = env._lanes[2].begin_step

    def driven(action: np.ndarray) -> Any:
        smc, _ = begin_step(action)
        return smc, np.where(np.arange(len(smc)) // 3 % 2, 1000.0, -1000.0)  # over the threshold every 0.12 ms

    env.reset(seed=5)
    whole.reset(seed=5)
    actions = _actions(3, 2, slots=30)
    with monkeypatch.context() as patch:
        patch.setattr(env._lanes[2], "begin_step", driven)
        with pytest.warns(RuntimeWarning, match="environment 2 was stopped: the stn cells of network 2 fire faster"):
            step = env.step(actions[0])
    expected = whole.step(actions[0])
    assert step[3].tolist() == [False, False, True]
    assert step[4]["failure"][2].startswith("the stn cells of network 2 fire faster than the plant can follow at ")
    assert step[0][:2].tobytes() == expected[0][:2].tobytes()
    after, expected = env.step(actions[1]), whole.step(actions[1])
    assert after[0][:2].tobytes() == expected[0][:2].tobytes()
    assert after[4]["step"].tolist() == [2, 2, 0]  # the failed lane has started afresh


def test_patients_can_change_at_a_reset() -> None:
    env = _vector(2)
    first, infos = env.reset(seed=0, options={"patients": [None, WEAK]})
    assert infos["severity"][1] == 0.7
    single = envs.make_env(**SHORT, patient=WEAK)
    np.testing.assert_array_equal(first[1], single.reset(seed=1)[0])


def test_wrong_input_is_one_sentence() -> None:
    env = _vector(2, autoreset_mode="Disabled", episode_steps=1)
    with pytest.raises(UserError, match="reset"):
        env.step(_actions(2, 1)[0])
    with pytest.raises(UserError, match="for all of them first"):
        env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(UserError, match="3 seeds were given for 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(UserError, match="reset_mask"):
        env.reset(options={"reset_mask": [True, True]})
    with pytest.raises(UserError, match="chooses no environment"):
        env.reset(options={"reset_mask": np.zeros(2, np.bool_)})
    with pytest.raises(UserError, match="for each of 2"):
        env.reset(options={"patients": [None]})
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"shape \(3, 5\): expected \(2, 5\)"):
        env.step(_actions(3, 1)[0])
    bad = _actions(2, 1)[0]
    bad[1, 0] = 3
    before = env.lane(0).ready().sample
    with pytest.raises(UserError, match=r"action of environment 1 holds 3: allowed are 0 .* and 1"):
        env.step(bad)
    with pytest.raises(UserError, match=r"action of environment 1 has shape \(4,\): expected \(5,\).* 0 or 1"):
        env.step([[0] * 5, [0] * 4])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"3 actions were given: expected \(2, 5\), environments and slots"):
        env.step([[0] * 5, [0] * 4, [0] * 5])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"action of environment 0 has dtype float64: expected integers 0 or 1"):
        env.step(np.full((2, 5), np.nan))
    with pytest.raises(UserError, match=r"shape \(\): expected \(2, 5\)"):
        env.step(None)  # type: ignore[arg-type]
    assert env.lane(0).ready().sample == before
    env.step(_actions(2, 1)[0])
    with pytest.raises(UserError, match="episode of environment 0 has ended"):
        env.step(_actions(2, 1)[0])
    with pytest.raises(UserError, match="another configuration"):
        _vector(2, autoreset_mode="Disabled").set_state(env.get_state())
    for wrong, words in (
        ({"autoreset_mode": "Never"}, "unknown autoreset mode 'Never': allowed are NextStep"),
        ({"kernel": "reference"}, "kernel 'fast'"),
        ({"patients": 3}, "patients must be"),
        ({"threads": 0}, "number of threads is 0: allowed are whole numbers from 1"),
        ({"threads": "2"}, "number of threads is '2'"),
        ({"threads": 1.5}, r"number of threads is 1\.5"),
        ({"precision": "float16"}, "'precision'"),
    ):
        with pytest.raises(UserError, match=words):
            _vector(2, **wrong)
    with pytest.raises(UserError, match="float32 needs the kernel 'fast'"):
        envs.make_env(precision="float32", kernel="reference")


@pytest.mark.parametrize("num_envs", [1.5, 0, -1, "a", True, None])
def test_a_wrong_number_of_environments_is_refused(num_envs: Any) -> None:
    with pytest.raises(
        UserError, match=rf"number of environments .num_envs. is {num_envs!r}: allowed are whole numbers"
    ):
        _vector(num_envs)


# -- resets: all lanes or none ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [[3, None, 7], (3, None, 7), np.array([3, None, 7])])
def test_seeds_are_one_a_lane_whatever_holds_them(seeds: Any) -> None:
    env, whole = _vector(3), _vector(3)
    first, again = env.reset(seed=seeds)[0], whole.reset(seed=[3, None, 7])[0]
    assert first[[0, 2]].tobytes() == again[[0, 2]].tobytes()
    assert first[1].tobytes() != again[1].tobytes()


def test_seeds_can_be_numpys_integers() -> None:
    env = _vector(2)
    expected = env.reset(seed=3)[0].tobytes()
    seeds: list[Any] = [np.int32(3), np.uint64(3), np.array([3, 4]), [np.int64(3), 4]]
    for seed in seeds:
        assert env.reset(seed=seed)[0].tobytes() == expected


NETWORK = draw_network(np.random.default_rng(0))
WRONG: dict[str, Any] = {"g_m": "a"}


@pytest.mark.parametrize(
    ("reset", "sentence"),
    [
        ({"seed": -1}, r"the seed is -1: allowed are None and whole numbers from 0"),
        ({"seed": 1.5}, r"the seed is 1\.5: allowed are"),
        ({"seed": "a"}, r"the seed is 'a': allowed are"),
        ({"seed": True}, r"the seed is True: allowed are"),
        ({"seed": {1, 2, 3}}, r"the seed is \{1, 2, 3\}: allowed are"),
        ({"seed": ["a", 1, 2]}, r"the seed of environment 0 is 'a': allowed are None and whole numbers from 0"),
        ({"seed": [1, 2, -1]}, r"the seed of environment 2 is -1"),
        ({"seed": (1, False, 2)}, r"the seed of environment 1 is False"),
        ({"seed": np.array([1.0, 2.0, 3.0])}, r"the seed of environment 0 is .*1\.0"),
        ({"seed": np.array(5)}, r"the seeds have shape \(\): expected \(3,\)"),
        ({"seed": np.zeros((3, 1), int)}, r"the seeds have shape \(3, 1\): expected \(3,\)"),
        ({"seed": [1, 2]}, r"2 seeds were given for 3 environments"),
        ({"options": {"network": 3}}, r"environment 0: options\['network'\] is a int"),
        ({"options": {"network": NETWORK}}, r"environment 1: reset was given a network beside a patient"),
        ({"options": {"network": NETWORK, "patients": [None, None, WEAK]}}, r"environment 2: .* beside a patient"),
        ({"options": {"network": NETWORK._replace(**WRONG), "patients": None}}, "g_m of the network of environment 0"),
        ({"options": {"patients": [None, WEAK, "me"]}}, r"options\['patients'\] holds a str"),
        ({"options": {"smc_rng": 3}}, r"environment 0: options\['smc_rng'\] is a int"),
        ({"options": {"colour": 3}}, r"environment 0: reset does not know the option 'colour'"),
    ],
)
def test_a_refused_reset_changes_no_lane(reset: dict[str, Any], sentence: str, ready: BasalGangliaVectorEnv) -> None:
    before = ready.get_state()
    patients = [(lane.base.thresholds, lane.env.get_wrapper_attr("patient")) for lane in ready._lanes]
    with pytest.raises(UserError, match=sentence):
        ready.reset(**reset)
    _same(ready.get_state(), before)
    after = [(lane.base.thresholds, lane.env.get_wrapper_attr("patient")) for lane in ready._lanes]
    assert all(a is b for one, other in zip(after, patients, strict=True) for a, b in zip(one, other, strict=True))


def test_an_interrupted_reset_changes_no_lane(ready: BasalGangliaVectorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ready.get_state()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BatchPlant, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ready.reset()
    _same(ready.get_state(), before)


@pytest.fixture(scope="module")
def ready() -> BasalGangliaVectorEnv:
    """Three lanes in mid-episode, the second with a patient."""
    env = _vector(3, patients=[None, WEAK, None], **SENSED)
    env.reset(seed=0)
    env.step(_actions(3, 1)[0])
    return env
