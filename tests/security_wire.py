"""The attacker of `security_attack` on the wire of a running board, host or emulated, judged at its electrode."""

from __future__ import annotations

import random
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from firmware_bridge.bench import Bench, ElectrodePulse
from firmware_bridge.boards import start_board
from firmware_bridge.client import BoardClient
from firmware_bridge.codec import Decoder, Frame, cobs_decode, cobs_encode, encode
from firmware_bridge.codes import NackCode, State
from firmware_bridge.layout import HEADER, Message
from firmware_bridge.links import Link, SerialLink
from firmware_bridge.messages import SCHEMA_SEED, Ack, Arm, Hello, Nack, Renew, SetStim, Status, Stop, pack_mask
from firmware_bridge.security.auth import From
from firmware_bridge.security.keys import new_key

WATCH_S = 0.03  # after each batch
IDLE_S = 0.3  # and at the end
BATCH = 10  # hostile frames between two orders of the owner
SESSION = 250  # and in a session
PATIENCE_S = 30.0  # host time: an emulated link is slow on a busy machine
OWN_UA, HOSTILE_UA = 1000, 5000
PERIOD_US, HOSTILE_PERIOD_US = 20_000, 10_000
WIDTHS_US = range(60, 110)  # one after the other, so that an old order's pulse is told from a new one's
HOSTILE_WIDTH_US = 120
SLACK_US = 1_500  # by which a pulse of an emulated board may come late: tests/ports_tools.py


class Order(NamedTuple):
    """What the owner ordered, as acknowledged."""

    start_us: int
    width_us: int  # 0: stopped


class Tap:
    """A link that keeps what the owner sent and counts what the board answered."""

    def __init__(self, link: Link) -> None:
        self.name, self._link = link.name, link
        self.sent: list[bytes] = []  # signed frames alone: a STOP and a HELLO are for anybody
        self.own: set[int] = set()
        self.answers: Counter[int] = Counter()
        self._decoder = Decoder()
        self._decoder.verify = lambda body, tag: True

    def read(self, timeout_s: float) -> bytes:
        data = self._link.read(timeout_s)
        for event in self._decoder.feed(data):
            if isinstance(event, Frame) and (of := getattr(event.message, "of_sequence", 0)):
                self.answers[of] += 1
        return data

    def write(self, data: bytes) -> None:
        for block in filter(None, data.split(b"\0")):
            body = cobs_decode(block)
            assert body is not None
            _, kind, sequence, _, _ = HEADER.unpack_from(body)
            self.own.add(sequence)
            if kind not in (Hello.layout.type_id, Stop.layout.type_id):
                self.sent.append(b"\0" + block + b"\0")
        self._link.write(data)

    def hostile(self, data: bytes) -> None:
        """From the attacker, past the book."""
        self._link.write(data)

    def close(self) -> None:
        self._link.close()

    @property
    def foreign_answers(self) -> int:
        """Answers to frames that the owner did not send, and second answers to those that it did."""
        return sum(n - (of in self.own) for of, n in self.answers.items())


class Attack:
    """One owner at work, and one attacker on the same wire."""

    def __init__(self, client: BoardClient, tap: Tap, bench: Bench, seed: int, knows_the_key: bool) -> None:
        self.client, self.tap, self.bench, self.draw = client, tap, bench, random.Random(seed)
        self.knows_the_key = knows_the_key
        self.orders: list[Order] = []
        self.pulses: list[ElectrodePulse] = []
        self.kinds = Counter({"forged": 0, "replayed": 0, "reordered": 0})
        self.lapsed = True  # no session under way
        self.lease_until_us = 0
        self.decision = self.sent = self.counted = self.disobeyed = 0

    def open(self) -> None:
        """A new session of the owner, armed; what it sent in the one before is kept by the attacker."""
        self.client.stop()
        self._stopped()
        self.tap.sent = self.tap.sent[-300:]
        self.client.hello(timeout_s=PATIENCE_S)
        self.client.arm()
        self.decision, self.lapsed = 0, False

    def order(self) -> None:
        """The owner's next decision, at once."""
        self.decision += 1
        width = WIDTHS_US[len(self.orders) % len(WIDTHS_US)]
        ack = self.client.set_stim(self.decision, 0, PERIOD_US, [1] * 50, OWN_UA, width, 1000)
        if isinstance(ack, Nack) and ack.code == NackCode.STATE:  # it lapsed just now
            self.open()
            self.order()
            return
        assert isinstance(ack, Ack), ack
        self.orders.append(Order(ack.start_us, width))
        self.lease_until_us = ack.lease_until_us

    def _stopped(self) -> None:
        self._look()
        self.orders.append(Order(self.bench.now_us, 0))

    def _look(self) -> None:
        self.bench.advance(0)  # what time is it?
        self.pulses += self.bench.advance(self.bench.now_us)

    def batch(self, size: int) -> None:
        """So many hostile frames, then the owner looks whether anything is not as it left it."""
        before = self.client.status()
        connection = self.client.connection
        slots, mask = pack_mask([1] * 50)
        held = [  # signed by the owner, and held back by whoever has the wire
            connection.send(
                SetStim(self.decision + 1 + i, 0, HOSTILE_PERIOD_US, slots, mask, HOSTILE_UA, HOSTILE_WIDTH_US, 1000)
            )
            for i in range(min(3, size // 4))
        ]
        if held:
            self.client.heartbeat()  # a newer frame arrives first
        self.kinds["reordered"] += len(held)
        for _ in range(size):
            self.tap.hostile(held.pop() if held else self._next())
        time.sleep(WATCH_S)
        after = self._counted(before, size)
        self.lapsed = self.client.device_time_us >= self.lease_until_us  # the machine was too busy for its owner
        loop = () if self.lapsed else ("state", "decision_id", "queued_id")
        same = (*loop, "orders_refused", "frames_bad", "frames_unknown", "overruns")
        self.disobeyed += any(getattr(after, name) != getattr(before, name) for name in same)
        if not self.lapsed:
            self.disobeyed += after.decision_id != self.decision or after.state != State.CLOSED_LOOP

    def _counted(self, before: Status, size: int) -> Status:
        after = self.client.status()
        names = ("frames_forged", "frames_old_sequence", "frames_old_session")
        self.counted += sum(getattr(after, name) - getattr(before, name) for name in names)
        self.sent += size
        self._look()
        return after

    def _next(self) -> bytes:
        kind = self.draw.choice(("forged", "replayed", "reordered"))
        self.kinds[kind] += 1
        connection = self.client.connection
        sequence = connection.sequence + self.draw.randrange(1000, 2000)
        if kind == "forged":
            slots, mask = pack_mask([1] * 50)
            message: Message = self.draw.choice((
                SetStim(self.decision + 1, 0, HOSTILE_PERIOD_US, slots, mask, HOSTILE_UA, HOSTILE_WIDTH_US, 1000),
                Renew(self.decision), Arm(self.draw.randbytes(16)),
            ))  # fmt: skip
            tag = self.draw.choice((bytes(8), self.draw.randbytes(8)))
            auth = connection._auth
            assert auth is not None
            if self.knows_the_key:
                connection.sequence = sequence  # the owner would otherwise be the one that is late
            return encode(
                message,
                sequence=sequence,
                session=connection.session,
                sign=lambda body: auth.tag(From.HOST, body) if self.knows_the_key else tag,
            )
        frame = self.draw.choice(self.tap.sent)
        return frame if kind == "replayed" else self._moved(frame, sequence)

    def _moved(self, frame: bytes, sequence: int) -> bytes:
        """A recorded frame at a new place: its tag kept, its CRC right."""
        body = cobs_decode(frame.strip(b"\0"))
        assert body is not None
        version, kind, _, _, time_us = HEADER.unpack_from(body)
        changed = HEADER.pack(version, kind, sequence, self.client.connection.session, time_us) + body[HEADER.size : -4]
        return b"\0" + cobs_encode(changed + zlib.crc32(changed, SCHEMA_SEED).to_bytes(4, "little")) + b"\0"

    def finish(self, size: int) -> None:
        """The owner stops; what the electrode says from then on is the attacker's."""
        self.client.stop()
        self._stopped()
        before = self.client.status()
        for _ in range(size):
            self.tap.hostile(self._next())
        time.sleep(IDLE_S)
        after = self._counted(before, size)
        self.disobeyed += after.state != before.state

    def foreign_pulses(self) -> list[ElectrodePulse]:
        """Pulses that the order under way does not explain."""
        return [pulse for pulse in self.pulses if not self._is_own(pulse)]

    def _is_own(self, pulse: ElectrodePulse) -> bool:
        under_way = [order for order in self.orders if order.start_us <= pulse.t_us]
        at_start = [order for order in under_way[-2:] if pulse.t_us - under_way[-1].start_us <= SLACK_US]
        return abs(pulse.amplitude_uA) <= OWN_UA and any(
            pulse.width_us == order.width_us for order in (*under_way[-1:], *at_start)
        )


def attack_board(kind: str, frames: int, seed: int = 2, *, knows_the_key: bool = False) -> dict[str, Any]:
    """``frames`` hostile frames at a running board with a key; what they did, as plain data.

    ``applied`` is the sum of all ways in which one could have been: a pulse that no order of the owner explains, a
    board that is not as its owner left it, an answer to somebody who holds no key. Each frame must be counted by the
    board. The last ones come when the owner has stopped it.
    """
    last = min(BATCH, frames // 2)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "device.key"
        key = new_key(file)
        with (
            start_board(kind, key_file=file, steady=True) as board,
            Bench(board.electrode, stepped=False) as bench,
            BoardClient(tap := Tap(SerialLink(board.port)), timeout_s=PATIENCE_S, key=key) as client,
        ):
            attack = Attack(client, tap, bench, seed, knows_the_key)
            client.hello(timeout_s=PATIENCE_S)
            while attack.sent < frames - last:
                if attack.lapsed or attack.sent % SESSION == 0:
                    attack.open()
                attack.order()
                attack.batch(min(BATCH, frames - last - attack.sent, SESSION - attack.sent % SESSION))
            attack.finish(last)
    foreign, answers = len(attack.foreign_pulses()), tap.foreign_answers
    result: dict[str, Any] = {"board": kind, "seed": seed, "sent": attack.sent, "counted": attack.counted}
    result |= {"applied": foreign + answers + attack.disobeyed}
    result |= {"foreign_pulses": foreign, "foreign_answers": answers, "disobeyed": attack.disobeyed}
    result |= {"own_orders": sum(order.width_us > 0 for order in attack.orders)}
    result |= {"own_pulses": len(attack.pulses) - foreign}
    result["kinds"] = dict(attack.kinds)
    result["passed"] = result["applied"] == 0 and result["counted"] == attack.sent and result["own_pulses"] > 0
    return result
