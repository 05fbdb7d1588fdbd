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

_FORMATS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i16": "h", "i32": "i", "i64": "q"}
Sender = Literal["host", "board", "both"]
Channel = Literal["link", "bench"]


class Wire(NamedTuple):
    """How a field travels: ``u8`` … ``i64`` or ``bytes[N]``; its unit and meaning."""

    type: str
    unit: str
    doc: str

    @property
    def size(self) -> int:
        return struct.calcsize("<" + self.format)

    @property
    def format(self) -> str:
        found = re.fullmatch(r"bytes\[(\d+)\]", self.type)
        return f"{found[1]}s" if found else _FORMATS[self.type]


class Layout(NamedTuple):
    """One row of the table."""

    type_id: int
    name: str
    cls: type[Message]
    sender: Sender
    channel: Channel
    frozen: bool  # layout for ever and plain CRC
    fields: dict[str, Wire]

    @property
    def struct(self) -> struct.Struct:
        return struct.Struct("<" + "".join(wire.format for wire in self.fields.values()))


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
        return _STRUCTS[row.type_id].pack(*values)


def _check(place: str, wire: Wire, value: object) -> None:
    if wire.format.endswith("s"):
        if not isinstance(value, bytes) or len(value) != wire.size:
            raise UserError(f"{place} takes exactly {wire.size} bytes, not {value!r}")
        return
    bits = 8 * wire.size
    low, high = (0, 2**bits - 1) if wire.type.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{place} = {value!r} is outside {low} to {high} {wire.unit}".rstrip())


TYPES: dict[int, Layout] = {}
_STRUCTS: dict[int, struct.Struct] = {}
_M = TypeVar("_M", bound=Message)


def layout(
    type_id: int, sender: Sender, channel: Channel = "link", *, frozen: bool = False
) -> Callable[[type[_M]], type[_M]]:
    def register(cls: type[_M]) -> type[_M]:
        hints = get_type_hints(cls, include_extras=True)
        wires = {field.name: hints[field.name].__metadata__[0] for field in fields(cls)}  # type: ignore[arg-type]
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()
        row = Layout(type_id, name, cls, sender, channel, frozen, wires)
        if type_id in TYPES or row.struct.size > PAYLOAD_MAX:
            raise ValueError(f"{name}: type {type_id} is taken, or its payload is longer than {PAYLOAD_MAX} bytes")
        cls.layout, TYPES[type_id], _STRUCTS[type_id] = row, row, row.struct
        return cls

    return register


def unpack(type_id: int, payload: bytes) -> Message | None:
    """The message of a payload; None for an unknown type or another size."""
    row = TYPES.get(type_id)
    if row is None or _STRUCTS[type_id].size != len(payload):
        return None
    return row.cls(*_STRUCTS[type_id].unpack(payload))
