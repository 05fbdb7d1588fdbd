"""Every number with a name on the link (states, events, reasons) and the board's state machine.

This file is the one source: ``python -m firmware_bridge.codegen`` writes the C header and the tables of the
specification from it.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class _Code(IntEnum):
    """A number with a sentence."""

    doc: str

    def __new__(cls, value: int, doc: str = "") -> _Code:
        code = int.__new__(cls, value)
        code._value_ = value
        code.doc = doc
        return code


class _Bits(IntFlag):
    """A bit with a sentence (a combination of bits has none)."""

    doc: str

    def __new__(cls, value: int, doc: str = "") -> _Bits:
        bits = int.__new__(cls, value)
        bits._value_ = value
        bits.doc = doc
        return bits


class State(_Code):
    """Where the board is."""

    BOOT = 0, "power is on, nothing checked yet"
    IDLE = 1, "electrode grounded, no pulse possible"
    ARMED = 2, "a host with equal hashes has armed the board; no order yet, no pulse"
    CLOSED_LOOP = 3, "decisions are under way; pulses where mask and lease allow them"
    FALLBACK = (
        4,
        "the loop is given up: the set point ramps to 0, or to the fixed setting compiled in; out by handshake and ARM",
    )
    SAFE_OFF = 5, "latched after a fault of the output or the memory; only a person leads out"


class Event(_Code):
    """What can move the board from one state to another."""

    READY = 0, "the self-check after power-on passed"
    HELLO = 1, "a HELLO with a new nonce"
    ARM = 2, "an ARM with the right nonce after a HELLO without refusal"
    ORDER = 3, "a SET_STIM, or a decision of the board, inside every limit"
    LEASE_END = 4, "the lease of the decision under way ended"
    STOP = 5, "a STOP, from anybody"
    FAULT = 6, "the output or the memory failed: no pulse, residual charge, electrode, compliance, a wrong sum"
    PERSON = 7, "a person pressed the board's own button"
    DEGRADE = 8, "the loop is not to be trusted: sensing, answers, late answers, receiver, or a limit cycle"


class Cause(_Code):
    """Why the board is in its state."""

    POWER_ON = 0, "power came on"
    HANDSHAKE = 1, "a host shook hands"
    ARMED_BY_HOST = 2, "the host armed the board"
    ORDERED = 3, "the host gave an order, or the board decided on its observation"
    LEASE_ENDED = 4, "no order or renewal came within the lease"
    STOPPED = 5, "a STOP came"
    STIMULATOR = 6, "the stimulator reported that it could not give a pulse"
    RESIDUAL = 7, "the residual charge of a pulse was not zero"
    PERSON = 8, "a person pressed the board's button"
    WATCHDOG = 9, "the watchdog reset a firmware that hung"
    RESET = 10, "a reset while power stayed on, by the reset pin or the firmware itself"
    COMPLIANCE = 11, "the electrode's voltage came too near what the stimulator can give"
    OPEN = 12, "the electrode's impedance is that of an open circuit"
    SHORT = 13, "the electrode's impedance is that of a short circuit"
    SENSING = 14, "several observations in a row were not fit to act on"
    NOT_FINITE = 15, "several answers of the policy in a row were not finite or saturated"
    OVERRUN = 16, "the receiver lost bytes repeatedly"
    LIMIT_CYCLE = 17, "stimulation was switched on and off too often"
    MEMORY = 18, "code, weights or memory changed: a checksum was wrong"
    INFERENCE = 19, "several answers of the policy in a row came too late"


class NackCode(_Code):
    """Why an order was refused."""

    BAD_FRAME = 1, "a frame was dropped: broken COBS, size, CRC, version or authentication bytes"
    STATE = 2, "the state does not allow it"
    NONCE = 3, "ARM does not echo the nonce of the last HELLO_ACK, or the nonce is spent"
    REFUSED = 4, "the last HELLO_ACK carried a refusal, named by the same bits in value"
    AMPLITUDE = 5, "amplitude outside its range"
    WIDTH = 6, "pulse width outside its range"
    SLOT_PERIOD = 7, "slot period outside its range (the range of rates)"
    SLOTS = 8, "number of slots outside its range"
    LEASE = 9, "lease outside its range"
    START = 10, "start too far ahead, or every slot already past"
    QUEUE_FULL = 11, "one next mask is queued already"
    DECISION = 12, "this decision is not held, or is older than one already taken"
    NO_POLICY = 13, "the board holds no policy: it cannot decide"
    BUSY = 14, "the board still decides on another observation, named in value"
    OBSERVATION = 15, "an observation of another size, in other fragments, or whose head does not fit its values"
    OBSERVATION_CRC = 16, "the fragments are not of one observation: their CRC differs"
    NOT_FINITE = 17, "the policy's answer is not finite or saturated, in the slot named in value"
    SENSING = 18, "what was sensed is not fit to act on: Sensing bits in value"
    RELEASE = 19, "no release verdict for this model, signed with this board's key"
    INFERENCE = 20, "the policy answered after its start or its lease: nothing of it is applied"


class AckCode(_Code):
    """How an order was accepted."""

    DONE = 0, "done now"
    ALREADY = 1, "it had been done already: nothing was changed"


class Clamp(_Bits):
    """Why a value was lowered; the applied one stands in the ACK."""

    RUN_TIME_AMPLITUDE = 1, "amplitude limit tightened at run time"
    CHARGE_DENSITY = 2, "charge density of a phase on this electrode"
    SHANNON = 4, "Shannon's limit on this electrode"
    SHADOW = 8, "decided in a session in SHADOW: nothing of it is applied"


class Feature(_Bits):
    """What a board can do, and what a host asks for."""

    DECIDES = 1, "it holds a policy and answers OBSERVE"
    KEYED = 2, "it holds a device key: every frame but HELLO and STOP is signed; without it: bench mode"
    SHADOW = 4, "asked for by a host: the policy decides, and nothing of it is ever applied; answered by the same bit"


class Refusal(_Bits):
    """Why the board will not be armed by this host."""

    PROTOCOL = 1, "no common protocol version"
    SCHEMA = 2, "another message schema"
    LIMITS = 4, "other compiled limits"
    MODEL = 8, "the board is bound to another model"
    BUSY = 16, "another session's decision is under way: wait until its lease ends"
    SAFE_OFF = 32, "the board is in SAFE_OFF: a person must press its button"
    KEY = 64, "the board holds no device key and its output is no simulated one"


class Fault(_Bits):
    """What has gone wrong since power-on."""

    LEASE = 1, "a lease ended"
    STIMULATOR = 2, "the stimulator failed"
    RESIDUAL = 4, "a residual charge was not zero"
    CLOCK = 8, "the clock went backwards; the step was ignored"
    OVERRUN = 16, "bytes came without a delimiter for longer than the longest frame"
    LATE = 32, "a slot was due more than half a period ago and was not given"
    FORGED = 64, "a frame came without the session's tag"
    ELECTRODE = 128, "open or short circuit, or compliance reached"
    DOSE = 256, "a pulse was left out: the mean power would have been above its cap"
    SENSING = 512, "an observation was not fit to act on"
    NOT_FINITE = 1024, "an answer of the policy was not finite or saturated"
    RECEIVER = 2048, "the receiver lost bytes"
    LIMIT_CYCLE = 4096, "stimulation was switched on and off too often"
    MEMORY = 8192, "a checksum of code, weights or memory was wrong"
    INFERENCE = 16384, "an answer of the policy came too late"


class Sensing(_Bits):
    """Why nothing may be done on an observation; 0 = it is fit."""

    GAP = 1, "samples are missing, inside it or since the one before"
    RATE = 2, "it covers another number of samples than the one before"
    STUCK = 4, "it holds no new sample"
    FLAT = 8, "all its values are equal"
    RAILED = 16, "all its values stand at an end of the range"
    STALE = 32, "its newest sample is too old"
    BLANKED = 64, "too few of its values were measured: the others were blanked around pulses"


class ElectrodeFault(_Code):
    """What the virtual electrode can be told to do; the last two in test builds alone."""

    NONE = 0, "behave"
    DEAD = 1, "refuse every pulse"
    UNBALANCED = 2, "leave a residual charge after every pulse"
    OPEN = 3, "open circuit: no current flows, the voltage goes to V_max"
    SHORT = 4, "short circuit: 10 ohm"
    OVERRUN = 5, "nothing of the electrode: the link's receiver loses bytes, once for each such message"
    MEMORY = 6, "a bit flips: residual_pC 0 in code or weights, 1 in the core's memory"
    HANG = 7, "the firmware runs in an endless loop: residual_pC 0 its main loop, 1 with interrupts off"


#: (state, event) -> next state. What is not listed is refused and changes nothing.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.BOOT, Event.READY): State.IDLE,
    (State.BOOT, Event.STOP): State.BOOT,
    (State.BOOT, Event.FAULT): State.SAFE_OFF,
    (State.IDLE, Event.HELLO): State.IDLE,
    (State.IDLE, Event.ARM): State.ARMED,
    (State.IDLE, Event.STOP): State.IDLE,
    (State.IDLE, Event.FAULT): State.SAFE_OFF,
    (State.IDLE, Event.PERSON): State.IDLE,
    (State.ARMED, Event.HELLO): State.IDLE,
    (State.ARMED, Event.ORDER): State.CLOSED_LOOP,
    (State.ARMED, Event.STOP): State.IDLE,
    (State.ARMED, Event.FAULT): State.SAFE_OFF,
    (State.CLOSED_LOOP, Event.ORDER): State.CLOSED_LOOP,
    (State.CLOSED_LOOP, Event.LEASE_END): State.FALLBACK,
    (State.CLOSED_LOOP, Event.DEGRADE): State.FALLBACK,
    (State.CLOSED_LOOP, Event.STOP): State.IDLE,
    (State.CLOSED_LOOP, Event.FAULT): State.SAFE_OFF,
    (State.FALLBACK, Event.HELLO): State.FALLBACK,
    (State.FALLBACK, Event.ARM): State.ARMED,
    (State.FALLBACK, Event.STOP): State.IDLE,
    (State.FALLBACK, Event.FAULT): State.SAFE_OFF,
    (State.SAFE_OFF, Event.HELLO): State.SAFE_OFF,
    (State.SAFE_OFF, Event.STOP): State.SAFE_OFF,
    (State.SAFE_OFF, Event.FAULT): State.SAFE_OFF,
    (State.SAFE_OFF, Event.PERSON): State.IDLE,
}

CODES: tuple[type[_Code], ...] = (State, Event, Cause, NackCode, AckCode, ElectrodeFault)
BITS: tuple[type[_Bits], ...] = (Clamp, Feature, Refusal, Fault, Sensing)
#: All of them, in the order in which they are written out.
ENUMS: tuple[type[_Code] | type[_Bits], ...] = (*CODES, *BITS)
