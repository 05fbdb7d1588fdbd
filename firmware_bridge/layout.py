"""How a message is laid out: a frozen dataclass whose fields say their wire type, unit and meaning."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import fields
from typing import ClassVar, Literal, NamedTuple, TypeVar, get_type_hints

from envs.errors import UserError

PROTOCOL = 1  # version of the frame: the first byte of a body
PAYLOAD_MAX = 220  # bytes: with it a body of 250 bytes stays one COBS block
AUTH_SIZE = 8  # bytes, zero until authentication exists
HEADER = struct.Struct("<BBIIQ")  # version, type, sequence, session, device time in µs
BODY_MIN = HEADER.size + AUTH_SIZE + 4
BODY_MAX = BODY_MIN + PAYLOAD_MAX
FRAME_MAX = BODY_MAX + 3  # delimiter, one COBS code byte, body, delimiter
MASK_BITS = 256

_FORMATS = {"u8": "B", "i8": "b", "u16": "H", "u32": "I", "u64": "Q", "i16": "h", "i32": "i", "i64": "q"}
Sender = Literal["host", "board", "both"]
Channel = Literal["link", "bench"]


class Wire(NamedTuple):
    """How a field travels: ``u8`` … ``i64``, ``bytes[N]`` or ``tail[N]``; its unit and meaning.

    A tail is the last field: bytes up to the end of the payload, N at most.
    """

    type: str
    unit: str
    doc: str

    @property
    def size(self) -> int:
        return struct.calcsize("<" + self.format)

    @property
    def format(self) -> str:
        found = re.fullmatch(r"(?:bytes|tail)\[(\d+)\]", self.type)
        return f"{found[1]}s" if found else _FORMATS[self.type]

    @property
    def is_tail(self) -> bool:
        return self.type.startswith("tail")


class Layout(NamedTuple):
    """One row of the table."""

    type_id: int | None  # None: a part of a longer blob, no message of its own
    name: str
    cls: type[Message]
    sender: Sender
    channel: Channel
    frozen: bool  # layout for ever and plain CRC
    fields: dict[str, Wire]

    @property
    def struct(self) -> struct.Struct:
        """Of the fields before the tail."""
        return struct.Struct("<" + "".join(wire.format for wire in self.fields.values() if not wire.is_tail))

    @property
    def tail(self) -> str | None:
        """Name of the field of free length."""
        return next((name for name, wire in self.fields.items() if wire.is_tail), None)

    @property
    def size(self) -> int:
        """Most bytes of a payload."""
        return sum(wire.size for wire in self.fields.values())


class Message:
    """Base of all messages."""

    layout: ClassVar[Layout]
    __slots__ = ()

    def pack(self) -> bytes:
        """The payload's bytes.

        Raises:
            UserError: a value does not fit its field.
        """
        row = self.layout
        values = [getattr(self, name) for name in row.fields]
        for (name, wire), value in zip(row.fields.items(), values, strict=True):
            _check(f"{row.name}.{name}", wire, value)
        rest: bytes = values.pop() if row.tail else b""
        return _STRUCTS[row.name].pack(*values) + rest


def _check(place: str, wire: Wire, value: object) -> None:
    if wire.is_tail:
        if not isinstance(value, bytes) or len(value) > wire.size:
            raise UserError(f"{place} takes at most {wire.size} bytes, not {value!r}")
        return
    if wire.format.endswith("s"):
        if not isinstance(value, bytes) or len(value) != wire.size:
            raise UserError(f"{place} takes exactly {wire.size} bytes, not {value!r}")
        return
    bits = 8 * wire.size
    low, high = (0, 2**bits - 1) if wire.type.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{place} = {value!r} is outside {low} to {high} {wire.unit}".rstrip())


TYPES: dict[int, Layout] = {}
#: What travels inside a blob of several frames, by name.
PARTS: dict[str, Layout] = {}
_STRUCTS: dict[str, struct.Struct] = {}
_M = TypeVar("_M", bound=Message)


def layout(
    type_id: int | None, sender: Sender, channel: Channel = "link", *, frozen: bool = False
) -> Callable[[type[_M]], type[_M]]:
    def register(cls: type[_M]) -> type[_M]:
        hints = get_type_hints(cls, include_extras=True)
        wires = {field.name: hints[field.name].__metadata__[0] for field in fields(cls)}  # type: ignore[arg-type]
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()
        row = Layout(type_id, name, cls, sender, channel, frozen, wires)
        if type_id in TYPES or row.size > PAYLOAD_MAX:
            raise ValueError(f"{name}: type {type_id} is taken, or its payload is longer than {PAYLOAD_MAX} bytes")
        if any(wire.is_tail for wire in list(wires.values())[:-1]):
            raise ValueError(f"{name}: a tail must be the last field")
        cls.layout, _STRUCTS[name] = row, row.struct
        if type_id is None:
            PARTS[name] = row
        else:
            TYPES[type_id] = row
        return cls

    return register


def unpack(type_id: int, payload: bytes) -> Message | None:
    """The message of a payload; None for an unknown type or another size."""
    row = TYPES.get(type_id)
    fixed = 0 if row is None else _STRUCTS[row.name].size
    if row is None or not fixed <= len(payload) <= row.size or (row.tail is None and len(payload) != fixed):
        return None
    values = _STRUCTS[row.name].unpack(payload[:fixed])
    return row.cls(*values, *((payload[fixed:],) if row.tail else ()))


def read_part(cls: type[_M], data: bytes) -> tuple[_M, bytes]:
    """A part (no tail) at the start of some bytes, and what follows it.

    Raises:
        UserError: the bytes are too few.
    """
    shape = _STRUCTS[cls.layout.name]
    if len(data) < shape.size:
        raise UserError(f"{cls.layout.name} takes {shape.size} bytes, not {len(data)}")
    return cls(*shape.unpack(data[: shape.size])), data[shape.size :]
