"""The board decides: fragments are put together or nothing is decided, and a decision is judged as an order is."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from envs.errors import UserError
from firmware_bridge.client import BoardClient
from firmware_bridge.codec import encode
from firmware_bridge.codes import Clamp, Feature, NackCode
from firmware_bridge.connection import Received
from firmware_bridge.layout import Message, read_part
from firmware_bridge.limits import LIMITS
from firmware_bridge.links import LoopbackLink
from firmware_bridge.messages import Ack, Decision, Logits, Nack, Observe, ObserveHead, Status, pack_mask
from firmware_bridge.observation import Decided, Sampling, cut, decide_integer
from firmware_bridge.reasons import nack_text
from tests.board_tools import NONCE, CoreInProcess, harness
from tests.observe_tools import N_OBS, SLOT_US, SLOTS, TinyPolicy, armed, observation

TIMEOUT_US = LIMITS["OBSERVE_MAX_US"].value


def parts(seed: int, decision_id: int = 1, lease_ms: int = 300, start_us: int = 0) -> list[Observe]:
    return cut(decision_id, observation(seed), start_us=start_us, lease_ms=lease_ms)


def say(client: BoardClient, *messages: Message) -> list[Message]:
    """Send as it is; what comes back at once."""
    client.link.write(b"".join(client.connection.send(message) for message in messages))
    return [e.message for e in client.connection.receive(client.link.read(0.0)) if isinstance(e, Received)]


def code(messages: Sequence[Message]) -> NackCode:
    """The one refusal among the answers."""
    (found,) = [m for m in messages if isinstance(m, Nack)]
    return NackCode(found.code)


def decided(reply: Decided | Nack) -> Decided:
    assert isinstance(reply, Decided), nack_text(reply)
    return reply


def test_the_board_decides_and_says_what_it_does() -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    assert client.board is not None
    assert client.board.features == Feature.DECIDES
    values = observation()
    reply = decided(client.observe(1, values, 40_000, 500, Sampling(5, 404, 7, 1234)))
    expected = TinyPolicy().infer(values)
    np.testing.assert_array_equal(reply.logits, expected)
    mask = tuple(int(bit) for bit in decide_integer(expected))
    assert 0 < sum(mask) < SLOTS
    answer = reply.decision
    assert reply.mask == mask
    assert reply.nack is None
    assert (answer.start_us, answer.lease_until_us, answer.slots) == (40_000, 500_000, SLOTS)
    assert (answer.amplitude_uA, answer.width_us, answer.clamp, answer.slot_period_us) == (3000, 60, 0, SLOT_US)
    margins = np.clip((expected[:, 1].astype(np.int64) - expected[:, 0]) >> 4, -(2**15), 2**15 - 1)
    np.testing.assert_array_equal(reply.margins, margins[:54])
    core.advance(500_000)
    assert core.pulses == [40_000 + i * SLOT_US for i in range(23) if mask[i]]


def test_the_policy_has_time_and_pulses_go_on() -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    assert isinstance(client.set_stim(1, 0, SLOT_US, [1] * 50, 3000, 60), Ack)
    core.thinking = True
    assert say(client, *parts(0, 2)) == []
    address = core.take()
    assert address is not None
    core.advance(70_000)
    assert core.pulses == [0, 20_000, 40_000, 60_000]
    assert core.decided(address, elsewhere=True) == 0
    answer = next(e.message for e in client.connection.receive(core.take_out()) if isinstance(e, Received))
    assert isinstance(answer, Decision)
    assert (answer.whole_us, answer.decided_us, answer.start_us) == (0, 70_000, 70_000)
    assert core.take() is None
    assert core.decided(address) == 3, "nothing waits any more"


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 3), st.integers(0, 2)),  # decision, fragment
        st.tuples(st.just("damage"), st.integers(1, 3), st.integers(0, 2)),  # a bit of the frame
        st.tuples(st.just("forge"), st.integers(1, 3), st.integers(0, 2)),  # a bit of the data in a whole frame
        st.tuples(st.just("swap"), st.integers(1, 3), st.integers(0, 2)),  # another observation's data, this one's name
        st.tuples(st.just("rename"), st.integers(1, 3), st.integers(0, 2)),  # another CRC of the whole
        st.tuples(st.just("wait"), st.sampled_from([10, 600_000, TIMEOUT_US + 1]), st.just(0)),
    ),
    max_size=25,
)


def frame_of(client: BoardClient, sent: dict[int, list[Observe]], event: tuple[str, int, int], bit: int) -> bytes:
    """A fragment on the link: intact, damaged on the way, or built wrongly by whoever sends."""
    what, which, fragment = event
    part = sent[which][fragment]
    if what == "forge":
        data = bytearray(part.data)
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        part = replace(part, data=bytes(data))
    elif what == "swap":
        part = replace(part, data=sent[which % 3 + 1][fragment].data)
    elif what == "rename":
        part = replace(part, crc=part.crc ^ 1)
    frame = bytearray(client.connection.send(part))
    if what == "damage":
        frame[1 + bit // 8 % (len(frame) - 2)] ^= 1 << bit % 8
    return bytes(frame) + b"\x00"


@settings(max_examples=400)
@given(EVENTS, st.integers(0, 2**16))
def test_whatever_happens_to_fragments_no_decision_is_wrong(events: list[tuple[str, int, int]], bit: int) -> None:
    """Any order, loss, repeats, damage, forgery: what is decided is what one whole observation decides."""
    core = CoreInProcess(policy=True)
    client = armed(core)
    policy = TinyPolicy()
    sent = {i: parts(i, i) for i in (1, 2, 3)}
    intact: dict[int, set[int]] = {i: set() for i in sent}
    answers: dict[int, tuple[bytes, bytes]] = {}  # mask and logits by decision
    for event in events:
        if event[0] == "wait":
            core.advance(core.now_us + event[1])
            continue
        client.link.write(frame_of(client, sent, event, bit))
        intact[event[1]] |= {event[2]} if event[0] == "send" else set()
        for got in client.connection.receive(client.link.read(0.0)):
            assert isinstance(got, Received)
            if isinstance(got.message, Decision):
                number = got.message.decision_id
                assert intact[number] == {0, 1, 2}, "decided without the whole of it"
                if number not in answers:
                    logits = policy.infer(observation(number))
                    answers[number] = (_bits(logits), logits.astype("<i4").tobytes())
                assert got.message.mask == answers[number][0]
            elif isinstance(got.message, Logits):
                first = 208 * got.message.fragment
                assert answers[got.message.decision_id][1][first : first + 208] == got.message.values
    # And the board is well afterwards.
    core.advance(core.now_us + 1_100_000)
    client.hello()
    client.arm()
    reply = decided(client.observe(1, observation(9), 0))
    np.testing.assert_array_equal(reply.logits, TinyPolicy().infer(observation(9)))


def _bits(logits: NDArray[np.int32]) -> bytes:
    return pack_mask(decide_integer(logits))[1]


@given(st.permutations(range(3)), st.lists(st.integers(0, 2), max_size=6))
def test_fragments_in_any_order_and_repeated_make_one_decision(order: list[int], again: list[int]) -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    sent = parts(1)
    answers = say(client, *[sent[i] for i in order[:2]], *[sent[i] for i in again if i != order[2]], sent[order[2]])
    kinds = [type(message) for message in answers if not isinstance(message, Status)]
    assert kinds == [Decision, Logits, Logits, Logits]


def test_a_lost_answer_is_given_again_and_nothing_changes() -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    sent = parts(1)
    first = [m for m in say(client, *sent) if not isinstance(m, Status)]
    core.advance(50_000)
    pulses = core.pulses
    again = say(client, *sent)  # only the last fragment asks
    assert [replace(m, of_sequence=0) for m in again] == [replace(m, of_sequence=0) for m in first]  # type: ignore[type-var]
    assert core.pulses == pulses
    second = decided(client.observe(2, observation(2), 0))
    policy = TinyPolicy()
    policy.infer(observation(1))
    np.testing.assert_array_equal(second.logits, policy.infer(observation(2)))  # remembered the first one once


def test_fragments_too_far_apart_are_no_observation() -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    sent = parts(1)
    assert say(client, *sent[:2]) == []
    core.advance(TIMEOUT_US + 1)
    assert say(client, sent[2]) == []
    assert [type(m) for m in say(client, *sent[:2])] == [Status, Decision, Logits, Logits, Logits]


def test_a_newer_decision_takes_the_place_of_an_unfinished_one() -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    assert say(client, *parts(1, 1)[:2]) == []
    assert say(client, *parts(2, 2)[:2]) == []
    assert code(say(client, parts(1, 1)[2])) is NackCode.DECISION
    answers = [m for m in say(client, parts(2, 2)[2]) if isinstance(m, Decision)]
    assert [answer.decision_id for answer in answers] == [2]


def test_one_observation_at_a_time() -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    core.thinking = True
    assert say(client, *parts(1, 1)) == []
    assert say(client, *parts(1, 1)) == []  # the same again
    (refusal,) = say(client, parts(2, 2)[0])
    assert isinstance(refusal, Nack)
    assert (refusal.code, refusal.value) == (NackCode.BUSY, 1)


def test_without_a_policy_nothing_is_decided() -> None:
    client = armed(CoreInProcess())
    assert client.board is not None
    assert client.board.features == 0
    assert code(say(client, parts(1)[0])) is NackCode.NO_POLICY


def test_only_an_armed_board_decides() -> None:
    core = CoreInProcess(policy=True)
    client = BoardClient(LoopbackLink(core), nonce=NONCE)
    client.hello()
    reply = client.observe(1, observation(), 0)
    assert isinstance(reply, Nack)
    assert nack_text(reply) == "it is in state IDLE"


@pytest.mark.parametrize(
    ("wrong", "value", "wanted"),
    [
        ({"fragments": 2}, 2, 3),
        ({"fragment": 3}, 3, 3),
        ({"data": b"x" * 209}, 209, 210),
        ({"fragment": 2, "data": b"x" * 9}, 9, 8),
        ({"data": b""}, 0, 210),
    ],
)
def test_an_observation_of_another_size_is_refused(wrong: dict[str, Any], value: int, wanted: int) -> None:
    client = armed(CoreInProcess(policy=True))
    (refusal,) = say(client, replace(parts(1)[0], **wrong))
    assert isinstance(refusal, Nack)
    assert refusal.code == NackCode.OBSERVATION
    assert (refusal.value, refusal.low, refusal.high) == (value, wanted, wanted)


def test_a_forged_observation_is_refused_and_the_right_one_taken_after_it() -> None:
    client = armed(CoreInProcess(policy=True))
    sent = parts(1)
    assert code(say(client, *sent[:2], replace(sent[2], data=bytes(8)))) is NackCode.OBSERVATION_CRC
    assert code(say(client, sent[0], replace(sent[1], crc=1))) is NackCode.OBSERVATION_CRC
    assert any(isinstance(m, Decision) for m in say(client, *sent[1:]))


@pytest.mark.parametrize("wrong", [{"minimum": -128}, {"maximum": 0}, {"valid": N_OBS - 1}, {"blanked": 1}])
def test_a_head_that_contradicts_its_values_is_refused(wrong: dict[str, int]) -> None:
    client = armed(CoreInProcess(policy=True))
    head, values = read_part(ObserveHead, b"".join(part.data for part in parts(1)))
    blob = replace(head, **wrong).pack() + values
    pieces = [blob[at : at + 210] for at in range(0, len(blob), 210)]
    answers = say(client, *[Observe(1, i, 3, zlib.crc32(blob), piece) for i, piece in enumerate(pieces)])
    assert code(answers) is NackCode.OBSERVATION


def test_an_answer_that_is_not_finite_is_refused() -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    values = observation()
    values[1] = -128
    reply = decided(client.observe(1, values, 0))
    assert (reply.decision.code, reply.decision.value) == (NackCode.NOT_FINITE, 3)
    assert reply.mask == (0,) * SLOTS
    assert reply.nack is not None
    core.advance(1_000_000)
    assert core.pulses == []


@pytest.mark.parametrize("stop", [True, False])
def test_what_was_decided_for_an_old_session_is_dropped(stop: bool) -> None:
    """A STOP, or a new handshake, while the policy thinks."""
    core = CoreInProcess(policy=True)
    client = armed(core)
    core.thinking = True
    say(client, *parts(1))
    address = core.take()
    assert address is not None
    if stop:
        client.stop()
    client.hello()
    client.arm()
    assert code(say(client, parts(2)[0])) is NackCode.BUSY, "the bytes are still being read"
    assert core.decided(address) == 3
    assert core.take_out() == b""
    assert core.take() is None
    core.thinking = False
    reply = decided(client.observe(1, observation(2), 0))
    np.testing.assert_array_equal(reply.logits, TinyPolicy().infer(observation(2)))  # reset by ARM


def test_a_stop_while_the_policy_thinks_wins() -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    core.thinking = True
    say(client, *parts(1))
    address = core.take()
    assert address is not None
    client.stop()
    core.decided(address)
    (answer, *_) = [e.message for e in client.connection.receive(core.take_out()) if isinstance(e, Received)]
    assert isinstance(answer, Decision)
    assert answer.code == NackCode.STATE
    core.advance(1_000_000)
    assert core.pulses == []


ORDER = st.tuples(st.integers(0, 2_600_000), st.integers(0, 1100), st.integers(0, 5000), st.integers(200, 60_000))


@settings(max_examples=200)
@given(st.lists(ORDER, min_size=1, max_size=4), st.integers(0, 2))
def test_the_boards_decision_is_judged_as_an_order_is(orders: list[tuple[int, int, int, int]], steps: int) -> None:
    """The same masks ordered by a host and decided by the board: the same verdicts, the same pulses."""
    limit, area = orders[0][2], orders[0][3]

    def run(by_board: bool) -> tuple[list[object], list[int]]:
        core = CoreInProcess(policy=by_board, amplitude_limit_uA=limit, area=area)
        client = armed(core)
        policy = TinyPolicy()
        verdicts: list[object] = []
        for i, (start_us, lease_ms, *_) in enumerate(orders, 1):
            values = observation(i)
            if by_board:
                reply = client.observe(i, values, start_us, lease_ms)
                answer = reply.nack if isinstance(reply, Decided) else reply
                d = reply.decision if isinstance(reply, Decided) and answer is None else None
            else:
                mask = [int(bit) for bit in decide_integer(policy.infer(values))]
                order = client.set_stim(i, start_us, SLOT_US, mask, 3000, 60, lease_ms, check=False)
                answer, d = (order, None) if isinstance(order, Nack) else (None, order)
            verdicts.append(
                (answer.code, answer.value, answer.low, answer.high)
                if answer is not None
                else d and (d.start_us, d.lease_until_us, d.amplitude_uA, d.width_us, d.clamp)
            )
            core.advance(core.now_us + steps * 90_000)
        core.advance(core.now_us + 4_000_000)
        return verdicts, core.pulses

    assert run(True) == run(False)


def test_a_clamped_decision_says_so() -> None:
    client = armed(CoreInProcess(policy=True, amplitude_limit_uA=1500))
    answer = decided(client.observe(1, observation(), 0)).decision
    assert (answer.amplitude_uA, answer.clamp) == (1500, Clamp.RUN_TIME_AMPLITUDE)


def test_a_policy_of_impossible_size_is_not_taken() -> None:
    taken = [harness().harness_init_policy(*size) == 0 for size in [(1, 1), (1024, 256), (1025, 1), (0, 1), (1, 257)]]
    assert taken == [True, True, False, False, False]
    assert harness().harness_init_policy(1, 0) != 0


def test_the_cores_memory_is_fixed_and_small() -> None:
    assert harness().harness_core_size() <= 4608, "of which 2048 hold logits and 1052 an observation"


def test_a_thousand_values_take_five_frames() -> None:
    sent = cut(1, observation(n_obs=1000), start_us=0, lease_ms=300)
    assert len(sent) == 5
    assert sum(len(encode(part, sequence=1, session=1)) for part in sent) <= 1250
    assert ObserveHead.layout.size + 1000 == sum(len(part.data) for part in sent)


def test_values_that_are_no_observation_are_refused() -> None:
    with pytest.raises(UserError, match=r"1 to 1024 int8 values, not float32 \(4,\)"):
        cut(1, np.zeros(4, np.float32), start_us=0, lease_ms=300)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"not int8 \(0,\)"):
        cut(1, np.zeros(0, np.int8), start_us=0, lease_ms=300)
    with pytest.raises(UserError, match="5 values blanked is outside 0 to 4"):
        cut(1, np.zeros(4, np.int8), start_us=0, lease_ms=300, sampling=Sampling(blanked=5))
