"""Frames: bytes in, events out; nothing raises, nothing damaged gets through."""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from firmware_bridge.codec import Decoder, Frame, Garbage, cobs_decode, cobs_encode, encode
from firmware_bridge.connection import Connection, Ignored, Received
from firmware_bridge.layout import BODY_MIN, FRAME_MAX, PAYLOAD_MAX, TYPES, Message
from firmware_bridge.messages import SCHEMA_SEED, Ack, Heartbeat, Hello, HelloAck, Renew, Stop, pack_mask
from tests.board_strategies import MESSAGES, STREAMS, U32


@given(st.binary(max_size=700))
def test_cobs_round_trip(data: bytes) -> None:
    coded = cobs_encode(data)
    assert 0 not in coded
    assert cobs_decode(coded) == data
    assert len(coded) <= len(data) + len(data) // 254 + 1


@given(st.binary(max_size=300))
def test_cobs_decoding_raises_nothing(data: bytes) -> None:
    decoded = cobs_decode(data)
    if decoded is not None and data and 0xFF not in data:
        assert cobs_encode(decoded) == data  # what decodes is what encodes: no second spelling


@given(MESSAGES, U32, U32, st.integers(0, 2**64 - 1))
def test_every_message_round_trips(message: Message, sequence: int, session: int, time_us: int) -> None:
    data = encode(message, sequence=sequence, session=session, time_us=time_us)
    assert len(data) <= FRAME_MAX
    assert data[0] == data[-1] == 0
    assert Decoder().feed(data) == [Frame(message.layout.type_id, sequence, session, time_us, message)]


@given(STREAMS, st.lists(st.integers(0, 3000), max_size=6))
def test_a_chunk_gives_what_its_bytes_give(stream: bytes, cuts: list[int]) -> None:
    whole = Decoder().feed(stream)
    single, pieces = Decoder(), Decoder()
    assert [event for i in range(len(stream)) for event in single.feed(stream[i : i + 1])] == whole
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert [e for a, b in pairwise(bounds) for e in pieces.feed(stream[a:b])] == whole


@given(st.binary(max_size=2000), MESSAGES)
def test_noise_costs_no_frame_after_it(noise: bytes, message: Message) -> None:
    events = Decoder().feed(noise + encode(message, sequence=1, session=1))
    assert events[-1] == Frame(message.layout.type_id, 1, 1, 0, message)


@settings(max_examples=300)
@given(MESSAGES, st.data())
def test_no_damaged_frame_is_accepted(message: Message, data: st.DataObject) -> None:
    frame = bytearray(encode(message, sequence=3, session=5))
    for position in data.draw(st.sets(st.integers(0, 8 * len(frame) - 1), min_size=1, max_size=3)):
        frame[position // 8] ^= 1 << (position % 8)
    assert all(isinstance(event, Garbage) for event in Decoder().feed(bytes(frame) + b"\x00"))


def test_frozen_frames_never_change() -> None:
    hello = Hello(1, 2, 3, b"n" * 16, b"s" * 32, b"l" * 32, b"m" * 32)
    body = bytes([1, 1]) + (7).to_bytes(4, "little") + bytes(4) + (9).to_bytes(8, "little")
    body += bytes([1, 2, 3, 0, 0, 0]) + b"n" * 16 + b"s" * 32 + b"l" * 32 + b"m" * 32 + bytes(8)
    body += zlib.crc32(body).to_bytes(4, "little")
    assert encode(hello, sequence=7, session=0, time_us=9) == b"\x00" + cobs_encode(body) + b"\x00"
    ack = HelloAck(1, 1, 0, b"n" * 16, b"b" * 16, 8, 2, 3, b"f" * 32, b"s" * 32, b"l" * 32, b"m" * 32)
    assert ack.pack() == (
        bytes([1, 1, 0, 0, 0, 0])
        + b"n" * 16
        + b"b" * 16
        + bytes([8, 0, 2, 3])
        + b"f" * 32
        + b"s" * 32
        + b"l" * 32
        + b"m" * 32
    )
    body = bytes([1, 3]) + (1).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(8) + bytes([5]) + bytes(8)
    body += zlib.crc32(body).to_bytes(4, "little")
    assert encode(Stop(5), sequence=1, session=2) == b"\x00" + cobs_encode(body) + b"\x00"


def test_another_schema_is_not_understood_but_can_still_say_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    hello = Hello(1, 1, 0, bytes(16), bytes(32), bytes(32), bytes(32))
    ours, theirs = (
        encode(Renew(1), sequence=1, session=1)
        + encode(hello, sequence=2, session=0)
        + encode(Stop(0), sequence=3, session=1),
        Decoder(),
    )
    monkeypatch.setattr("firmware_bridge.messages.SCHEMA_SEED", SCHEMA_SEED ^ 1)
    first, second, third = theirs.feed(ours)
    assert isinstance(first, Garbage)
    assert first.reason == "crc"
    assert isinstance(second, Frame)
    assert second.message == hello
    assert isinstance(third, Frame)
    assert third.message == Stop(0)


def test_authentication_bytes_must_be_zero() -> None:
    body = bytearray(cobs_decode(encode(Heartbeat(), sequence=1, session=1).strip(b"\x00")) or b"")
    body[-5] = 1
    body[-4:] = zlib.crc32(bytes(body[:-4]), SCHEMA_SEED).to_bytes(4, "little")
    assert Decoder().feed(b"\x00" + cobs_encode(bytes(body)) + b"\x00") == [Garbage("auth", BODY_MIN + 1)]


@pytest.mark.parametrize("type_id", sorted(TYPES))
def test_a_layout_fits_its_frame(type_id: int) -> None:
    assert TYPES[type_id].size <= PAYLOAD_MAX


def test_a_value_that_does_not_fit_is_named() -> None:
    with pytest.raises(UserError, match=r"RENEW\.decision_id = 4294967296 is outside 0 to 4294967295"):
        Renew(2**32).pack()
    with pytest.raises(UserError, match=r"HELLO\.host_nonce takes exactly 16 bytes"):
        replace(Hello(1, 1, 0, bytes(16), bytes(32), bytes(32), bytes(32)), host_nonce=b"short").pack()


@given(st.lists(st.integers(0, 1), min_size=1, max_size=256))
def test_a_mask_has_its_slots_in_order(slots: list[int]) -> None:
    count, bits = pack_mask(slots)
    assert count == len(slots)
    assert [(bits[i // 8] >> (i % 8)) & 1 for i in range(256)] == slots + [0] * (256 - len(slots))


@pytest.mark.parametrize("slots", [[], [0] * 257, [0, 2], [-1]])
def test_a_malformed_mask_is_refused(slots: list[int]) -> None:
    with pytest.raises(UserError, match="a mask takes 1 to 256 slots of 0 or 1"):
        pack_mask(slots)


def _ack(sequence: int) -> Ack:
    return Ack(sequence, 0x16, 0, 0, 0, 0, 0, 0, 0)


def test_old_and_repeated_frames_are_ignored_and_counted() -> None:
    connection = Connection()
    connection.open_session(5, 0)
    first = encode(_ack(1), sequence=10, session=5, time_us=100)
    assert connection.receive(first) == [Received(_ack(1), 100, 5)]
    late = encode(_ack(2), sequence=9, session=5)
    old = encode(_ack(3), sequence=11, session=4)
    echo = encode(Heartbeat(), sequence=12, session=5)
    assert connection.receive(first + late + old + echo + b"\x00junk\x00") == [
        Ignored("old sequence"),
        Ignored("old sequence"),
        Ignored("old session"),
        Ignored("unknown"),
        Ignored("cobs"),
    ]
    assert connection.ignored == {"old sequence": 2, "old session": 1, "unknown": 1, "cobs": 1}
    assert connection.device_time_us == 100
