"""A board over a link: one method for each order, one typed reply, one sentence when something is wrong."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from firmware_bridge.clock import ClockSample
from firmware_bridge.codes import Feature, NackCode, Refusal
from firmware_bridge.connection import Connection, Ignored, Received
from firmware_bridge.layout import PROTOCOL, Message
from firmware_bridge.limits import LIMITS, LIMITS_HASH, judge
from firmware_bridge.links import Link
from firmware_bridge.messages import (
    SCHEMA_HASH,
    Ack,
    Arm,
    Heartbeat,
    Hello,
    HelloAck,
    Nack,
    Renew,
    SetStim,
    Status,
    StatusRequest,
    Stop,
    TimeSync,
    pack_mask,
)
from firmware_bridge.observation import Decided, Gather, Sampling, cut
from firmware_bridge.reasons import nack_text, range_text, refusal_text
from firmware_bridge.security.handshake import authenticate
from firmware_bridge.security.keys import DeviceKey

NO_MODEL = bytes(32)  # "no policy": a classical controller decides
NO_RELEASE = bytes(32)
ATTEMPT_S = 0.25  # an unanswered frame is sent again after this time
OBSERVE_ATTEMPT_S = 0.75  # and an observation of five frames, which an emulated UART takes in about 0.1 s
BUSY_S = 0.05  # pause before a busy board is asked again

Accept = Callable[[Message, set[int]], bool]  # (message, sequences sent) -> is it the reply?


class BoardClient:
    """Talks to one board over one link.

    Every call waits for its own reply (matched by sequence), sends the frame again while none comes, and raises a
    `UserError` when none came at all. Unasked STATUS frames (changes of state) gather in `notices`.
    """

    def __init__(
        self, link: Link, *, nonce: bytes | None = None, timeout_s: float = 2.0, key: DeviceKey | None = None
    ) -> None:
        """``nonce``: 16 bytes that name this host's session; fixed ones make a session's bytes reproducible.

        ``key``: the board must hold it too; every frame but HELLO and STOP is signed and checked. None: bench mode.
        """
        if key is not None and nonce is not None:
            raise UserError("a session with a device key draws its own nonce: a fixed one could be replayed")
        self.link = link
        self.timeout_s = timeout_s
        self.connection = Connection()
        self.notices: deque[Status] = deque(maxlen=1024)
        self.board: HelloAck | None = None
        self._key = key
        self._nonce = os.urandom(16) if nonce is None else nonce
        self._handshakes = 0
        self._greeting: Hello | None = None  # sent, its answer not yet read
        self._last_sync_us = 0
        self.renewed: Ack | None = None  # the answer to the RENEW that went with the last observation

    def __enter__(self) -> BoardClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the board if it can still be reached, and give the port back."""
        if self.board is not None:
            with suppress(UserError):
                self.link.write(self.connection.send(Stop(reason=0)))
        self.link.close()

    @property
    def device_time_us(self) -> int:
        """Newest device time seen in a frame of the board."""
        return self.connection.device_time_us

    def hello(
        self,
        model_hash: bytes = NO_MODEL,
        *,
        shadow: bool = False,
        schema_hash: bytes = SCHEMA_HASH,
        limits_hash: bytes = LIMITS_HASH,
        timeout_s: float = 3.0,
        refuse: bool = True,
    ) -> HelloAck:
        """Open a session. With ``refuse`` a board that would not be armed raises, and the reason is named.

        ``shadow``: whatever the board's policy decides in this session is answered and never applied.

        A board whose last session still holds a lease is asked again until that lease has ended.

        Raises:
            UserError: no answer, or another protocol, schema, limits or model hash, the board is in SAFE_OFF, or one
                end holds a key that the other does not.
        """
        features = int(Feature.SHADOW) if shadow else 0
        ask = Hello(PROTOCOL, PROTOCOL, features, self._next_nonce(), schema_hash, limits_hash, model_hash)
        answer = self._open(ask, time.monotonic() + timeout_s)
        if answer is None:
            raise UserError(f"no answer from a board at {self.link.name} within {timeout_s:g} s")
        if refuse and answer.refusal:
            raise UserError(refusal_text(self.link.name, answer, ask))
        if shadow and not answer.features & Feature.SHADOW:
            raise UserError(f"the board at {self.link.name} was asked for a session in shadow and does not confirm it")
        return answer

    def arm(self, verdict_hash: bytes = NO_RELEASE, release_tag: bytes = NO_RELEASE) -> Ack:
        """Arm the board. One with a key lets a policy drive only with the tag of its release (32 bytes each).

        Raises:
            UserError: no HELLO before, refused (the reason is named), or no answer.
        """
        if self.board is None:
            raise UserError("the board cannot be armed before a HELLO")
        return self._done(Arm(self.board.board_nonce, verdict_hash, release_tag))

    def set_stim(
        self,
        decision_id: int,
        start_us: int,
        slot_period_us: int,
        mask: Sequence[int],
        amplitude_uA: int,
        width_us: int,
        lease_ms: int = LIMITS["LEASE_DEFAULT_MS"].value,
        *,
        check: bool = True,
        sensing: int = 0,
    ) -> Ack | Nack:
        """Order one decision; the reply carries the applied values, or why it was refused.

        ``sensing``: what the host's judgement of the observation says (`firmware_bridge.sensing`); 0 = fit. With
        ``check`` the host judges the order by the same limits first and does not send what is out of range.

        Raises:
            UserError: a value is out of its range or does not fit its field, the mask is malformed, or no answer.
        """
        slots, bits = pack_mask(mask)
        order = SetStim(decision_id, start_us, slot_period_us, slots, bits, amplitude_uA, width_us, lease_ms, sensing)
        verdict = judge(amplitude_uA, width_us, slot_period_us, slots, lease_ms)
        if check and verdict.code is not None:
            raise UserError(f"SET_STIM is not sent: {range_text(verdict.code, *verdict[1:4])}")
        return self._order(order)

    def observe(
        self,
        decision_id: int,
        values: NDArray[np.int8],
        start_us: int,
        lease_ms: int = LIMITS["LEASE_DEFAULT_MS"].value,
        sampling: Sampling | None = None,
        renew: int | None = None,
    ) -> Decided | Nack:
        """Let the board decide on an observation, (n_obs,) int8 at its policy's input scale.

        The reply is what it decided, applied or refused, with its logits; or why it did not even decide. ``renew``: a
        decision whose lease is renewed by the same writing, so that it lives through a slow link; see `renewed`.

        Raises:
            UserError: no observation, or no whole answer.
        """
        answer = Gather(decision_id)
        parts = cut(decision_id, values, start_us=start_us, lease_ms=lease_ms, sampling=sampling)
        self._ask(parts if renew is None else [Renew(renew), *parts], answer, OBSERVE_ATTEMPT_S)
        self.renewed = answer.renewed
        return answer.nack or answer.decided()

    def renew(self, decision_id: int) -> Ack | Nack:
        """Extend the lease of a decision that the board holds."""
        return self._order(Renew(decision_id))

    def stop(self, reason: int = 0) -> Ack:
        """End stimulation; works in every state, any number of times.

        After a handshake that was cut short the board may be in a session that we never heard of, whose answers would
        not count: STOP goes out with each of a few more greetings, and is then asked for as ever.
        """
        if (unanswered := self._greeting) is not None:
            end = time.monotonic() + self.timeout_s
            with suppress(UserError):  # STOP itself is what counts, and says below whether it came through
                self._open(unanswered, end, Stop(reason))
        return self._done(Stop(reason))

    def heartbeat(self) -> Ack:
        """Ask whether the board is there; renews nothing."""
        return self._done(Heartbeat())

    def status(self) -> Status:
        """State, cause, faults and counters of the board now."""
        reply = self._ask(StatusRequest(), lambda m, sent: isinstance(m, Status) and m.of_sequence in sent)
        assert isinstance(reply, Status)
        return reply

    def time_sync(self) -> ClockSample:
        """Compare the clocks once (four timestamps)."""
        ask = TimeSync(0, host_us(), 0, 0, self._last_sync_us)
        reply = self._ask(ask, lambda m, sent: isinstance(m, TimeSync) and m.of_sequence in sent)
        assert isinstance(reply, TimeSync)
        t4 = self._last_sync_us = host_us()
        return ClockSample(reply.t1_host_us, reply.t2_board_us, reply.t3_board_us, t4)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Read what the board sent unasked into `notices`."""
        for event in self.connection.receive(self.link.read(timeout_s)):
            self._notice(event)

    def _open(self, ask: Hello, end: float, *before: Message) -> HelloAck | None:
        """Send HELLO, each time after ``before``, until it is answered and the board is not busy, or the time is over.

        Raises:
            UserError: the board went away, or one end holds a key that the other does not.
        """
        self._greeting = ask
        while True:
            event = self._exchange(
                [*before, ask], lambda m, _: isinstance(m, HelloAck) and m.host_nonce == ask.host_nonce, end
            )
            if event is None:
                return None
            answer = event.message
            assert isinstance(answer, HelloAck)
            if not answer.refusal & Refusal.BUSY or time.monotonic() + BUSY_S > end:
                break
            time.sleep(BUSY_S)
        if not answer.refusal & Refusal.BUSY:  # a busy board belongs to somebody else: close() must not stop it
            auth = authenticate(self.link.name, self._key, answer, event.proof)
            self.board = answer
            self.connection.open_session(event.session, event.time_us, auth)
        self._greeting = None
        return answer

    def _next_nonce(self) -> bytes:
        """A new nonce for each handshake, all from the first one."""
        self._handshakes += 1
        return hashlib.sha256(self._nonce + self._handshakes.to_bytes(4, "little")).digest()[:16]

    def _done(self, message: Message) -> Ack:
        reply = self._order(message)
        if isinstance(reply, Nack):
            raise UserError(f"the board at {self.link.name} refused {message.layout.name}: {nack_text(reply)}")
        return reply

    def _order(self, message: Message) -> Ack | Nack:
        reply = self._ask(message, lambda m, sent: isinstance(m, Ack | Nack) and m.of_sequence in sent)
        assert isinstance(reply, Ack | Nack)
        return reply

    def _ask(self, message: Message | Sequence[Message], accept: Accept, attempt_s: float = ATTEMPT_S) -> Message:
        event = self._exchange(message, accept, time.monotonic() + self.timeout_s, attempt_s)
        if event is None:
            name = (message if isinstance(message, Message) else message[-1]).layout.name
            raise UserError(f"no answer to {name} from the board at {self.link.name} within {self.timeout_s:g} s")
        return event.message

    def _exchange(
        self, message: Message | Sequence[Message], accept: Accept, end: float, attempt_s: float = ATTEMPT_S
    ) -> Received | None:
        """Send until a reply is accepted. Each attempt has a sequence of its own: the board ignores repeated ones."""
        sent: set[int] = set()
        while time.monotonic() < end:
            frames = []
            for part in [message] if isinstance(message, Message) else message:
                frames.append(self.connection.send(part))
                sent.add(self.connection.sequence)
            self.link.write(b"".join(frames))
            attempt_end = min(end, time.monotonic() + attempt_s)
            damaged = False
            while not damaged and (left := attempt_end - time.monotonic()) > 0:
                reply: Received | None = None
                for event in self.connection.receive(self.link.read(left)):
                    if reply is None and isinstance(event, Received) and accept(event.message, sent):
                        reply = event
                    else:
                        damaged |= self._notice(event)
                if reply is not None:
                    return reply
        return None

    def _notice(self, event: Received | Ignored) -> bool:
        """Keep what came unasked; True when the board reports that a frame arrived damaged."""
        if not isinstance(event, Received):
            return False
        if isinstance(event.message, Status) and event.message.of_sequence == 0:
            self.notices.append(event.message)
        return isinstance(event.message, Nack) and event.message.code == NackCode.BAD_FRAME


def host_us() -> int:
    """The host's clock (µs, monotonic), to which the board's is compared."""
    return time.monotonic_ns() // 1000
