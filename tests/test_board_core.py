"""What the board does, seen from its electrode: the real process, a clock stepped from here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import UserError
from firmware_bridge.client import BoardClient, nack_text
from firmware_bridge.codec import encode
from firmware_bridge.codes import AckCode, Cause, Clamp, ElectrodeFault, Fault, NackCode, Refusal, State
from firmware_bridge.connection import Received
from firmware_bridge.layout import PROTOCOL, Message
from firmware_bridge.limits import LIMITS_HASH
from firmware_bridge.links import LoopbackLink
from firmware_bridge.messages import SCHEMA_HASH, Ack, Arm, Heartbeat, Hello, HelloAck, Nack, Renew, Stop
from tests.board_tools import NONCE, CoreInProcess, Rig, check_pulses, rig

ALL = [1] * 50
SLOT = 20_000


@pytest.fixture
def armed() -> Iterator[Rig]:
    with rig() as made:
        yield made


def raw(board: Rig, data: bytes) -> list[Message]:
    """Send bytes as they are; every message that comes back before the answer to a heartbeat."""
    connection = board.client.connection
    board.client.link.write(data)
    board.client.link.write(connection.send(Heartbeat()))
    got: list[Message] = []
    while not (got and isinstance(got[-1], Ack) and got[-1].of_sequence == connection.sequence):
        got += [e.message for e in connection.receive(board.client.link.read(2)) if isinstance(e, Received)]
    return got[:-1]


def refused(reply: Ack | Nack, code: NackCode) -> Nack:
    assert isinstance(reply, Nack)
    assert NackCode(reply.code) is code
    return reply


def test_no_order_no_pulse(armed: Rig) -> None:
    assert armed.bench.state is State.IDLE
    assert armed.bench.advance(5_000_000) == []
    assert armed.bench.state is State.ARMED
    assert armed.bench.grounded


def test_a_board_that_is_not_armed_takes_no_order() -> None:
    with rig(armed=False) as board:
        board.client.hello()
        reply = refused(board.client.set_stim(1, 0, SLOT, ALL, 3000, 60), NackCode.STATE)
        assert nack_text(reply) == "it is in state IDLE"
        assert board.bench.advance(1_000_000) == []


def test_a_paper_decision_gives_its_mask_at_its_slots(armed: Rig) -> None:
    mask = [i % 3 % 2 for i in range(50)]
    ack = armed.order(1, mask, start_us=SLOT)
    assert (ack.start_us, ack.amplitude_uA, ack.width_us, ack.clamp, ack.lease_until_us) == (SLOT, 3000, 60, 0, 300_000)
    pulses = []
    for k in range(1, 52):
        pulses += armed.bench.advance(k * SLOT)
        if k % 5 == 0:
            assert isinstance(armed.client.renew(1), Ack)
    assert [p.t_us for p in pulses] == [SLOT + i * SLOT for i, bit in enumerate(mask) if bit]
    assert {(p.amplitude_uA, p.width_us, p.second_amplitude_uA, p.second_width_us) for p in pulses} == {
        (-3000, 60, 3000, 60)
    }
    assert armed.bench.state is State.CLOSED_LOOP
    assert not armed.bench.grounded


def test_slots_past_the_lease_are_not_given(armed: Rig) -> None:
    armed.order(1, ALL)
    assert armed.times(2_000_000) == [i * SLOT for i in range(15)]  # 0 … 280 ms, lease 300 ms
    assert armed.bench.state is State.FALLBACK
    assert armed.bench.grounded
    status = armed.client.status()
    assert (status.cause, status.faults, status.pulses, status.slots_lapsed) == (Cause.LEASE_ENDED, Fault.LEASE, 15, 35)
    fallback = armed.client.notices[-1]
    assert State(fallback.state) is State.FALLBACK


def test_a_pulse_due_when_the_lease_ends_is_not_given(armed: Rig) -> None:
    armed.order(1, ALL, lease_ms=40)
    assert armed.times(1_000_000) == [0, SLOT]


def test_renewal_at_the_last_microsecond_counts(armed: Rig) -> None:
    armed.order(1, ALL)
    armed.bench.advance(300_000)
    assert isinstance(armed.client.renew(1), Ack)
    assert armed.times(2_000_000)[-1] == 580_000


def test_a_renewal_never_restarts_the_mask(armed: Rig) -> None:
    armed.order(1, [1, 0, 1])
    given_at = armed.times(50_000)
    for k in range(1, 20):
        assert isinstance(armed.client.renew(1), Ack)
        given_at += armed.times(50_000 + k * 100_000)
    assert given_at == [0, 2 * SLOT]
    assert armed.bench.state is State.CLOSED_LOOP


def test_only_the_loop_that_decides_keeps_the_lease(armed: Rig) -> None:
    armed.order(1, ALL)
    for t in range(SLOT, 301_000, SLOT):
        armed.bench.advance(t)
        armed.client.heartbeat()
        armed.client.status()
        armed.client.time_sync()
    armed.bench.advance(300_001)
    assert armed.bench.state is State.FALLBACK


@given(
    st.integers(20, 1000),
    st.lists(st.integers(1_000, 400_000), max_size=8),
    st.integers(5_406, 100_000),
    st.integers(1, 256),
)
def test_no_pulse_later_than_the_last_renewal_and_its_lease(
    lease_ms: int, gaps: list[int], period_us: int, slots: int
) -> None:
    core = CoreInProcess()
    client = BoardClient(LoopbackLink(core), nonce=NONCE)
    client.hello()
    client.arm()
    assert isinstance(client.set_stim(1, 0, period_us, [1] * slots, 3000, 60, lease_ms), Ack)
    alive_until, now = lease_ms * 1000, 0
    for gap in gaps:
        now += gap
        core.advance(now)
        reply = client.renew(1)
        assert isinstance(reply, Ack) == (now <= alive_until)
        if isinstance(reply, Ack):
            alive_until = now + lease_ms * 1000
    core.advance(60_000_000)
    assert core.pulses == [i * period_us for i in range(slots) if i * period_us < alive_until]


def test_a_queued_mask_follows_without_a_gap(armed: Rig) -> None:
    armed.order(1, [1] * 5)
    armed.order(2, [1, 0, 1], start_us=5 * SLOT)
    refused(armed.client.set_stim(3, 8 * SLOT, SLOT, [1], 3000, 60), NackCode.QUEUE_FULL)
    assert armed.times(250_000) == [0, SLOT, 2 * SLOT, 3 * SLOT, 4 * SLOT, 5 * SLOT, 7 * SLOT]
    status = armed.client.status()
    assert (status.decision_id, status.queued_id) == (2, 0)


def test_a_new_decision_replaces_the_one_under_way_at_its_start(armed: Rig) -> None:
    armed.order(1, ALL)
    armed.bench.advance(45_000)
    armed.order(2, [0, 1], start_us=70_000)
    assert armed.times(250_000) == [60_000, 90_000]
    refused(armed.client.renew(1), NackCode.DECISION)


def test_renewing_the_decision_under_way_keeps_the_queued_one_alive(armed: Rig) -> None:
    armed.order(1, [1] * 50)
    armed.order(2, [1] * 50, start_us=1_000_000)
    given_at: list[int] = []
    for t in range(100_000, 1_300_001, 100_000):
        given_at += armed.times(t)
        if t < 1_000_000:
            assert isinstance(armed.client.renew(1), Ack)
    assert given_at == list(range(0, 1_200_000, SLOT))  # renewed last at 0.9 s
    assert armed.bench.state is State.FALLBACK


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"amplitude_uA": 5001}, NackCode.AMPLITUDE, "amplitude 5001 is outside 0 to 5000 µA"),
        ({"width_us": 59}, NackCode.WIDTH, "width 59 is outside 60 to 120 µs"),
        ({"width_us": 121}, NackCode.WIDTH, "width 121 is outside 60 to 120 µs"),
        ({"slot_period_us": 5405}, NackCode.SLOT_PERIOD, "slot period 5405 is outside 5406 to 500000 µs"),
        ({"slot_period_us": 500_001}, NackCode.SLOT_PERIOD, "slot period 500001 is outside 5406 to 500000 µs"),
        ({"lease_ms": 19}, NackCode.LEASE, "lease 19 is outside 20 to 1000 ms"),
        ({"lease_ms": 1001}, NackCode.LEASE, "lease 1001 is outside 20 to 1000 ms"),
        ({"start_us": 2_100_001}, NackCode.START, "start 2100001 is outside 0 to 2100000 µs"),
        ({"decision_id": 0}, NackCode.DECISION, NackCode.DECISION.doc),
    ],
)
def test_an_order_outside_a_limit_is_refused_whole(
    armed: Rig, change: dict[str, int], code: NackCode, text: str
) -> None:
    armed.order(1, [1] * 50)
    armed.bench.advance(100_000)
    order = {
        "decision_id": 2,
        "start_us": 0,
        "slot_period_us": SLOT,
        "amplitude_uA": 2000,
        "width_us": 60,
        "lease_ms": 300,
    }
    reply = armed.client.set_stim(**(order | change), mask=[1] * 50, check=False)
    assert nack_text(refused(reply, code)) == text
    assert armed.times(1_000_000)[-1] == 280_000, "the refused order neither renewed nor replaced anything"
    assert armed.client.status().orders_refused == 1


def test_the_host_does_not_send_what_is_out_of_range(armed: Rig) -> None:
    with pytest.raises(UserError, match="SET_STIM is not sent: amplitude 50000 is outside 0 to 5000 µA"):
        armed.client.set_stim(1, 0, SLOT, ALL, 50_000, 60)
    assert armed.client.status().frames == 3  # HELLO, ARM and this STATUS_REQUEST


def test_run_time_limits_lower_the_amplitude_and_say_so() -> None:
    with rig(amplitude_limit_uA=2500, electrode_area_cm2=0.003) as board:
        ack = board.order(1, [1], amplitude_uA=4000, width_us=120)
        assert ack.amplitude_uA == 750  # 30 µC/cm² × 0.003 cm² / 120 µs
        assert ack.clamp == Clamp.RUN_TIME_AMPLITUDE | Clamp.CHARGE_DENSITY
        assert [p.amplitude_uA for p in board.bench.advance(SLOT)] == [-750]
        status = board.client.status()
        assert (status.amplitude_limit_uA, status.electrode_area) == (2500, 3000)


def test_every_pulse_is_balanced(armed: Rig) -> None:
    pulses = []
    for k, (amplitude, width) in enumerate([(1, 60), (333, 61), (3000, 60), (4999, 119), (5000, 120)]):
        armed.order(k + 1, [1], start_us=k * SLOT or 0, amplitude_uA=amplitude, width_us=width)
        pulses += armed.bench.advance((k + 1) * SLOT)
    assert len(pulses) == 5
    check_pulses(pulses)


def test_an_amplitude_of_zero_gives_no_pulse(armed: Rig) -> None:
    armed.order(1, ALL, amplitude_uA=0)
    assert armed.bench.advance(200_000) == []


def test_two_decisions_cannot_bring_pulses_too_near(armed: Rig) -> None:
    armed.order(1, [1])
    assert armed.times(3_000) == [0]
    armed.order(2, [1, 1], start_us=5_405)
    assert armed.times(100_000) == [25_405]
    assert armed.client.status().slots_too_soon == 1


def test_a_late_order_leaves_out_the_slots_that_are_past(armed: Rig) -> None:
    armed.bench.advance(100_000)
    armed.order(1, [1] * 10, start_us=45_000)  # slots at 45, 65, 85, 105, … ms; 85 ms is more than half a slot ago
    assert armed.times(400_000) == list(range(105_000, 226_000, SLOT))
    assert armed.client.status().slots_late == 3
    refused(armed.client.set_stim(2, 300_000, SLOT, [1] * 5, 3000, 60), NackCode.START)


def test_decisions_are_taken_once_and_in_order(armed: Rig) -> None:
    armed.order(5, ALL)
    assert AckCode(armed.order(5, [0]).code) is AckCode.ALREADY
    refused(armed.client.set_stim(4, 0, SLOT, [1], 3000, 60), NackCode.DECISION)
    assert len(armed.times(200_000)) == 10


def to_idle(board: Rig) -> None:
    board.client.stop()


def to_armed(board: Rig) -> None:
    del board


def to_closed_loop(board: Rig) -> None:
    board.order(1, ALL)


def to_fallback(board: Rig) -> None:
    board.order(1, ALL)
    board.bench.advance(400_000)


def to_safe_off(board: Rig) -> None:
    board.bench.set_fault(ElectrodeFault.DEAD)
    board.order(1, ALL)
    board.bench.advance(100_000)


@pytest.mark.parametrize(
    ("lead", "before", "after"),
    [
        (to_idle, State.IDLE, State.IDLE),
        (to_armed, State.ARMED, State.IDLE),
        (to_closed_loop, State.CLOSED_LOOP, State.IDLE),
        (to_fallback, State.FALLBACK, State.IDLE),
        (to_safe_off, State.SAFE_OFF, State.SAFE_OFF),
    ],
)
def test_stop_is_honoured_in_every_state_from_anybody(armed: Rig, lead, before: State, after: State) -> None:  # type: ignore[no-untyped-def]
    lead(armed)
    now = armed.bench.now_us
    assert State(armed.client.status().state) is before
    # a stranger: no session, a sequence used long ago
    stranger = encode(Stop(0), sequence=1, session=0)
    acks = [m for m in raw(armed, stranger + stranger) if isinstance(m, Ack)]
    assert [(ack.of_sequence, ack.of_type) for ack in acks] == [(1, Stop.layout.type_id)] * 2
    assert State(armed.client.status().state) is after
    assert isinstance(armed.client.stop(), Ack)
    assert armed.bench.advance(now + 1_000_000) == []
    assert armed.bench.grounded
    refused(armed.client.set_stim(9, 0, SLOT, ALL, 3000, 60), NackCode.STATE)


def test_out_of_fallback_leads_only_a_fresh_handshake(armed: Rig) -> None:
    to_fallback(armed)
    refused(armed.client.set_stim(2, 0, SLOT, ALL, 3000, 60), NackCode.STATE)
    refused(armed.client.renew(1), NackCode.STATE)
    with pytest.raises(
        UserError, match="refused ARM: ARM does not echo the nonce of the last HELLO_ACK, or the nonce is spent"
    ):
        armed.client.arm()
    old = encode(
        Hello(PROTOCOL, PROTOCOL, 0, _session_nonce(armed), SCHEMA_HASH, LIMITS_HASH, bytes(32)), sequence=99, session=0
    )
    assert [type(m) for m in raw(armed, old)] == [HelloAck]
    with pytest.raises(UserError, match="nonce is spent"):
        armed.client.arm()
    assert State(armed.client.hello().state) is State.FALLBACK
    armed.client.arm()
    armed.order(1, [1, 1])
    assert armed.times(600_000) == [400_000, 420_000]


def _session_nonce(board: Rig) -> bytes:
    assert board.client.board is not None
    return board.client.board.host_nonce


@pytest.mark.parametrize(
    ("wrong", "bit", "text"),
    [
        ({"schema_hash": bytes(32)}, Refusal.SCHEMA, "another message schema .board [0-9a-f]{12}, host 0{12}"),
        ({"limits_hash": bytes(32)}, Refusal.LIMITS, "another limits .board [0-9a-f]{12}, host 0{12}"),
        ({"model_hash": b"\x01" * 32}, Refusal.MODEL, "another model .board 020202020202, host 010101010101"),
        ({}, Refusal.MODEL, "another model .board 020202020202, host 000000000000"),
    ],
)
def test_other_hashes_refuse_arm_and_are_named(wrong: dict[str, bytes], bit: Refusal, text: str) -> None:
    model = b"\x02" * 32
    with rig(armed=False, model_hash=model) as board:  # type: ignore[arg-type]
        hashes = {"model_hash": model, **wrong} if wrong else {}
        with pytest.raises(UserError, match=f"may not be armed: {text}"):
            board.client.hello(**hashes)
        reply = board.client.hello(**hashes, refuse=False)
        assert reply.refusal == bit
        with pytest.raises(UserError, match=f"refused ARM: {bit.doc}"):
            board.client.arm()
        assert State(board.client.status().state) is State.IDLE
        assert board.client.hello(model).refusal == 0
        board.client.arm()


def test_another_protocol_is_named() -> None:
    with rig(armed=False) as board:
        hello = Hello(PROTOCOL + 1, PROTOCOL + 3, 0, b"q" * 16, SCHEMA_HASH, LIMITS_HASH, bytes(32))
        board.client.link.write(encode(hello, sequence=1, session=0))
        (event,) = board.client.connection.receive(board.client.link.read(2))
        assert isinstance(event, Received)
        assert isinstance(event.message, HelloAck)
        assert event.message.refusal == Refusal.PROTOCOL


def test_a_board_without_a_policy_takes_any_model() -> None:
    with rig(armed=False) as board:
        assert board.client.hello(b"\x07" * 32).model_hash == bytes(32)
        board.client.arm()


def test_damaged_frames_change_nothing(armed: Rig) -> None:
    armed.order(1, ALL)
    stop = bytearray(encode(Stop(0), sequence=50, session=0))
    stop[9] ^= 0x10
    replies = raw(armed, bytes(stop) + bytes(range(1, 200)) + b"\x00" + b"\x55" * 10_000 + b"\x00")
    assert [NackCode(m.code) for m in replies if isinstance(m, Nack)] == [NackCode.BAD_FRAME] * 3
    status = armed.client.status()
    assert (status.frames_bad, State(status.state), status.faults) == (3, State.CLOSED_LOOP, Fault.OVERRUN)
    assert len(armed.times(200_000)) == 10


def test_repeated_reordered_and_old_frames_are_ignored_and_counted(armed: Rig) -> None:
    armed.order(1, ALL)
    connection = armed.client.connection
    used = encode(Renew(1), sequence=connection.sequence, session=connection.session)
    older = encode(Renew(1), sequence=1, session=connection.session)
    other = encode(Renew(1), sequence=connection.sequence + 50, session=connection.session - 1)
    armed.bench.advance(200_000)
    assert raw(armed, used + older + other + used) == []
    status = armed.client.status()
    assert (status.frames_old_sequence, status.frames_old_session) == (3, 1)
    assert armed.times(2_000_000)[-1] == 280_000, "none of them renewed the lease"


def test_a_replayed_handshake_of_an_older_session_is_ignored(armed: Rig) -> None:
    first = encode(
        Hello(PROTOCOL, PROTOCOL, 0, _session_nonce(armed), SCHEMA_HASH, LIMITS_HASH, bytes(32)), sequence=1, session=0
    )
    armed.client.hello()
    armed.client.arm()
    assert raw(armed, first) == []
    assert State(armed.client.status().state) is State.ARMED


def test_a_repeated_arm_is_answered_and_changes_nothing(armed: Rig) -> None:
    assert AckCode(armed.client.arm().code) is AckCode.ALREADY
    assert armed.client.board is not None
    (reply,) = raw(armed, armed.client.connection.send(Arm(bytes(16))))
    assert isinstance(reply, Nack)
    assert NackCode(reply.code) is NackCode.NONCE


def test_a_second_host_waits_until_the_lease_has_ended(armed: Rig) -> None:
    armed.order(1, ALL)
    hello = Hello(PROTOCOL, PROTOCOL, 0, b"second host 0123", SCHEMA_HASH, LIMITS_HASH, bytes(32))
    (ack,) = raw(armed, encode(hello, sequence=1, session=0))
    assert isinstance(ack, HelloAck)
    assert ack.refusal == Refusal.BUSY
    assert armed.times(2_000_000)[-1] == 280_000
    armed.client.poll(1)
    armed.client.link.write(encode(hello, sequence=1, session=0))
    (event,) = armed.client.connection.receive(armed.client.link.read(2))
    assert isinstance(event, Received)
    assert isinstance(event.message, HelloAck)
    assert event.message.refusal == 0


@pytest.mark.parametrize(
    ("fault", "residual", "cause", "pulses"),
    [(ElectrodeFault.DEAD, 0, Cause.STIMULATOR, 0), (ElectrodeFault.UNBALANCED, 1, Cause.RESIDUAL, 1)],
)
def test_a_fault_of_the_output_latches_until_a_person_comes(
    armed: Rig, fault: ElectrodeFault, residual: int, cause: Cause, pulses: int
) -> None:
    armed.bench.set_fault(fault, residual)
    armed.order(1, ALL)
    assert len(armed.times(300_000)) == pulses
    assert armed.bench.state is State.SAFE_OFF
    assert armed.bench.grounded
    assert Cause(armed.client.status().cause) is cause
    armed.bench.set_fault(ElectrodeFault.NONE)
    with pytest.raises(UserError, match="the board is in SAFE_OFF: a person must press its button"):
        armed.client.hello()
    with pytest.raises(UserError, match="refused ARM"):
        armed.client.arm()
    armed.bench.press_button()
    assert armed.bench.state is State.IDLE
    armed.client.hello()
    armed.client.arm()
    armed.order(1, [1])
    assert len(armed.times(400_000)) == 1


def test_the_button_arms_nothing(armed: Rig) -> None:
    armed.bench.press_button()
    assert armed.bench.state is State.ARMED
    armed.order(1, ALL)
    armed.bench.press_button()
    assert len(armed.times(100_000)) == 5
