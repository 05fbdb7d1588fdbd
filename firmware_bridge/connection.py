"""The host's end of a link without the link: sequence, session, and which frames count."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from envs.errors import UserError
from firmware_bridge.codec import Decoder, Frame, encode, is_unsigned
from firmware_bridge.layout import Message
from firmware_bridge.messages import Hello, HelloAck, Stop
from firmware_bridge.security.auth import LAST_SEQUENCE, From, SessionAuth


class Received(NamedTuple):
    """A message that counts."""

    message: Message
    time_us: int  # device time at which the board sent it
    session: int
    proof: tuple[bytes, bytes] | None = None  # of a signed HELLO_ACK: body and tag


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
        self._auth: SessionAuth | None = None

    def send(self, message: Message) -> bytes:
        """The bytes of the next frame; its sequence is in `sequence` afterwards.

        Raises:
            UserError: a value does not fit its field, or the session's sequences are used up.
        """
        auth, first = self._auth, isinstance(message, Hello)
        if self.sequence >= LAST_SEQUENCE:  # 13 years at ten frames a second
            if not first:
                raise UserError(f"the session has sent {self.sequence} frames, as many as there are: shake hands again")
            self.sequence = 0
        sign = None if auth is None or isinstance(message, Hello | Stop) else lambda body: auth.tag(From.HOST, body)
        data = encode(message, sequence=self.sequence + 1, session=self.session, time_us=self.device_time_us, sign=sign)
        self.sequence += 1
        return data

    def open_session(self, session: int, time_us: int, auth: SessionAuth | None = None) -> None:
        """Take over the session of a HELLO_ACK that answers our HELLO; with ``auth`` every frame is signed."""
        self._auth = auth
        self._decoder.verify = is_unsigned if auth is None else lambda body, tag: auth.check(From.BOARD, body, tag)
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
        return Received(message, frame.time_us, frame.session, frame.proof)
