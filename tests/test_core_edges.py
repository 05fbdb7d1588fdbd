"""The core's functions at the edges of what they take, one by one."""

from __future__ import annotations

import ctypes
import hmac
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.integer.fixed import requantise
from firmware_bridge.codec import Decoder, Frame, cobs_encode, encode
from firmware_bridge.codes import NackCode, Refusal, Sensing, State
from firmware_bridge.layout import HEADER, PAYLOAD_MAX, PROTOCOL, TYPES, unpack
from firmware_bridge.limits import LIMITS_HASH
from firmware_bridge.messages import (
    SCHEMA_HASH,
    SCHEMA_SEED,
    Ack,
    Arm,
    Heartbeat,
    Hello,
    HelloAck,
    Nack,
    ObserveHead,
    SetStim,
    Status,
    StatusRequest,
    Stop,
)
from tests.board_tools import CoreInProcess, harness

ARGUMENT = 1
U32 = st.integers(0, 2**32 - 1)


def framed(type_id: int, payload: bytes, *, sequence: int = 1, session: int = 1) -> bytes:
    """A whole frame of any type with any payload."""
    body = HEADER.pack(PROTOCOL, type_id, sequence, session, 0) + payload + bytes(8)
    seed = 0 if TYPES[type_id].frozen else SCHEMA_SEED
    return b"\0" + cobs_encode(body + zlib.crc32(body, seed).to_bytes(4, "little")) + b"\0"


def test_null_is_refused_wherever_a_pointer_is_taken() -> None:
    core = harness()
    assert core.sea_core_init(None, None, None) == ARGUMENT
    assert core.sea_core_tick(None, ctypes.c_uint64(0)) == ARGUMENT
    assert core.sea_core_feed(None, b"", ctypes.c_size_t(0), ctypes.c_uint64(0)) == ARGUMENT
    assert core.sea_core_person(None) == ARGUMENT
    assert core.sea_core_decided(None, None, ctypes.c_uint64(0)) == ARGUMENT
    assert not ctypes.c_bool(core.sea_core_to_decide(None, None)).value


@pytest.mark.parametrize("type_id", sorted(TYPES))
def test_a_payload_of_another_size_is_not_unpacked(type_id: int) -> None:
    """C and Python take the same sizes of every message, and no other."""
    text, again = ctypes.create_string_buffer(4096), ctypes.create_string_buffer(512)
    for size in range(PAYLOAD_MAX + 1):
        payload = bytes(size)
        data = framed(type_id, payload)
        taken = harness().harness_round_trip(data, len(data), text, len(text), again) > 0
        assert taken == (unpack(type_id, payload) is not None), size


@given(st.one_of(st.binary(max_size=64), st.binary(min_size=65, max_size=200)), st.binary(max_size=150))
def test_an_hmac_of_any_key_is_hashlibs(key: bytes, said: bytes) -> None:
    state, digest = ctypes.create_string_buffer(512), ctypes.create_string_buffer(32)
    core = harness()
    core.sea_hmac_init(state, key, ctypes.c_size_t(len(key)))
    core.sea_hmac_update(state, said, ctypes.c_size_t(len(said)))
    core.sea_hmac_final(state, digest)
    assert digest.raw == hmac.digest(key, said, "sha256")


def _head(**values: int) -> ObserveHead:
    usual = dict.fromkeys(ObserveHead.layout.fields, 0)
    return ObserveHead(**{**usual, "sample_last": 9, "valid": 10, "maximum": 5, **values})


@st.composite
def _heads(draw: Any) -> ObserveHead:
    first = draw(st.one_of(st.integers(0, 20), U32))
    near = st.sampled_from([0, 1, 9, 10, 2**31, 2**32 - 1])
    return _head(
        sample_first=first,
        sample_last=(first + draw(near)) % 2**32,
        age_us=draw(st.sampled_from([0, 1_000_000, 1_000_001])),
        valid=draw(st.sampled_from([0, 4, 5, 10])),
        blanked=draw(st.sampled_from([0, 4, 5, 6])),
        minimum=draw(st.sampled_from([-128, -3, 127])),
        maximum=draw(st.sampled_from([-128, 5, 127])),
    )


def _expected(now: ObserveHead, before: ObserveHead | None) -> int:
    """docs/firmware/SPEC.md, in Python."""
    count = now.valid + now.blanked
    span = (now.sample_last - now.sample_first) % 2**32
    bits = Sensing.GAP if (span + 1) % 2**32 != count else 0
    if now.minimum == now.maximum and count >= 8:
        bits |= Sensing.FLAT | (Sensing.RAILED if now.minimum in (-128, 127) else 0)
    bits |= Sensing.STALE if now.age_us > 1_000_000 else 0
    bits |= Sensing.BLANKED if now.valid * 2 < count else 0
    if before is not None:
        bits |= Sensing.GAP if 0 < (now.sample_first - before.sample_last - 1) % 2**32 < 2**31 else 0
        bits |= Sensing.RATE if span != (before.sample_last - before.sample_first) % 2**32 else 0
        bits |= 0 if 0 < (now.sample_last - before.sample_last) % 2**32 < 2**31 else Sensing.STUCK
    return int(bits)


@settings(max_examples=500)
@given(_heads(), st.one_of(st.none(), _heads()))
def test_c_and_python_judge_sensing_alike(now: ObserveHead, before: ObserveHead | None) -> None:
    got = harness().sea_sensing_judge(now.pack(), None if before is None else before.pack()) & 0xFF
    assert got == _expected(now, before)


class Policy(ctypes.Structure):
    """sea_policy_t."""

    _fields_ = [
        ("n_obs", ctypes.c_uint16), ("slots", ctypes.c_uint16), ("slot_period_us", ctypes.c_uint32),
        ("amplitude_uA", ctypes.c_uint32), ("width_us", ctypes.c_uint16), ("format", ctypes.c_uint8),
        ("logit_bits", ctypes.c_uint8), ("margin_shift", ctypes.c_uint8), ("q_zero", ctypes.c_int8),
        ("q_shift", ctypes.c_uint8), ("q_multiplier", ctypes.c_int32), ("q_centre", ctypes.c_int32),
        ("reset", ctypes.c_void_p), ("infer", ctypes.c_void_p),
    ]  # fmt: skip


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=8),
    st.integers(0, 2**31 - 1),
    st.integers(1, 62),
    st.integers(-128, 127),
)
def test_an_observation_is_quantised_as_python_does(values: list[int], multiplier: int, shift: int, zero: int) -> None:
    policy = Policy(n_obs=len(values), q_multiplier=multiplier, q_shift=shift, q_zero=zero)
    out = (ctypes.c_int8 * len(values))()
    harness().sea_policy_quantise(ctypes.byref(policy), (ctypes.c_int32 * len(values))(*values), out)
    wanted = np.clip(zero + requantise(np.array(values, dtype=np.int64), multiplier, shift).astype(np.int64), -128, 127)
    assert list(out) == list(wanted)


def _armed(core: CoreInProcess, **hello: Any) -> tuple[HelloAck, int]:
    """Hands shaken, ARM sent; the HELLO_ACK and the session."""
    usual = {"protocol_min": PROTOCOL, "protocol_max": PROTOCOL, "features": 0, "host_nonce": bytes(16),
             "schema_hash": SCHEMA_HASH, "limits_hash": LIMITS_HASH, "model_hash": bytes(32)}  # fmt: skip
    (frame,) = Decoder().feed(core(encode(Hello(**{**usual, **hello}), sequence=1, session=0)))
    assert isinstance(frame, Frame)
    assert isinstance(frame.message, HelloAck)
    core(encode(Arm(frame.message.board_nonce, bytes(32), bytes(32)), sequence=2, session=frame.session))
    return frame.message, frame.session


def _answer(core: CoreInProcess, data: bytes) -> list[Any]:
    return [event.message for event in Decoder().feed(core(data)) if isinstance(event, Frame)]


@pytest.mark.parametrize("versions", [(PROTOCOL + 1, PROTOCOL + 1), (0, PROTOCOL - 1)])
def test_a_host_of_another_protocol_is_refused(versions: tuple[int, int]) -> None:
    ack, _ = _armed(CoreInProcess(), protocol_min=versions[0], protocol_max=versions[1])
    assert ack.refusal == Refusal.PROTOCOL


def test_an_order_of_another_size_changes_nothing() -> None:
    core = CoreInProcess()
    _, session = _armed(core)
    for type_id in sorted(TYPES):
        if type_id not in (Heartbeat.layout.type_id, StatusRequest.layout.type_id):
            assert core(framed(type_id, bytes(2), sequence=3 + type_id, session=session)) == b""
    (status,) = _answer(core, encode(StatusRequest(), sequence=500, session=session))
    assert isinstance(status, Status)
    assert status.state == State.ARMED
    assert status.frames_unknown > 5


def test_a_second_arm_in_closed_loop_is_refused() -> None:
    core = CoreInProcess()
    ack, session = _armed(core)
    core(encode(SetStim(1, 0, 20_000, 1, b"\x01" + bytes(31), 3000, 60, 300), sequence=3, session=session))
    arm = Arm(ack.board_nonce, bytes(32), bytes(32))
    (nack,) = _answer(core, encode(arm, sequence=4, session=session))
    assert isinstance(nack, Nack)
    assert nack.code in (NackCode.STATE, NackCode.NONCE)


def test_a_board_without_a_key_takes_a_signed_stop_and_nothing_else_signed() -> None:
    core = CoreInProcess()
    _, session = _armed(core)
    tag = b"somebody"
    (nack,) = _answer(core, encode(Heartbeat(), sequence=3, session=session, sign=lambda _: tag))
    assert isinstance(nack, Nack)
    assert nack.code == NackCode.BAD_FRAME
    status, ack = _answer(core, encode(Stop(0), sequence=4, session=session, sign=lambda _: tag))
    assert isinstance(status, Status)
    assert status.state == State.IDLE
    assert isinstance(ack, Ack)


def test_a_patrol_finds_a_change_at_the_end_of_its_turn() -> None:
    core = harness()
    memory = ctypes.create_string_buffer(bytes(range(256)) * 3, 770)
    patrol = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(770)
    core.sea_patrol.restype = ctypes.c_bool
    core.sea_patrol_start(patrol, memory, size)
    turn = [core.sea_patrol(patrol, ctypes.c_size_t(100)) for _ in range(8)]
    assert turn == [True] * 8
    memory[769] = bytes([memory[769][0] ^ 4])
    turn = [core.sea_patrol(patrol, ctypes.c_size_t(100)) for _ in range(16)]
    assert turn == [True] * 7 + [False] + [True] * 7 + [False], "each turn that ends finds it"
