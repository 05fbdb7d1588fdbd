"""Frames and bytes: COBS, CRC-32, and a decoder that never raises: bytes in, events out."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

from firmware_bridge import messages
from firmware_bridge.layout import AUTH_SIZE, BODY_MAX, BODY_MIN, HEADER, PROTOCOL, TYPES, Message, unpack

DELIMITER = b"\x00"
UNSIGNED = bytes(AUTH_SIZE)
Verify = Callable[[bytes, bytes], bool]  # (body up to auth, tag) -> may it be taken?
Sign = Callable[[bytes], bytes]  # body up to auth -> tag


def is_unsigned(body: bytes, tag: bytes) -> bool:
    """What a link without a key takes: tags of zeros."""
    del body
    return tag == UNSIGNED


class Frame(NamedTuple):
    """A whole frame with a right CRC. ``message`` is None where the type or its size is not in the table."""

    type_id: int
    sequence: int
    session: int
    time_us: int
    message: Message | None
    version: int = PROTOCOL
    proof: tuple[bytes, bytes] | None = None  # of a signed HELLO_ACK: body and tag, for who knows the key


class Garbage(NamedTuple):
    """Bytes between two delimiters that are no frame: ``cobs``, ``size``, ``crc``, ``version`` or ``auth``."""

    reason: str
    size: int


def cobs_encode(data: bytes) -> bytes:
    """Consistent Overhead Byte Stuffing (Cheshire and Baker 1999): the same bytes without a zero; no delimiter."""
    out = bytearray()
    for i, block in enumerate(blocks := data.split(b"\x00")):
        while len(block) >= 254:
            out += b"\xff" + block[:254]
            block = block[254:]
            if not block and i == len(blocks) - 1:
                return bytes(out)
        out.append(len(block) + 1)
        out += block
    return bytes(out)


def cobs_decode(data: bytes) -> bytes | None:
    """The inverse of `cobs_encode`; None where the bytes are not its result."""
    out = bytearray()
    at = 0
    while at < len(data):
        code = data[at]
        block = data[at + 1 : at + code]
        if code == 0 or len(block) != code - 1 or 0 in block:
            return None
        out += block
        at += code
        if code != 255 and at < len(data):
            out.append(0)
    return bytes(out)


def _seed(type_id: int) -> int:
    row = TYPES.get(type_id)
    return 0 if row is not None and row.frozen else messages.SCHEMA_SEED


def encode(message: Message, *, sequence: int, session: int, time_us: int = 0, sign: Sign | None = None) -> bytes:
    """One frame, with a delimiter on both sides so that noise before it costs nothing; without ``sign`` no tag.

    Raises:
        UserError: a value does not fit its field.
    """
    type_id = message.layout.type_id
    assert type_id is not None, "a part travels inside a message"
    body = HEADER.pack(PROTOCOL, type_id, sequence, session, time_us) + message.pack()
    body += UNSIGNED if sign is None else sign(body)
    body += zlib.crc32(body, _seed(type_id)).to_bytes(4, "little")
    return DELIMITER + cobs_encode(body) + DELIMITER


def _decode(block: bytes, verify: Verify) -> Frame | Garbage:
    body = cobs_decode(block)
    if body is None:
        return Garbage("cobs", len(block))
    if not BODY_MIN <= len(body) <= BODY_MAX:
        return Garbage("size", len(block))
    version, type_id, sequence, session, time_us = HEADER.unpack_from(body)
    if zlib.crc32(body[:-4], _seed(type_id)) != int.from_bytes(body[-4:], "little"):
        return Garbage("crc", len(block))
    if version != PROTOCOL and not (type_id in TYPES and TYPES[type_id].frozen):
        return Garbage("version", len(block))
    signed, tag = body[: -4 - AUTH_SIZE], body[-4 - AUTH_SIZE : -4]
    message = unpack(type_id, signed[HEADER.size :])
    if isinstance(message, messages.HelloAck) and tag != UNSIGNED:  # its key follows from what it says
        return Frame(type_id, sequence, session, time_us, message, version, (signed, tag))
    if not verify(signed, tag):
        return Garbage("auth", len(block))
    return Frame(type_id, sequence, session, time_us, message, version)


class Decoder:
    """Bytes in any pieces -> frames and garbage, in order. One chunk gives what its bytes one by one give.

    `verify` judges the tag of every frame but a signed HELLO_ACK, which carries its `Frame.proof` along.
    """

    def __init__(self) -> None:
        self.verify: Verify = is_unsigned
        self._block = bytearray()
        self._overflow = 0  # bytes of an endless block that were let go

    def feed(self, data: bytes) -> list[Frame | Garbage]:
        """Take bytes; an incomplete frame waits for its delimiter. Raises nothing."""
        events: list[Frame | Garbage] = []
        pieces = data.split(DELIMITER)
        for piece in pieces[:-1]:
            self._take(piece)
            if self._overflow:
                events.append(Garbage("size", len(self._block) + self._overflow))
            elif self._block:
                events.append(_decode(bytes(self._block), self.verify))
            self._block.clear()
            self._overflow = 0
        self._take(pieces[-1])
        return events

    def _take(self, piece: bytes) -> None:
        room = BODY_MAX + 1 - len(self._block)  # a body is one COBS block: one byte of overhead
        self._block += piece[:room]
        self._overflow += max(0, len(piece) - room)
