"""Links: what carries the bytes. A link reads what has come, writes everything, and knows its name."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from envs.errors import UserError

BAUD = 921_600  # default rate of the link


class Link(Protocol):
    """A byte stream."""

    name: str

    def read(self, timeout_s: float) -> bytes:
        """What has come; empty when nothing came within the time."""
        ...

    def write(self, data: bytes) -> None:
        """Send all bytes."""
        ...

    def close(self) -> None:
        """Give the port back."""
        ...


class LoopbackLink:
    """In memory: every write is answered at once by ``peer`` (bytes in, bytes out)."""

    def __init__(self, peer: Callable[[bytes], bytes], name: str = "loopback") -> None:
        self.name = name
        self._peer = peer
        self._waiting = b""

    def read(self, timeout_s: float) -> bytes:
        if not self._waiting:
            time.sleep(min(timeout_s, 0.01))  # nothing can come while we wait
        data, self._waiting = self._waiting, b""
        return data

    def write(self, data: bytes) -> None:
        self._waiting += self._peer(data)

    def close(self) -> None:
        self._waiting = b""


class SerialLink:
    """A serial port, the path of a pty, or ``socket://HOST:PORT``, opened for us alone.

    Raises:
        UserError: the port does not exist, is busy, may not be opened, is no serial port, or goes away later.
    """

    def __init__(self, port: str, *, baud: int = BAUD) -> None:
        import serial

        self.name = port
        # pty masters hold what came before we opened: pyserial flushes it on opening.
        try:
            self._serial = serial.serial_for_url(port, baudrate=baud, timeout=0.05, write_timeout=2, exclusive=True)
        except ValueError as error:
            raise UserError(f"{port} is no port: {error}") from None
        except (serial.SerialException, OSError) as error:
            raise UserError(_why_not(port, error)) from None
        sock = getattr(self._serial, "_socket", None)
        if sock is not None:
            import socket

            # pyserial leaves Nagle's algorithm on: a frame would wait for the answer to the one before.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, timeout_s: float) -> bytes:
        end = time.monotonic() + timeout_s
        try:
            while True:
                data = self._serial.read(1)
                if data:
                    waiting = self._serial.in_waiting
                    return bytes(data + (self._serial.read(waiting) if waiting else b""))
                if time.monotonic() >= end:
                    return b""
        except OSError as error:  # SerialException is one
            raise UserError(f"the board at {self.name} went away: {error}") from None

    def write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except OSError as error:
            raise UserError(f"the board at {self.name} went away: {error}") from None

    def close(self) -> None:
        with suppress(OSError):
            self._serial.close()


def _why_not(port: str, error: OSError) -> str:
    if error.errno == errno.ENOENT or ("://" not in port and not Path(port).exists()):
        return f"there is no port {port}: start a board with 'sea-dbs board host' and use the port it prints"
    if error.errno in (errno.EWOULDBLOCK, errno.EBUSY) or "exclusively lock" in str(error):
        return f"the port {port} is busy: another program has it open"
    if error.errno == errno.EACCES:
        return f"the port {port} may not be opened by this user: add the user to the group that owns it (dialout)"
    return f"the port {port} cannot be opened as a serial port: {error}"
