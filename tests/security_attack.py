"""An attacker on the wire of an authenticated session: hears all, sends what it likes, holds no key.

``python -m tests.security_attack 1000000`` prints the counts as JSON, of the core in this process;
``python -m tests.security_attack --board qemu-m4f 1000`` those of a running board, judged at its electrode (exit code 1
where one frame was applied, or not counted).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import zlib
from typing import NamedTuple

from firmware_bridge.boards import BOARDS
from firmware_bridge.codec import cobs_decode, cobs_encode, encode
from firmware_bridge.codes import State
from firmware_bridge.connection import Connection, Received
from firmware_bridge.layout import HEADER, PROTOCOL, Message
from firmware_bridge.limits import LIMITS_HASH
from firmware_bridge.messages import (
    SCHEMA_HASH,
    SCHEMA_SEED,
    Ack,
    Arm,
    Hello,
    HelloAck,
    Renew,
    SetStim,
    Status,
    StatusRequest,
    Stop,
    pack_mask,
)
from firmware_bridge.security.auth import From, SessionAuth
from firmware_bridge.security.handshake import authenticate
from firmware_bridge.security.keys import DeviceKey
from tests.board_tools import CoreInProcess

KEY = DeviceKey(bytes(range(100, 132)))
SLOTS, MASK = pack_mask([1] * 50)


class Result(NamedTuple):
    """Hostile frames by kind, and what they did."""

    sent: int
    forged: int
    replayed: int
    reordered: int
    applied: int  # hostile frames after which anything but counters had changed, or that were answered
    own_orders: int


class Owner:
    """The host that holds the key, byte by byte."""

    def __init__(self, core: CoreInProcess, draw: random.Random) -> None:
        self.core, self.draw = core, draw
        self.connection = Connection()
        self.recorded: list[bytes] = []  # orders of earlier sessions and of this one, all delivered
        self.decision = 0
        self.auth: SessionAuth | None = None

    def tell(self, message: Message) -> list[Message]:
        """Send and deliver one frame; the board's answers."""
        frame = self.connection.send(message)
        if not isinstance(message, Stop):  # which anybody may send, at any time
            self.recorded.append(frame)
        return [e.message for e in self.connection.receive(self.core(frame)) if isinstance(e, Received)]

    def shake_hands(self) -> None:
        """A new session, armed."""
        self.tell(Stop(0))
        nonce = self.draw.randbytes(16)
        frame = self.connection.send(Hello(PROTOCOL, PROTOCOL, 0, nonce, SCHEMA_HASH, LIMITS_HASH, bytes(32)))
        (event,) = [e for e in self.connection.receive(self.core(frame)) if isinstance(e, Received)]
        assert isinstance(event.message, HelloAck)
        self.auth = authenticate("wire", KEY, event.message, event.proof)
        self.connection.open_session(event.session, event.time_us, self.auth)
        self.decision = 0
        assert any(isinstance(m, Ack) for m in self.tell(Arm(event.message.board_nonce)))

    def order(self, *, held_back: bool = False) -> bytes:
        """The next order; held back, it is signed and not delivered."""
        self.decision += 1
        message = SetStim(self.decision, 0, 20_000, SLOTS, MASK, 3000, 60, 300)
        if held_back:
            return self.connection.send(message)
        self.tell(message)
        return b""

    def is_obeyed(self) -> bool:
        """Whether what the board does is what the owner ordered last."""
        status = [m for m in self.tell(StatusRequest()) if isinstance(m, Status) and m.of_sequence]
        return bool(status) and status[0].decision_id == self.decision and status[0].state == State.CLOSED_LOOP


def attack(frames: int, seed: int, *, knows_the_key: bool = False) -> Result:
    """``frames`` hostile frames, in sessions of 200 each: forged, replayed (also from older sessions), reordered."""
    draw = random.Random(seed)
    core = CoreInProcess(key=KEY.secret)
    owner = Owner(core, draw)
    counts = {"forged": 0, "replayed": 0, "reordered": 0}
    applied = own = 0
    for i in range(frames):
        if i % 200 == 0:
            owner.recorded = owner.recorded[-400:]
            core.advance(core.now_us + 400_000)
            if core_is_full(owner):
                core = CoreInProcess(key=KEY.secret, boots=i + 2)
                owner.core, owner.connection = core, Connection()
            owner.shake_hands()
            owner.order()
        if i % 20 == 10:
            late = [owner.order(held_back=True) for _ in range(3)]
            owner.order()  # the newest arrives first
            own += 1
            applied += not owner.is_obeyed()
            for frame in reversed(late):
                counts["reordered"] += 1
                applied += took(core, frame)
        kind = draw.choice(("forged", "replayed", "reordered"))
        frame = forge(owner, draw, knows_the_key) if kind == "forged" else draw.choice(owner.recorded)
        if kind == "reordered":
            frame = swap(frame, owner, draw)
        counts[kind] += 1
        applied += took(core, frame)
        core.advance(core.now_us + draw.randrange(200))
    return Result(sum(counts.values()), **counts, applied=applied, own_orders=own)


def core_is_full(owner: Owner) -> bool:
    """A board takes 65,535 handshakes a power-on; the harness keeps 4,096 pulses."""
    return len(owner.core.pulses) > 4000


def took(core: CoreInProcess, frame: bytes) -> bool:
    """Whether the board answered or applied a frame (a STOP, which anybody may send, is not among them)."""
    return core(frame) != b""


def forge(owner: Owner, draw: random.Random, knows_the_key: bool) -> bytes:
    """An order of the attacker's own, in the session under way and with a fresh sequence, its CRC right."""
    session, sequence = owner.connection.session, owner.connection.sequence + draw.randrange(1, 1000)
    message: Message = draw.choice((
        SetStim(owner.decision + 1, 0, 20_000, SLOTS, MASK, draw.randrange(1, 5000), 60, 300),
        Renew(owner.decision), Arm(draw.randbytes(16)),
    ))  # fmt: skip
    auth = owner.auth
    assert auth is not None
    guess = draw.choice((bytes(8), draw.randbytes(8)))

    def sign(body: bytes) -> bytes:
        return auth.tag(From.HOST, body) if knows_the_key else guess

    return encode(message, sequence=sequence, session=session, sign=sign)


def swap(frame: bytes, owner: Owner, draw: random.Random) -> bytes:
    """A recorded frame moved to a new place: another sequence or session in its header, its tag kept, its CRC right."""
    body = cobs_decode(frame.split(b"\0")[1])
    assert body is not None
    version, kind, _, _, time = HEADER.unpack_from(body)
    sequence = owner.connection.sequence + draw.randrange(1, 1000)
    changed = HEADER.pack(version, kind, sequence, owner.connection.session, time) + body[HEADER.size : -4]
    return b"\0" + cobs_encode(changed + zlib.crc32(changed, SCHEMA_SEED).to_bytes(4, "little")) + b"\0"


def main() -> int:
    parser = argparse.ArgumentParser(description="Hostile frames at a board with a key; prints JSON.")
    parser.add_argument("frames", type=int)
    parser.add_argument("--board", choices=BOARDS, help="Start and attack this one; without: the core in this process.")
    parser.add_argument("--seed", type=int, default=2)
    asked = parser.parse_args()
    if asked.board is None:
        said = attack(asked.frames, asked.seed)._asdict()
        passed = said["applied"] == 0
    else:
        from tests.security_wire import attack_board

        said = attack_board(asked.board, asked.frames, asked.seed)
        passed = said["passed"]
    sys.stdout.write(json.dumps(said) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
