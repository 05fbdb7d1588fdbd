"""The injector between client and board: a link that damages, delays, loses, repeats and reorders what passes.

`FaultyLink` wraps a real link in this process and keeps device time: a delay of 50 ms is 50 ms of the board's life.
`Proxy` is a cable in the middle: a pty of its own for a host in another process, which can be pulled.
"""

from __future__ import annotations

import os
import random
import select
import threading
import tty
from collections.abc import Callable

from firmware_bridge.links import Link

Pieces = list[tuple[int, bytes]]  # (delay in device µs, bytes)
Disturbance = Callable[[bytes], Pieces]


class FaultyLink:
    """A `Link` with a disturbance on its way to the board (``out``), and losses on the way back (``back``)."""

    def __init__(self, inner: Link) -> None:
        self.inner = inner
        self.name = inner.name
        self.out: Disturbance | None = None
        self.back: Callable[[bytes], bytes] | None = None
        self.cut = False  # the cable is pulled
        self.now_us: Callable[[], int] = lambda: 0
        self.sent: list[bytes] = []  # what the host wrote, undamaged
        self.passed: list[bytes] = []  # what reached the board
        self.waiting: Pieces = []  # (device time at which it is let go, bytes)

    def read(self, timeout_s: float) -> bytes:
        data = self.inner.read(timeout_s)
        if self.cut:
            return b""
        return data if self.back is None or not data else self.back(data)

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        if self.cut:
            return
        for delay_us, piece in [(0, data)] if self.out is None else self.out(data):
            if delay_us:
                self.waiting.append((self.now_us() + delay_us, piece))
            else:
                self._pass(piece)

    def raw(self, data: bytes) -> None:
        """Bytes of the injector's own, past every disturbance."""
        self._pass(data)

    def release(self, now_us: int) -> None:
        """Let go what has waited long enough, in the order of its time."""
        due = sorted((item for item in self.waiting if item[0] <= now_us), key=lambda item: item[0])
        self.waiting = [item for item in self.waiting if item[0] > now_us]
        for _, piece in due:
            if not self.cut:
                self._pass(piece)

    def clean(self) -> None:
        """The cable is whole again; what waited is lost."""
        self.out, self.back, self.cut = None, None, False
        self.waiting.clear()

    def forget(self) -> None:
        """Start counting afresh."""
        self.sent.clear()
        self.passed.clear()

    def close(self) -> None:
        self.inner.close()

    def _pass(self, data: bytes) -> None:
        if data:
            self.passed.append(data)
            self.inner.write(data)


def flip_bits(rng: random.Random, rate: float) -> Callable[[bytes], bytes]:
    """Each bit is flipped with this probability."""

    def flip(data: bytes) -> bytes:
        out = bytearray(data)
        bits = 8 * len(out)
        at = -1
        while True:  # distance to the next flipped bit: geometric
            at += 1 + (int(rng.expovariate(1) / rate) if rate < 0.5 else 0)
            if at >= bits:
                return bytes(out)
            out[at // 8] ^= 1 << (at % 8)

    return flip


def delay(rng: random.Random, low_us: int, high_us: int, share: float = 0.0) -> Disturbance:
    """Each write comes later, by a random time (so they overtake each other); a share is lost."""
    return lambda data: [] if rng.random() < share else [(rng.randint(low_us, high_us), data)]


def swap() -> Disturbance:
    """Every second write overtakes the one before."""
    held: list[bytes] = []

    def swapped(data: bytes) -> Pieces:
        if held:
            return [(0, data), (0, held.pop())]
        held.append(data)
        return []

    return swapped


def twice(data: bytes) -> Pieces:
    """Everything comes twice."""
    return [(0, data), (0, data)]


class Proxy:
    """A pty in the middle of the cable between a host in another process and a board's port."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._host, slave = os.openpty()
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        self._slave = slave  # kept open: the pty outlives its user
        self.pulled = False
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._to_board, self._to_host)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the cable; the board's link stays open."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        os.close(self._host)
        os.close(self._slave)

    def _to_board(self) -> None:
        while not self._ended.is_set():
            if select.select([self._host], [], [], 0.02)[0]:
                data = os.read(self._host, 4096)
                if not self.pulled:
                    self.link.write(data)

    def _to_host(self) -> None:
        while not self._ended.is_set():
            data = self.link.read(0.02)
            if data and not self.pulled:
                os.write(self._host, data)
