"""Sessions with a device key, on the compiled core: who holds no key commands nothing."""

from __future__ import annotations

from collections import deque

import pytest

from envs.errors import UserError
from firmware_bridge.client import BoardClient
from firmware_bridge.codec import Decoder, Frame, cobs_decode, cobs_encode, encode
from firmware_bridge.codes import Cause, Fault, Feature, Refusal, State
from firmware_bridge.layout import HEADER
from firmware_bridge.links import LoopbackLink
from firmware_bridge.messages import (
    Ack,
    Arm,
    Heartbeat,
    Hello,
    HelloAck,
    Renew,
    StatusRequest,
    Stop,
    TimeSync,
)
from firmware_bridge.security.auth import LAST_SEQUENCE, From, SessionAuth
from firmware_bridge.security.keys import DeviceKey
from tests.board_tools import NONCE, CoreInProcess
from tests.security_attack import attack

KEY = DeviceKey(bytes(range(32)))
OTHER = DeviceKey(bytes(32))


class Wire:
    """A board on a wire that somebody listens to."""

    def __init__(self, key: DeviceKey | None = KEY, *, simulated: bool = True, boots: int = 1) -> None:
        self.core = CoreInProcess(key=key.secret if key else None, simulated=simulated, boots=boots)
        self.heard: deque[bytes] = deque()
        self.said: deque[bytes] = deque()
        self.lossy = 0  # so many writes are lost on the way

    def __call__(self, data: bytes) -> bytes:
        self.heard.append(data)
        if self.lossy > 0:
            self.lossy -= 1
            return b""
        answer = self.core(data)
        self.said.append(answer)
        return answer

    def client(self, key: DeviceKey | None = KEY) -> BoardClient:
        return BoardClient(LoopbackLink(self), key=key, timeout_s=0.3)


def armed(wire: Wire) -> BoardClient:
    client = wire.client()
    client.hello()
    client.arm()
    return client


def order(client: BoardClient, decision: int = 1) -> Ack:
    reply = client.set_stim(decision, 0, 20_000, [1] * 50, 3000, 60)
    assert isinstance(reply, Ack)
    return reply


def test_with_the_key_a_session_runs() -> None:
    wire = Wire()
    client = armed(wire)
    order(client)
    wire.core.advance(100_000)
    assert isinstance(client.renew(1), Ack)
    client.time_sync()
    client.heartbeat()
    assert client.board is not None
    assert client.board.features & Feature.KEYED
    status = client.status()
    assert (status.state, status.frames_forged, status.pulses) == (State.CLOSED_LOOP, 0, 5)
    assert client.connection.ignored.total() == 0


def test_without_a_key_both_ends_say_bench_mode() -> None:
    client = Wire(None).client(None)
    assert not client.hello().features & Feature.KEYED
    client.arm()
    order(client)


@pytest.mark.parametrize(
    ("board", "host", "said"),
    [(KEY, None, "--key FILE"), (None, KEY, "bench mode"), (KEY, OTHER, "does not hold the key")],
)
def test_ends_with_other_keys_are_named(board: DeviceKey | None, host: DeviceKey | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Wire(board).client(host).hello()


def test_a_real_output_is_never_armed_without_a_key() -> None:
    client = Wire(None, simulated=False).client(None)
    with pytest.raises(UserError, match="no device key"):
        client.hello()
    assert client.hello(refuse=False).refusal == Refusal.KEY
    with pytest.raises(UserError, match="no device key"):
        client.arm()
    armed(Wire(KEY, simulated=False))


def test_a_session_with_a_key_is_not_repeatable() -> None:
    with pytest.raises(UserError, match="replayed"):
        BoardClient(LoopbackLink(Wire()), key=KEY, nonce=NONCE)


def test_stop_and_hello_work_for_anybody() -> None:
    wire = Wire()
    client = armed(wire)
    order(client)
    wire.core(encode(Stop(reason=0), sequence=1, session=0))
    assert client.status().state == State.IDLE
    assert client.status().cause == Cause.STOPPED
    order(armed(wire))
    wire.core(encode(Stop(reason=0), sequence=9, session=9, sign=lambda body: b"whatever"))
    assert wire.client().hello().state == State.IDLE


@pytest.mark.parametrize("key", [KEY, None], ids=["key", "bench mode"])
def test_stop_is_acknowledged_after_a_handshake_that_was_cut_short(
    key: DeviceKey | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between HELLO and its answer: the board is in a session that this host never heard of."""
    wire = Wire(key)
    client = wire.client(key)
    client.hello()
    client.arm()
    order(client)
    wire.core.advance(400_000)  # the lease ends
    read = client.link.read

    def interrupted(timeout_s: float) -> bytes:
        read(timeout_s)
        raise KeyboardInterrupt

    monkeypatch.setattr(client.link, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.hello()
    monkeypatch.setattr(client.link, "read", read)
    wire.lossy = 1  # and the cable drops what comes first now
    client.stop()
    status = client.status()
    assert (status.state, status.cause) == (State.IDLE, Cause.STOPPED)


def test_stop_is_asked_for_even_if_no_handshake_is_answered() -> None:
    wire = Wire(None)
    client = wire.client(None)
    client.hello()
    client.arm()
    order(client)
    wire.lossy = 1_000
    with pytest.raises(UserError, match="no answer from a board"):
        client.hello(timeout_s=0.3)
    heard = len(wire.heard)
    with pytest.raises(UserError, match="no answer to STOP"):
        client.stop()
    sent = [frame for data in list(wire.heard)[heard:] for frame in Decoder().feed(data) if isinstance(frame, Frame)]
    assert sum(isinstance(frame.message, Stop) for frame in sent) >= 3
    wire.lossy = 0
    client.stop()
    assert client.status().state == State.IDLE


def test_unsigned_orders_are_counted_and_unanswered() -> None:
    wire = Wire()
    client = armed(wire)
    assert client.board is not None
    session = client.connection.session
    forged = (Arm(client.board.board_nonce), Renew(1), Heartbeat(), StatusRequest(), TimeSync(0, 1, 0, 0, 0))
    for i, message in enumerate(forged):
        assert wire.core(encode(message, sequence=1000 + i, session=session)) == b""
    status = client.status()  # its sequence is below the forged ones: they did not count as the newest
    assert status.frames_forged == len(forged)
    assert status.faults & Fault.FORGED


def test_the_board_proves_itself_and_its_frames_are_checked() -> None:
    wire = Wire()
    client = armed(wire)
    session = client.connection.session
    forged = encode(Ack(2, 0x11, 0, 0, 0, 0, 0, 0, 0), sequence=50, session=session)
    assert [event.reason for event in client.connection.receive(forged)] == ["auth"]  # type: ignore[union-attr]
    own = client.connection.send(TimeSync(0, 1, 0, 0, 0))  # sent back to its sender
    assert [event.reason for event in client.connection.receive(own)] == ["auth"]  # type: ignore[union-attr]
    answered = wire.core(own)
    assert wire.core(answered) == b"", "the board's own frame sent back to it"


def test_an_impostor_that_replays_the_boards_answer_is_found() -> None:
    wire = Wire()
    armed(wire)
    recorded = next(a for a in wire.said if any(isinstance(e, Frame) and isinstance(e.message, HelloAck)
                                                for e in Decoder().feed(a)))  # fmt: skip

    def impostor(data: bytes) -> bytes:
        """Puts the new host nonce into the old answer and mends the CRC."""
        hello = next(e for e in Decoder().feed(data) if isinstance(e, Frame))
        assert isinstance(hello.message, Hello)
        body = cobs_decode(recorded.split(b"\0")[1])
        assert body is not None
        changed = bytearray(body[:-4])
        changed[HEADER.size + 6 : HEADER.size + 22] = hello.message.host_nonce
        import zlib

        whole = bytes(changed) + zlib.crc32(bytes(changed)).to_bytes(4, "little")
        return b"\0" + cobs_encode(whole) + b"\0"

    with pytest.raises(UserError, match="does not hold the key"):
        BoardClient(LoopbackLink(impostor), key=KEY).hello()


def test_a_whole_recorded_session_replayed_later_does_nothing() -> None:
    wire = Wire()
    client = armed(wire)
    order(client)
    recorded = list(wire.heard)
    for boots in (1, 2):  # the same power-on (the nonces are remembered), and the next one
        again = wire if boots == 1 else Wire(boots=2)
        if boots == 1:
            again.core.advance(10_000_000)
            client.stop()
            pulses = len(again.core.pulses)
        else:
            pulses = 0
        for data in recorded:
            again.core(data)
        again.core.advance(again.core.now_us + 2_000_000)
        assert len(again.core.pulses) == pulses
        status = again.client()
        assert status.hello().state in (State.IDLE, State.FALLBACK)


def test_a_board_that_forgets_its_power_ons_would_be_open_to_replay() -> None:
    """Why the count is persisted: with the same count, the same nonces come again."""
    first, second = Wire(boots=7), Wire(boots=7)
    for data in (order(armed(first)), list(first.heard))[1]:
        second.core(data)
    second.core.advance(100_000)
    assert len(second.core.pulses) > 0


def test_sequences_end_before_they_wrap() -> None:
    wire = Wire()
    client = armed(wire)
    client.connection.sequence = LAST_SEQUENCE - 1
    client.heartbeat()
    with pytest.raises(UserError, match="shake hands again"):
        client.heartbeat()
    assert client.board is not None
    auth = SessionAuth(KEY, client.board.host_nonce, client.board.board_nonce)
    session = client.connection.session
    beyond = encode(
        Heartbeat(), sequence=LAST_SEQUENCE + 1, session=session, sign=lambda body: auth.tag(From.HOST, body)
    )
    assert wire.core(beyond) == b""
    client.hello()
    client.arm()
    order(client)
    assert client.connection.sequence < 10


def test_forged_replayed_and_reordered_orders_are_not_applied() -> None:
    result = attack(10_000, seed=1)
    assert result.sent >= 10_000
    assert min(result.forged, result.replayed, result.reordered) > 1000
    assert result.applied == 0
    assert result.own_orders > 10, "the owner's own orders went through meanwhile"


def test_the_attack_would_notice() -> None:
    assert attack(2000, seed=1, knows_the_key=True).applied > 0


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_million_hostile_orders_are_not_applied() -> None:
    result = attack(1_000_000, seed=2)
    assert result.applied == 0
