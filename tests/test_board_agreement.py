"""The Python tables and the compiled C say the same: layouts, frames, limits; generated files are up to date."""

from __future__ import annotations

import ctypes
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from firmware_bridge.codec import Decoder, Frame, encode
from firmware_bridge.codegen import generate, main
from firmware_bridge.codes import TRANSITIONS, Clamp, Event, NackCode, State
from firmware_bridge.layout import TYPES, Message
from firmware_bridge.limits import LIMITS, Effective, judge, phase_charge_limits, tighten
from tests.board_strategies import MESSAGES, STREAMS, U32
from tests.board_tools import harness

EVENTS = {"frame": 1, "cobs": 2, "size": 3, "overrun": 4, "crc": 5, "auth": 6, "version": 7}


def test_generated_files_are_up_to_date() -> None:
    files = generate()
    assert [path.name for path in files] == ["sea_codes.h", "sea_limits.h", "sea_messages.h", "SPEC.md"]
    for path, text in files.items():
        assert path.read_text() == text, f"{path.name} is stale: run python -m firmware_bridge.codegen"
    assert main(["--check"]) == 0


@settings(max_examples=400)
@given(MESSAGES, U32, U32, st.integers(0, 2**64 - 1))
def test_c_reads_every_field_and_writes_the_same_bytes(
    message: Message, sequence: int, session: int, time_us: int
) -> None:
    data = encode(message, sequence=sequence, session=session, time_us=time_us)
    text, again = ctypes.create_string_buffer(4096), ctypes.create_string_buffer(512)
    size = harness().harness_round_trip(data, len(data), text, len(text), again)
    assert again.raw[:size] == data
    fields = {name: getattr(message, name) for name in message.layout.fields}
    assert json.loads(text.value) == {k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}


@given(STREAMS)
def test_c_and_python_find_the_same_frames_and_the_same_garbage(stream: bytes) -> None:
    events = ctypes.create_string_buffer(len(stream) + 1)
    count = harness().harness_decode(stream, len(stream), events)
    python = ["frame" if isinstance(event, Frame) else event.reason for event in Decoder().feed(stream)]
    c = list(events.raw[:count])
    # C tells an endless block from a short one; in Python both are "size".
    assert [EVENTS["size"] if event == EVENTS["overrun"] else event for event in c] == [EVENTS[e] for e in python]


def _near(*values: int) -> st.SearchStrategy[int]:
    return st.sampled_from([v + d for v in values for d in (-1, 0, 1) if v + d >= 0])


ORDERS = st.tuples(
    st.one_of(_near(0, 3000, 5000), st.integers(0, 6000), U32),
    st.one_of(_near(60, 120), st.integers(60, 120), st.integers(0, 65535)),
    st.one_of(_near(5406, 500_000), st.integers(5406, 500_000), U32),
    st.one_of(_near(1, 256), st.integers(1, 256), st.integers(0, 65535)),
    st.one_of(_near(20, 1000), st.integers(20, 1000), st.integers(0, 65535)),
)


@settings(max_examples=1000)
@given(ORDERS, st.integers(0, 5000), st.integers(1, 60_000))
def test_c_and_python_judge_an_order_alike(order: tuple[int, int, int, int, int], amplitude: int, area: int) -> None:
    verdict = judge(*order, Effective(amplitude, area))
    c = (ctypes.c_uint64 * 6)()
    a, w, p, s, lease = order
    harness().harness_judge(
        ctypes.c_uint32(a),
        ctypes.c_uint16(w),
        ctypes.c_uint32(p),
        ctypes.c_uint16(s),
        ctypes.c_uint16(lease),
        ctypes.c_uint32(amplitude),
        ctypes.c_uint32(area),
        c,
    )
    assert list(c) == [int(verdict.code or 0), *verdict[1:5], int(verdict.clamp)]


@given(ORDERS, st.integers(0, 5000), st.integers(1, 60_000))
def test_nothing_accepted_breaks_a_limit(order: tuple[int, int, int, int, int], amplitude: int, area: int) -> None:
    """The rules again, in real numbers and from their definitions."""
    verdict = judge(*order, Effective(amplitude, area))
    if verdict.code is not None or verdict.amplitude_uA == 0:
        return
    charge_uC = verdict.amplitude_uA * order[1] * 1e-6
    density = charge_uC / (area * 1e-6)
    assert verdict.amplitude_uA <= min(order[0], amplitude, 5000)
    assert density <= 30 * (1 + 1e-9)
    assert math.log10(density) + math.log10(charge_uC) <= 1.75 + 1e-6
    assert 2 <= 1e6 / order[2] <= 185


@pytest.mark.parametrize(
    ("area_cm2", "width_us", "limit_mA"),
    [
        (0.06, 60, 30),
        (0.06, 90, 20),
        (0.06, 210, 8.57),
        (0.06, 450, 4),
        (0.015, 60, 7.5),
        (0.015, 90, 5),
        (0.015, 210, 2.14),
        (0.015, 450, 1),
    ],
)
def test_charge_density_gives_the_published_limits(area_cm2: float, width_us: int, limit_mA: float) -> None:
    density, shannon = phase_charge_limits(Effective(5000, round(area_cm2 * 1e6)))
    assert density / width_us / 1000 == pytest.approx(limit_mA, abs=0.005)
    assert shannon >= density


def test_a_run_time_limit_only_tightens() -> None:
    assert tighten() == Effective(5000, 60_000)
    assert tighten(2000, 0.015) == Effective(2000, 15_000)
    with pytest.raises(UserError, match="amplitude limit 5001 µA is outside 0 to 5000"):
        tighten(5001)
    with pytest.raises(UserError, match=r"electrode area 0\.07 cm² is outside"):
        tighten(None, 0.07)
    # The compiled core does not trust who configures it either.
    c = (ctypes.c_uint64 * 6)()
    wide = (ctypes.c_uint32(2**32 - 1), ctypes.c_uint32(2**32 - 1))
    order = (
        ctypes.c_uint32(5001),
        ctypes.c_uint16(60),
        ctypes.c_uint32(20_000),
        ctypes.c_uint16(1),
        ctypes.c_uint16(300),
    )
    harness().harness_judge(*order, *wide, c)
    assert list(c)[:4] == [NackCode.AMPLITUDE, 5001, 0, 5000]


def test_an_amplitude_is_lowered_for_each_reason() -> None:
    assert judge(4000, 60, 20_000, 50, 300)[4:] == (4000, Clamp(0))
    assert judge(4000, 60, 20_000, 50, 300, Effective(2500, 60_000))[4:] == (2500, Clamp.RUN_TIME_AMPLITUDE)
    assert judge(4000, 120, 20_000, 50, 300, Effective(5000, 15_000))[4:] == (3750, Clamp.CHARGE_DENSITY)


def test_the_state_machine_is_safe_by_its_table() -> None:
    assert all((state, Event.STOP) in TRANSITIONS for state in State), "STOP is honoured in every state"
    assert all(to is not State.CLOSED_LOOP or event is Event.ORDER for (_, event), to in TRANSITIONS.items())
    ways_out = {event for (state, event), to in TRANSITIONS.items() if state is State.SAFE_OFF and to is not state}
    assert ways_out == {Event.PERSON}
    into_armed = {event for (_, event), to in TRANSITIONS.items() if to is State.ARMED}
    assert into_armed == {Event.ARM}
    assert TRANSITIONS[State.CLOSED_LOOP, Event.LEASE_END] is State.FALLBACK
    assert (State.FALLBACK, Event.ORDER) not in TRANSITIONS


def test_every_type_and_limit_reached_the_header() -> None:
    files = {path.name: text for path, text in generate().items()}
    for row in TYPES.values():
        assert f"#define SEA_{row.name} 0x{row.type_id:02x}u" in files["sea_messages.h"]
        assert f"0x{row.type_id:02x} {row.name} " in files["SPEC.md"]
    for name, limit in LIMITS.items():
        assert f"#define SEA_{name} UINT32_C({limit.value})" in files["sea_limits.h"]
