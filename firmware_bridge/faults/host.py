"""Hosts that can be killed: ``python -m firmware_bridge.faults.host MODEL``.

Each line of standard input is a port, and perhaps a tab and the file of a record, another tab and a limit of that file
in bytes; a child is forked that arms the board there and keeps a loop going until it is killed, and its process id is
printed. So a kill costs no start of an interpreter.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from envs.errors import UserError
from firmware_bridge.client import BoardClient
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import Ack
from firmware_bridge.record_file import RecordFile

SLOT_US, SLOTS, LEASE_MS = 20_000, 50, 300


def _record(path: str, limit: int) -> Callable[[str], None]:
    """Notes go into a file as a session's do: committed twice a second."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    size = 100_000 if limit else 1_000  # bytes of a note: a small disk is full soon
    file = RecordFile(Path(path), "CREATE TABLE notes (host_time REAL, text TEXT);")

    def note(text: str) -> None:
        with file.transaction() as db:
            db.execute("INSERT INTO notes VALUES (?, ?)", (time.time(), text + size * "."))
        file.tick()

    return note


def _loop(port: str, model: bytes, record: str = "", limit: str = "0") -> None:
    note = _record(record, int(limit)) if record else lambda _: None
    client = BoardClient(SerialLink(port))
    client.hello(model)
    client.arm()
    try:
        _orders(client, note)
    except UserError:  # the disk is full: a session ends with STOP
        client.stop()


def _orders(client: BoardClient, note: Callable[[str], None]) -> None:
    decision, start = 0, 0
    while True:
        decision += 1
        reply = client.set_stim(decision, start, SLOT_US, [1] * SLOTS, 3000, 60, LEASE_MS)
        if not isinstance(reply, Ack):
            return
        for _ in range(9):
            time.sleep(0.1)
            client.renew(decision)
            note(f"renewed decision {decision}")
        start = reply.start_us + SLOTS * SLOT_US


def main(model: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                port, *record = line.rstrip("\n").split("\t")
                _loop(port, bytes.fromhex(model), *record)
            finally:
                os._exit(1)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


class Hosts:
    """The process above, and the host it started last."""

    def __init__(self, model: bytes) -> None:
        command = [sys.executable, "-m", "firmware_bridge.faults.host", model.hex()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._child = 0

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, port: str, record: Path | None = None, limit: int = 0) -> None:
        """A new host on this port; it records there, on a disk with room for so many bytes (0: enough)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if record is not None:
            port = f"{port}\t{record}\t{limit}"
        self._process.stdin.write(port + "\n")
        self._process.stdin.flush()
        self._child = int(self._process.stdout.readline())

    def kill(self) -> None:
        """SIGKILL."""
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            self._child = 0


if __name__ == "__main__":
    main(sys.argv[1])
