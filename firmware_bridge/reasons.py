"""Refusals of a board as sentences."""

from __future__ import annotations

from firmware_bridge.codes import NackCode, Refusal, Sensing, State
from firmware_bridge.messages import Hello, HelloAck, Nack

_UNITS = {
    NackCode.AMPLITUDE: "µA",
    NackCode.WIDTH: "µs",
    NackCode.SLOT_PERIOD: "µs",
    NackCode.LEASE: "ms",
    NackCode.START: "µs",
}


def range_text(code: NackCode, value: int, low: int, high: int) -> str:
    """A value outside its range, for people."""
    return f"{code.name.lower().replace('_', ' ')} {value} is outside {low} to {high} {_UNITS.get(code, '')}".rstrip()


def nack_text(nack: Nack) -> str:
    """Why an order was refused, for people."""
    code = NackCode(nack.code)
    if code in _UNITS or code is NackCode.SLOTS:
        return range_text(code, nack.value, nack.low, nack.high)
    if code is NackCode.REFUSED:
        return " and ".join(bit.doc for bit in Refusal if bit & nack.value)
    if code is NackCode.SENSING:
        return f"{code.doc.split(':')[0]}: {'; '.join(bit.doc for bit in Sensing if bit & nack.value)}"
    if code is NackCode.STATE:
        return f"it is in state {State(nack.value).name}"
    return code.doc


def refusal_text(name: str, ack: HelloAck, ask: Hello) -> str:
    """Why a board may not be armed, with both values."""
    named = {
        Refusal.PROTOCOL: (
            "protocol",
            f"{ack.protocol_min} to {ack.protocol_max}",
            f"{ask.protocol_min} to {ask.protocol_max}",
        ),
        Refusal.SCHEMA: ("message schema", ack.schema_hash.hex()[:12], ask.schema_hash.hex()[:12]),
        Refusal.LIMITS: ("limits", ack.limits_hash.hex()[:12], ask.limits_hash.hex()[:12]),
        Refusal.MODEL: ("model", ack.model_hash.hex()[:12], ask.model_hash.hex()[:12]),
    }
    parts = []
    for bit in Refusal:
        if bit & ack.refusal and bit in named:
            what, theirs, ours = named[bit]
            parts.append(f"another {what} (board {theirs}, host {ours})")
        elif bit & ack.refusal:
            parts.append(bit.doc)
    return f"the board at {name} may not be armed: {'; '.join(parts)}"
