"""A flipped bit of the core's memory, of its configuration, key or observation: SAFE_OFF at the next call, for good."""

from __future__ import annotations

import ctypes
import random
import sys

import pytest

from firmware_bridge.build import WARNINGS
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import Cause, NackCode, Refusal, State
from firmware_bridge.links import LoopbackLink
from firmware_bridge.messages import Ack, Nack
from firmware_bridge.observation import cut
from firmware_bridge.security.keys import DeviceKey
from tests.board_tools import HERE, CoreInProcess, compiled, harness
from tests.observe_tools import armed, observation

KEY = DeviceKey(bytes(range(32)))
CORE, CONFIG, OF_KEY, OBSERVATION = range(4)  # places of harness_flip


def state() -> tuple[State, Cause]:
    both = harness().harness_state()
    return State(both & 255), Cause(both >> 8)


def in_loop(*, keyed: bool) -> tuple[CoreInProcess, BoardClient]:
    core = CoreInProcess(key=KEY.secret if keyed else None)
    client = BoardClient(LoopbackLink(core), key=KEY if keyed else None)
    client.hello()
    client.arm()
    assert isinstance(client.set_stim(1, 0, 20_000, [1] * 50, 3000, 60, 300), Ack)
    core.advance(50_000)
    return core, client


@pytest.mark.parametrize("place", [CORE, CONFIG, OF_KEY])
def test_no_byte_of_memory_changes_unseen(place: int) -> None:
    draw, size, at = random.Random(place), 1, 0
    while at < size:
        core, client = in_loop(keyed=place == OF_KEY or at % 2 == 0)
        given = len(core.pulses)
        assert given > 0
        bit = draw.randrange(8)
        size = harness().harness_flip(place, at, bit)
        core.advance(100_000)
        core(b"\0")  # a port ticks all the same, where nothing seems to be due any more
        assert state() == (State.SAFE_OFF, Cause.MEMORY), f"byte {at}"
        assert len(core.pulses) == given, f"byte {at}"
        if place != OF_KEY:  # a wrong address of the key is never followed
            assert client.hello(refuse=False).refusal & Refusal.SAFE_OFF, f"byte {at}"
        if place != CORE:
            harness().harness_flip(place, at, bit)  # the next board is made of it too
        at += 1
    assert size >= 32


def test_nothing_but_a_new_start_leads_out() -> None:
    core, client = in_loop(keyed=False)
    harness().harness_flip(CORE, 40, 1)
    core(b"\0")
    assert state() == (State.SAFE_OFF, Cause.MEMORY)
    assert harness().harness_person() != 0
    assert client.hello(refuse=False).refusal == Refusal.SAFE_OFF
    reply = client.set_stim(2, 0, 20_000, [1] * 50, 3000, 60, 300)
    assert isinstance(reply, Nack)
    assert reply.code == NackCode.STATE
    client.stop()
    assert state() == (State.SAFE_OFF, Cause.MEMORY)
    core = CoreInProcess()
    assert state()[0] == State.IDLE


def test_an_observation_that_changes_while_it_is_decided_on() -> None:
    core = CoreInProcess(policy=True)
    client = armed(core)
    core.thinking = True
    parts = cut(1, observation(1), start_us=0, lease_ms=300)
    client.link.write(b"".join(client.connection.send(part) for part in parts))
    taken = core.take()
    assert taken is not None
    harness().harness_flip(OBSERVATION, 100, 3)
    assert core.decided(taken) != 0
    assert state() == (State.SAFE_OFF, Cause.MEMORY)
    assert core.pulses == []


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    flags = (*WARNINGS, "-O1", "-fPIC", "-shared")
    made = ctypes.CDLL(str(compiled("sum.so", [HERE / "sum.c"], flags)))
    made.patrol_turns.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint]
    made.sea_sum.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t]
    made.sea_sum.restype = ctypes.c_uint32
    return made


def plain_sum(total: int, data: bytes) -> int:
    """Word by word, the rest byte by byte."""
    whole = len(data) // 4 * 4
    words = [int.from_bytes(data[i : i + 4], sys.byteorder) for i in range(0, whole, 4)]
    for word in [*words, *data[whole:]]:
        product = (total ^ word) * 0x9E3779B1 & 0xFFFFFFFF
        total = product ^ product >> 15
    return total


def test_four_words_at_a_time_sum_as_one_after_the_other(library: ctypes.CDLL) -> None:
    chance = random.Random(0)
    for size in range(70):
        start, data = chance.getrandbits(32), chance.randbytes(size)
        assert library.sea_sum(start, data, size) == plain_sum(start, data)
        cut = chance.randrange(0, size + 1, 4)  # a patrol's turn is cut between words
        assert library.sea_sum(library.sea_sum(start, data[:cut], cut), data[cut:], size - cut) == plain_sum(
            start, data
        )


@pytest.mark.parametrize(("size", "piece"), [(1, 4), (7, 4), (64, 64), (1000, 36), (4096, 4096), (4099, 512)])
def test_a_patrol_finds_any_bit_within_two_turns(library: ctypes.CDLL, size: int, piece: int) -> None:
    data = random.Random(size).randbytes(size)
    pieces = -(-size // piece)
    for at in {0, size // 3, size - 1}:
        for bit in range(8):
            assert 0 < library.patrol_turns(data, size, piece, at, bit) <= 2 * pieces
