"""The host's end of a link without the link: sequence, session, and which frames count."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from firmware_bridge.codec import Decoder, Frame, encode
from firmware_bridge.layout import Message
from firmware_bridge.messages import HelloAck


class Received(NamedTuple):
    """A message that counts."""

    message: Message
    time_us: int  # device time at which the board sent it
    session: int


class Ignored(NamedTuple):
    """A frame that does not count: ``cobs``, ``size``, ``crc``, ``version``, ``auth``, ``unknown``, ``old sequence``,
    ``old session``."""

    reason: str


class Connection:
    """Bytes in, events out; messages in, bytes out. Holds no clock and does no I/O."""

    def __init__(self) -> None:
        self.session = 0
        self.sequence = 0  # of the last frame sent
        self.device_time_us = 0  # newest time seen in a frame of the board
        self.ignored: Counter[str] = Counter()
        self._decoder = Decoder()
        self._seen = 0  # newest sequence of the board within the session

    def send(self, message: Message) -> bytes:
        """The bytes of the next frame; its sequence is in `sequence` afterwards.

        Raises:
            UserError: a value does not fit its field.
        """
        data = encode(message, sequence=self.sequence + 1, session=self.session, time_us=self.device_time_us)
        self.sequence += 1
        return data

    def open_session(self, session: int, time_us: int) -> None:
        """Take over the session of a HELLO_ACK that answers our HELLO."""
        if session != self.session:
            self.session, self._seen, self.device_time_us = session, 0, time_us

    def receive(self, data: bytes) -> list[Received | Ignored]:
        """Events of the bytes, in order. Raises nothing."""
        return [self._judge(item) if isinstance(item, Frame) else self._ignore(item.reason) for item in
                self._decoder.feed(data)]  # fmt: skip

    def _ignore(self, reason: str) -> Ignored:
        self.ignored[reason] += 1
        return Ignored(reason)

    def _judge(self, frame: Frame) -> Received | Ignored:
        message = frame.message
        if message is None or message.layout.sender == "host":
            return self._ignore("unknown")
        if not isinstance(message, HelloAck):  # a HELLO_ACK is matched by its nonce and opens the session
            if frame.session != self.session:
                return self._ignore("old session")
            if frame.sequence <= self._seen:
                return self._ignore("old sequence")
            self._seen = frame.sequence
            self.device_time_us = max(self.device_time_us, frame.time_us)
        return Received(message, frame.time_us, frame.session)
