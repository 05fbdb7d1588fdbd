"""The ONE table of message layouts: the Python codec, the C header and the specification all come from it.

A message is a frozen dataclass; each field says its wire type, unit and meaning. Numbers are little-endian and packed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from envs.errors import UserError
from firmware_bridge.codes import ENUMS, TRANSITIONS
from firmware_bridge.layout import MASK_BITS, PARTS, PROTOCOL, TYPES, Message, Wire, layout
from sea_dbs.files import sha256_json

_Sequence = Annotated[int, Wire("u32", "", "sequence of the frame that this answers; 0 = unasked")]
_Type = Annotated[int, Wire("u8", "", "type of the frame that this answers")]
_Hash = Annotated[bytes, Wire("bytes[32]", "", "SHA-256")]
_Nonce = Annotated[bytes, Wire("bytes[16]", "", "nonce")]
_Decision = Annotated[int, Wire("u32", "", "decision id, rising within a session")]
_State = Annotated[int, Wire("u8", "", "State")]
_Cause = Annotated[int, Wire("u8", "", "Cause")]
_Counter = Annotated[int, Wire("u32", "", "count since power-on")]
_Token = Annotated[int, Wire("u32", "", "chosen by the host, echoed in AT")]


# ---- the link: frozen for ever (type, layout, plain CRC)


@layout(0x01, "host", frozen=True)
@dataclass(frozen=True, slots=True)
class Hello(Message):
    """Opens a session; repeated with the same nonce it is answered again and changes nothing."""

    protocol_min: Annotated[int, Wire("u8", "", "oldest protocol version of the sender")]
    protocol_max: Annotated[int, Wire("u8", "", "newest protocol version of the sender")]
    features: Annotated[int, Wire("u32", "", "Feature bits that the host asks for: SHADOW or 0")]
    host_nonce: _Nonce
    schema_hash: _Hash
    limits_hash: _Hash
    model_hash: Annotated[bytes, Wire("bytes[32]", "", "SHA-256 of the policy; all zero = no policy")]


@layout(0x02, "board", frozen=True)
@dataclass(frozen=True, slots=True)
class HelloAck(Message):
    """The board's side of the handshake; the frame's session is the new session."""

    protocol_min: Annotated[int, Wire("u8", "", "oldest protocol version of the sender")]
    protocol_max: Annotated[int, Wire("u8", "", "newest protocol version of the sender")]
    features: Annotated[int, Wire("u32", "", "Feature bits")]
    host_nonce: _Nonce
    board_nonce: _Nonce
    refusal: Annotated[int, Wire("u16", "", "Refusal bits; 0 = may be armed")]
    state: _State
    cause: _Cause
    firmware_build: Annotated[bytes, Wire("bytes[32]", "", "SHA-256 of the firmware's sources and flags")]
    schema_hash: _Hash
    limits_hash: _Hash
    model_hash: Annotated[bytes, Wire("bytes[32]", "", "SHA-256 of the policy the board is bound to; zero = none")]


@layout(0x03, "host", frozen=True)
@dataclass(frozen=True, slots=True)
class Stop(Message):
    """Ends stimulation in every state, from anybody, any number of times."""

    reason: Annotated[int, Wire("u8", "", "free for the host's log; the board does not look at it")]


# ---- the link: CRC seeded with the schema


@layout(0x10, "both")
@dataclass(frozen=True, slots=True)
class TimeSync(Message):
    """Four timestamps; the board fills in its two and sends the frame back."""

    of_sequence: _Sequence
    t1_host_us: Annotated[int, Wire("u64", "µs", "host clock when the request was sent")]
    t2_board_us: Annotated[int, Wire("u64", "µs", "device clock when the request came")]
    t3_board_us: Annotated[int, Wire("u64", "µs", "device clock when the answer was sent")]
    t4_host_us: Annotated[int, Wire("u64", "µs", "host clock when the answer before this one came; 0 = none")]


@layout(0x11, "host")
@dataclass(frozen=True, slots=True)
class Arm(Message):
    """Arms the board; valid once for each handshake.

    A board with a device key lets a policy drive only with the tag of its release (`sea_auth_release`).
    """

    board_nonce: _Nonce
    verdict_hash: Annotated[bytes, Wire("bytes[32]", "", "SHA-256 of the release verdict; zero = none")] = bytes(32)
    release_tag: Annotated[bytes, Wire("bytes[32]", "", "tag of the release of HELLO's model; zero = none")] = bytes(32)


@layout(0x12, "host")
@dataclass(frozen=True, slots=True)
class SetStim(Message):
    """One decision: a train of slots, each with or without one biphasic pulse at its start."""

    decision_id: _Decision
    start_us: Annotated[int, Wire("u64", "µs", "device time of slot 0; 0 = when it arrives")]
    slot_period_us: Annotated[int, Wire("u32", "µs", "from slot to slot")]
    slots: Annotated[int, Wire("u16", "", "number of slots, 1 to 256")]
    mask: Annotated[bytes, Wire("bytes[32]", "", "slot i is bit i % 8 (least significant first) of byte i / 8")]
    amplitude_uA: Annotated[int, Wire("u32", "µA", "of each phase")]
    width_us: Annotated[int, Wire("u16", "µs", "of each phase")]
    lease_ms: Annotated[int, Wire("u16", "ms", "the decision lives so long after the last order or renewal")]
    sensing: Annotated[int, Wire("u8", "", "Sensing bits of what it was decided on; an order with any is refused")] = 0


@layout(0x13, "host")
@dataclass(frozen=True, slots=True)
class Renew(Message):
    """Extends the lease of a decision held by the board; never restarts its mask."""

    decision_id: _Decision


@layout(0x14, "board")
@dataclass(frozen=True, slots=True)
class Ack(Message):
    """Accepted, with the values that are applied (0 where the order has none)."""

    of_sequence: _Sequence
    of_type: _Type
    code: Annotated[int, Wire("u8", "", "AckCode")]
    clamp: Annotated[int, Wire("u16", "", "Clamp bits; 0 = as ordered")]
    decision_id: _Decision
    start_us: Annotated[int, Wire("u64", "µs", "device time of slot 0")]
    amplitude_uA: Annotated[int, Wire("u32", "µA", "applied")]
    width_us: Annotated[int, Wire("u16", "µs", "applied")]
    lease_until_us: Annotated[int, Wire("u64", "µs", "device time at which the decision's lease ends")]


@layout(0x15, "board")
@dataclass(frozen=True, slots=True)
class Nack(Message):
    """Refused: nothing of the order is applied, and what was under way goes on to the end of its lease."""

    of_sequence: _Sequence
    of_type: _Type
    code: Annotated[int, Wire("u8", "", "NackCode")]
    value: Annotated[int, Wire("u64", "", "the refused value, in the field's unit")]
    low: Annotated[int, Wire("u64", "", "least allowed value")]
    high: Annotated[int, Wire("u64", "", "greatest allowed value")]


@layout(0x16, "host")
@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """Is anybody there? Answered by ACK; renews nothing."""


@layout(0x17, "host")
@dataclass(frozen=True, slots=True)
class StatusRequest(Message):
    """Asks for STATUS."""


@layout(0x18, "board")
@dataclass(frozen=True, slots=True)
class Status(Message):
    """Sent when asked for, and unasked at each change of state."""

    of_sequence: _Sequence
    state: _State
    cause: _Cause
    faults: Annotated[int, Wire("u32", "", "Fault bits since power-on")]
    decision_id: Annotated[int, Wire("u32", "", "decision under way; 0 = none")]
    queued_id: Annotated[int, Wire("u32", "", "decision queued; 0 = none")]
    lease_until_us: Annotated[int, Wire("u64", "µs", "end of the lease under way; 0 = none")]
    amplitude_limit_uA: Annotated[int, Wire("u32", "µA", "effective limit: the least of compiled and run-time")]
    electrode_area: Annotated[int, Wire("u32", "10^-6 cm²", "effective electrode area")]
    pulses: _Counter
    slots_lapsed: Annotated[int, Wire("u32", "", "ordered pulses not given because the lease had ended")]
    slots_late: Annotated[int, Wire("u32", "", "ordered pulses not given because their time had passed")]
    slots_too_soon: Annotated[int, Wire("u32", "", "ordered pulses not given because the last one was too near")]
    frames: _Counter
    frames_bad: _Counter
    frames_old_sequence: _Counter
    frames_old_session: _Counter
    frames_unknown: Annotated[int, Wire("u32", "", "frames of a type, size or direction the board does not take")]
    frames_forged: Annotated[int, Wire("u32", "", "frames without the session's tag, on a board with a key")]
    orders_refused: _Counter
    overruns: Annotated[int, Wire("u32", "", "times the receiver lost bytes")]
    slots_dose: Annotated[int, Wire("u32", "", "ordered pulses not given because of the dose")]
    decisions_late: Annotated[int, Wire("u32", "", "answers of the policy that came after their start or lease")]
    toggles: Annotated[int, Wire("u32", "", "times on or off in the rolling window")]
    set_point_uA: Annotated[int, Wire("u32", "µA", "set point: the amplitude that the ramp allows now")]
    impedance_ohm: Annotated[int, Wire("u32", "ohm", "at the newest pulse; 0 = not measured")]
    dose_uW: Annotated[int, Wire("u32", "µW", "mean TEED of the rolling window")]
    v_max_mV: Annotated[int, Wire("u32", "mV", "effective limit")]
    dose_limit_uW: Annotated[int, Wire("u32", "µW", "effective limit")]
    toggles_limit: Annotated[int, Wire("u32", "", "effective limit, in a rolling window")]
    fallback_uA: Annotated[int, Wire("u32", "µA", "fixed setting of FALLBACK; 0 = none: it ramps to 0")]


# ---- the link: the board decides


@layout(0x20, "host")
@dataclass(frozen=True, slots=True)
class Observe(Message):
    """One fragment of an observation (OBSERVE_HEAD and int8 values); the whole one is answered by DECISION."""

    decision_id: _Decision
    fragment: Annotated[int, Wire("u8", "", "from 0; each but the last is full")]
    fragments: Annotated[int, Wire("u8", "", "of this observation")]
    crc: Annotated[int, Wire("u32", "", "CRC-32 of the whole observation, the same in each fragment")]
    data: Annotated[bytes, Wire("tail[210]", "", "bytes 210 × fragment … of the observation")]


@layout(None, "host")
@dataclass(frozen=True, slots=True)
class ObserveHead(Message):
    """What stands before the values of an observation: when the decision starts, and what it is taken on."""

    start_us: Annotated[int, Wire("u64", "µs", "device time of slot 0; 0 = when the board has decided")]
    lease_ms: Annotated[int, Wire("u16", "ms", "the decision lives so long after the last order or renewal")]
    sample_first: Annotated[int, Wire("u32", "", "counter of the oldest sample seen")]
    sample_last: Annotated[int, Wire("u32", "", "counter of the newest sample seen")]
    valid: Annotated[int, Wire("u16", "", "values that were measured; with `blanked` all of them")]
    blanked: Annotated[int, Wire("u16", "", "values that were blanked around a pulse")]
    minimum: Annotated[int, Wire("i8", "", "least value")]
    maximum: Annotated[int, Wire("i8", "", "greatest value")]
    age_us: Annotated[int, Wire("u32", "µs", "age of the newest sample when it was sent")]


@layout(0x21, "board")
@dataclass(frozen=True, slots=True)
class Decision(Message):
    """What the board decided on an observation, and what became of it; LOGITS follow."""

    of_sequence: _Sequence
    decision_id: _Decision
    code: Annotated[int, Wire("u8", "", "0 = applied; else NackCode: nothing of it is applied")]
    value: Annotated[int, Wire("u64", "", "the refused value, in the field's unit")]
    low: Annotated[int, Wire("u64", "", "least allowed value")]
    high: Annotated[int, Wire("u64", "", "greatest allowed value")]
    clamp: Annotated[int, Wire("u16", "", "Clamp bits; 0 = as decided")]
    whole_us: Annotated[int, Wire("u64", "µs", "device time at which the observation was whole")]
    decided_us: Annotated[int, Wire("u64", "µs", "device time at which the policy had answered")]
    start_us: Annotated[int, Wire("u64", "µs", "device time of slot 0")]
    lease_until_us: Annotated[int, Wire("u64", "µs", "device time at which the decision's lease ends")]
    slot_period_us: Annotated[int, Wire("u32", "µs", "from slot to slot")]
    slots: Annotated[int, Wire("u16", "", "number of slots")]
    mask: Annotated[bytes, Wire("bytes[32]", "", "as decided, in the bits of SET_STIM; all 0 for NOT_FINITE")]
    amplitude_uA: Annotated[int, Wire("u32", "µA", "applied")]
    width_us: Annotated[int, Wire("u16", "µs", "applied")]
    margins: Annotated[bytes, Wire("tail[108]", "", "i16 of each slot, of the first 54 where there are more: "
                                   "(pulse − no pulse) >> margin shift, saturated")]  # fmt: skip


@layout(0x22, "board")
@dataclass(frozen=True, slots=True)
class Logits(Message):
    """One fragment of a decision's logits, i32 (slot 0: no pulse, pulse; slot 1 …)."""

    of_sequence: _Sequence
    decision_id: _Decision
    fragment: Annotated[int, Wire("u8", "", "from 0; each but the last is full")]
    fragments: Annotated[int, Wire("u8", "", "of these logits")]
    values: Annotated[bytes, Wire("tail[208]", "", "logits 52 × fragment …, i32")]


# ---- the electrode channel ("bench"): below the core, touched by no fault of the link


@layout(0x40, "board", "bench")
@dataclass(frozen=True, slots=True)
class Pulse(Message):
    """A pulse given; the frame's device time is its start."""

    amplitude_1_uA: Annotated[int, Wire("i32", "µA", "first phase, cathodic: negative")]
    width_1_us: Annotated[int, Wire("u16", "µs", "first phase")]
    amplitude_2_uA: Annotated[int, Wire("i32", "µA", "second phase, recharge")]
    width_2_us: Annotated[int, Wire("u16", "µs", "second phase")]
    residual_pC: Annotated[int, Wire("i32", "pC", "charge left on the electrode after the pulse")]
    peak_uV: Annotated[int, Wire("u32", "µV", "greatest voltage on the electrode; 0 = not measured")]


@layout(0x41, "host", "bench")
@dataclass(frozen=True, slots=True)
class Clock(Message):
    """Claims the clock (stepped = 1: it stands until ADVANCE) or only asks for the time (0). Answered by AT."""

    token: _Token
    stepped: Annotated[int, Wire("u8", "", "1 = stop the clock and step it from here")]


@layout(0x42, "host", "bench")
@dataclass(frozen=True, slots=True)
class Advance(Message):
    """Runs the board through everything due before a time; on a real-time clock, waits for it. Answered by AT."""

    token: _Token
    to_us: Annotated[int, Wire("u64", "µs", "device time")]


@layout(0x43, "board", "bench")
@dataclass(frozen=True, slots=True)
class At(Message):
    """The time now; every pulse before it has been sent."""

    token: _Token
    now_us: Annotated[int, Wire("u64", "µs", "device time")]
    stepped: Annotated[int, Wire("u8", "", "1 = stepped clock, 0 = real time")]
    state: _State
    grounded: Annotated[int, Wire("u8", "", "1 = electrode shorted to ground")]
    lost: Annotated[int, Wire("u32", "", "PULSE frames not sent because nobody read them in time")]


@layout(0x44, "host", "bench")
@dataclass(frozen=True, slots=True)
class Button(Message):
    """A person presses the board's button: the only way out of SAFE_OFF. Answered by AT."""

    token: _Token


@layout(0x45, "host", "bench")
@dataclass(frozen=True, slots=True)
class Electrode(Message):
    """Breaks or mends the virtual electrode. Answered by AT."""

    token: _Token
    fault: Annotated[int, Wire("u8", "", "ElectrodeFault")]
    residual_pC: Annotated[
        int, Wire("i32", "pC", "left by each pulse while UNBALANCED; which one of MEMORY and HANG is meant")
    ]
    impedance_ohm: Annotated[
        int, Wire("u32", "ohm", "of the electrode; 0 = as usual, 1000; OPEN and SHORT have their own")
    ] = 0
    v_max_mV: Annotated[int, Wire("u32", "mV", "at which the output saturates; 0 = as usual, 10000")] = 0


#: Type id kept for FAULT_INJECT of test builds.
RESERVED_TYPES = {0x30: "FAULT_INJECT"}


def schema() -> dict[str, Any]:
    """Everything two ends must agree on, as plain values: what the schema hash is taken of."""
    return {
        "protocol": PROTOCOL,
        "frame": ["version u8", "type u8", "sequence u32", "session u32", "time_us u64", "payload", "auth[8]", "crc32"],
        "messages": {
            row.name: [row.type_id, row.sender, row.channel, [[n, w.type, w.unit] for n, w in row.fields.items()]]
            for row in TYPES.values()
        },
        "parts": {row.name: [[n, w.type, w.unit] for n, w in row.fields.items()] for row in PARTS.values()},
        "codes": {enum.__name__: {m.name: m.value for m in enum} for enum in ENUMS},
        "transitions": [[state.name, event.name, to.name] for (state, event), to in TRANSITIONS.items()],
    }


SCHEMA_HASH = bytes.fromhex(sha256_json(schema()))
#: Running CRC with which every frame starts but those with a frozen layout.
SCHEMA_SEED = int.from_bytes(SCHEMA_HASH[:4], "little")


def pack_mask(decisions: Iterable[int]) -> tuple[int, bytes]:
    """Slots (0 or 1 each) -> their number and the 32 bytes of SET_STIM.

    Raises:
        UserError: no slot, more than 256, or a value that is neither 0 nor 1.
    """
    values = [int(value) for value in decisions]
    if not 1 <= len(values) <= MASK_BITS or any(value not in (0, 1) for value in values):
        raise UserError(f"a mask takes 1 to {MASK_BITS} slots of 0 or 1, not {len(values)} slots {sorted(set(values))}")
    bits = sum(value << i for i, value in enumerate(values))
    return len(values), bits.to_bytes(MASK_BITS // 8, "little")
