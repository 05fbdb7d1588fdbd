"""The plant gets what came on the electrode channel of a real host board, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_tools import SHORT, electrode_log, rig

from envs import make_env
from envs.errors import UserError
from envs.registration import base_env
from envs.stimulation import Pulse
from firmware_bridge.bench import Bench
from firmware_bridge.board import HostBoard
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import Cause, ElectrodeFault, NackCode, State
from firmware_bridge.electrode import Electrode, shake_hands
from firmware_bridge.links import SerialLink
from firmware_bridge.policy import BoardPolicy
from sea_dbs.controllers import Action, Always, Never, Observation, RandomDuty
from sea_dbs.report.session_data import read_session
from sea_dbs.rollout import Env, rollout

ONES = np.ones(10, np.int8)


def board_policy(inner: Any, made: Any, n_obs: int, slots: int) -> BoardPolicy:
    return BoardPolicy(inner, made.electrode, made.recorder, slots=slots, n_obs=n_obs)


def observed(env: Env, controller: Any, steps: int) -> list[tuple[bytes, float, int]]:
    return [
        (t.next_observation.tobytes(), float(t.reward[0]), t.infos[0]["pulses"])
        for t in rollout([env], controller, steps, [3])
    ]


@pytest.mark.parametrize(("preset", "steps"), [("paper", 3), ("realtime", 25)])
def test_lockstep_is_the_simulation_byte_for_byte(tmp_path: Path, preset: str, steps: int) -> None:
    env = make_env(preset)
    config = base_env(env).config
    pure = observed(env, RandomDuty(config.slots, 0.5, seed=5), steps)
    with rig(tmp_path) as made:
        made.recorder.set_session(n_obs=config.n_obs, slots=config.slots)
        base_env(env).pulse_source = made.electrode
        policy = board_policy(RandomDuty(config.slots, 0.5, seed=5), made, config.n_obs, config.slots)
        assert observed(env, policy, steps) == pure
    assert sum(pulses for _, _, pulses in pure) > steps // 4
    assert len(read_session(tmp_path / "session.sqlite").pulses) == sum(pulses for _, _, pulses in pure)


def test_a_mask_without_a_controller_is_ordered_too(tmp_path: Path) -> None:
    env = make_env(**SHORT)
    mask = np.array([1, 0, 1, 1, 0, 0, 0, 1, 0, 1], np.int8)
    env.reset(seed=1)
    pure = [env.step(mask)[0].tobytes() for _ in range(3)]
    with rig(tmp_path) as made:
        base_env(env).pulse_source = made.electrode
        env.reset(seed=1)
        assert [env.step(mask)[0].tobytes() for _ in range(3)] == pure


def test_a_long_decision_is_renewed_each_100_ms(tmp_path: Path) -> None:
    with rig(tmp_path) as made:
        made.electrode.begin(np.ones(50, np.int8), 0, tuple(range(0, 1_000_000, 20_000)))
        pulses = [p for t in range(20_000, 1_020_000, 20_000) for p in made.electrode.until(t)]
        assert made.client.status().slots_lapsed == 0
    assert pulses == [Pulse(t, 300.0, 0.3) for t in range(0, 1_000_000, 20_000)]
    renewed = [row["device_us"] for row in read_session(tmp_path / "session.sqlite").events if row["kind"] == "renew"]
    assert renewed == list(range(100_000, 1_000_000, 100_000))


def test_slow_slots_are_renewed_between_them(tmp_path: Path) -> None:
    with rig(tmp_path) as made:
        electrode = Electrode(made.client, made.bench, made.recorder, slot_us=500_000)
        electrode.begin(np.ones(3, np.int8), 0, (0, 500_000, 1_000_000))
        pulses = [p.t_us for t in (500_000, 1_000_000, 1_500_000) for p in electrode.until(t)]
        assert pulses == [0, 500_000, 1_000_000]
        assert electrode.state is State.CLOSED_LOOP


def test_an_ack_is_no_pulse(tmp_path: Path) -> None:
    """The board accepts the order, but its stimulator is dead: the plant gets nothing, and the board latches."""
    with rig(tmp_path) as made:
        made.bench.set_fault(ElectrodeFault.DEAD)
        policy = board_policy(Always(10), made, 10, 10)
        policy.init_state(1)
        assert policy.act(np.zeros((1, 10), np.float32)).tolist() == [[1] * 10]
        made.electrode.begin(ONES, 0, tuple(range(0, 200_000, 20_000)))
        with pytest.raises(UserError, match="SAFE_OFF"):
            made.electrode.until(20_000)
        assert made.electrode.pulse_count == 0
    events = read_session(tmp_path / "session.sqlite").events
    assert any(row["kind"] == "fault" and "stimulator" in row["text"] for row in events)
    assert read_session(tmp_path / "session.sqlite").pulses == []


def test_a_clamped_amplitude_reaches_the_plant_clamped(tmp_path: Path) -> None:
    env = make_env(**SHORT)
    with rig(tmp_path, amplitude_limit_uA=2000) as made:
        base_env(env).pulse_source = made.electrode
        (step,) = rollout([env], board_policy(Always(10), made, 10, 10), 1, [0])
    assert step.infos[0]["charge_nC_cm2"] == pytest.approx(10 * 200.0 * 0.3)
    (row,) = read_session(tmp_path / "session.sqlite").decisions
    assert row["applied_amplitude_uA"] == 2000
    assert row["clamp"] != 0
    assert row["reason"].startswith("clamped: ")
    assert row["applied_mask"] == row["mask"] == "1" * 10


def test_a_refused_order_is_a_decision_without_pulses(tmp_path: Path) -> None:
    with rig(tmp_path) as made:
        made.electrode.plant_us = 20_000
        made.bench.advance(1_000_000)  # the plant lags: every slot of the order is past
        policy = board_policy(Always(10), made, 10, 10)
        policy.init_state(1)
        assert policy.act(np.zeros((1, 10), np.float32)).tolist() == [[0] * 10]
        assert made.electrode.orders.deadline_misses == 1
    (row,) = read_session(tmp_path / "session.sqlite").decisions
    assert row["nack"] == NackCode.START
    assert row["mask"] == "1" * 10
    assert row["applied_mask"] == "0" * 10
    assert row["reason"].startswith("refused: start 20000 is outside")
    assert {"nack", "deadline"} <= {r["kind"] for r in read_session(tmp_path / "session.sqlite").events}


def test_fallback_is_left_by_a_fresh_handshake(tmp_path: Path) -> None:
    with rig(tmp_path) as made:
        made.electrode.order([1] * 10)
        made.bench.advance(400_000)  # the host was silent: the lease ended
        assert made.bench.state is State.FALLBACK
        made.electrode.plant_us = 400_000
        assert made.electrode.order([1] * 10).nack is None
        assert [p.t_us for p in made.electrode.until(420_000)] == [400_000]
        assert made.electrode.orders.resumptions == 1
    states = [r["code"] for r in read_session(tmp_path / "session.sqlite").events if r["kind"] == "state"]
    assert states[-1] == State.CLOSED_LOOP


def test_a_stopped_board_takes_no_more_orders(tmp_path: Path) -> None:
    with rig(tmp_path) as made:
        made.electrode.order([1] * 10)
        made.client.stop()  # somebody else's STOP looks the same
        with pytest.raises(UserError, match="takes no more orders: it is in state IDLE"):
            made.electrode.order([1] * 10)


def test_the_environment_must_begin_what_was_ordered(tmp_path: Path) -> None:
    slots = tuple(range(0, 200_000, 20_000))
    with rig(tmp_path) as made:
        made.electrode.order([0] * 10)
        with pytest.raises(UserError, match="another decision"):
            made.electrode.begin(ONES, 0, slots)
        with pytest.raises(UserError, match="20000 µs apart"):
            made.electrode.begin(ONES, 0, tuple(t * 2 for t in slots))
        assert made.electrode.pulse_count == 0


def test_no_pulse_after_stop(tmp_path: Path) -> None:
    with rig(tmp_path) as made:
        made.electrode.begin(ONES, 0, tuple(range(0, 200_000, 20_000)))
        made.electrode.until(60_000)
        made.electrode.stop()
        assert made.electrode.state is State.IDLE
        assert made.bench.grounded
    recorded = [row["device_us"] for row in read_session(tmp_path / "session.sqlite").pulses]
    logged = [line["t_us"] for line in electrode_log(tmp_path / "electrode.log") if "pulse" in line]
    assert recorded == logged == [0, 20_000, 40_000]


def test_the_lease_of_a_dead_host_is_waited_for(tmp_path: Path) -> None:
    """A host that left without STOP holds the board only until its lease ends, also on a stepped clock."""
    with HostBoard() as board:
        with Bench(board.electrode) as bench:
            link = SerialLink(board.port)
            dead = BoardClient(link)
            dead.hello()
            dead.arm()
            dead.set_stim(1, bench.now_us, 20_000, [1] * 50, 3000, 60)
            bench.advance(bench.now_us + 40_000)
            link.close()
        with Bench(board.electrode) as bench, BoardClient(SerialLink(board.port)) as client:
            assert shake_hands(client, bench).refusal == 0
            assert client.status().cause in (Cause.LEASE_ENDED, Cause.HANDSHAKE)
            client.arm()


class Wrong:
    """A controller that answers with something else."""

    name = "wrong"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def init_state(self, n: int = 1) -> None:
        del n

    def act(self, observation: Observation) -> Action:
        del observation
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "answer",
    [np.ones((1, 9), np.int8), np.ones(10, np.int8), np.ones((1, 10), np.float32), [[1] * 10]],
    ids=["too few slots", "no batch", "floats", "a list"],
)
def test_a_wrong_answer_is_never_ordered(tmp_path: Path, answer: Any) -> None:
    with rig(tmp_path) as made:
        policy = board_policy(Wrong(answer), made, 10, 10)
        with pytest.raises(UserError, match="'wrong' answered with"):
            policy.act(np.zeros((1, 10), np.float32))
        assert made.client.status().state == State.ARMED
    assert read_session(tmp_path / "session.sqlite").decisions == []


@pytest.mark.parametrize(
    ("observation", "sentence"),
    [
        (np.full((1, 10), np.nan, np.float32), "finite"),
        (np.zeros((1, 9), np.float32), "shape"),
        (np.zeros((2, 10), np.float32), "shape"),
        (np.zeros((1, 10), np.int64), "float32"),
    ],
    ids=["NaN", "short", "two environments", "integers"],
)
def test_a_wrong_observation_is_never_decided_on(tmp_path: Path, observation: Any, sentence: str) -> None:
    with rig(tmp_path) as made:
        policy = board_policy(Never(10), made, 10, 10)
        policy.init_state(1)
        with pytest.raises(UserError, match=sentence):
            policy.act(observation)
        with pytest.raises(UserError, match="one environment"):
            policy.init_state(2)
        assert made.client.status().state == State.ARMED
    assert read_session(tmp_path / "session.sqlite").decisions == []
