"""An emulated board: QEMU runs the very image that a device of this kind would run, in real time, on two ptys.

What the board does is its firmware's; here it is only started, stopped and asked. `guard.py` stands between this
process and QEMU, so that none is left behind however this process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from envs.errors import UserError
from firmware_bridge import guard
from firmware_bridge.board import EXIT_S, START_S, Ports, runtime_dir
from firmware_bridge.build import cache_dir
from firmware_bridge.images import Image
from firmware_bridge.qemu_trace import Trace
from firmware_bridge.security.keys import read_key, write_private
from firmware_bridge.security.provision import count_boots, section
from firmware_bridge.targets import LAUNCHER_BYTES, find_target, qemu
from sea_dbs.files import atomic_write_text, writing

QMP_S = 5.0  # host time within which QEMU answers its monitor
STARTS = (
    256  # of one power-on of a board with a key: the first, and so many resets less one; then it must be started anew
)
POWER_ON_STEP = 16  # resets between two power-ons that still get session numbers of their own
ICOUNT = "shift=5,align=on,sleep=on"  # 32 ns an instruction, held back to real time
_PTY = re.compile(r"redirected to (\S+) \(label (link|electrode)\)")


class QemuBoard:
    """An emulated board for the time of a ``with`` block.

    It keeps real time. The emulator's own stutter (milliseconds on a busy machine) shows in its device time, unless the
    image is a ``steady`` one: then time is counted in instructions, 32 ns each (31 MHz, one a cycle), the pulses of one
    machine are those of another, and a core of this machine is busy all the while. QEMU looks for a peer on its ptys
    once a second, so a first answer can take a second; nothing is lost. `qmp` reaches the emulator's monitor for
    faults: ``stop``, ``cont``, ``system_reset``, ``quit``.

    Raises:
        UserError: QEMU is not installed or does not start, or the log cannot be written.
    """

    def __init__(
        self,
        image: Image,
        *,
        electrode_log: Path | None = None,
        power_on: int | None = None,
        key_file: Path | None = None,
    ) -> None:
        """``power_on``: number of this power-on, the upper half of session numbers; None: the next of this user.

        ``key_file``: a device key, put into the board's memory as a programmer would: it takes signed frames alone. Its
        starts are then counted beside that file.
        """
        self.kind = image.board
        self.image = image
        self._folder = Path(tempfile.mkdtemp(prefix="sea-qemu-"))
        self._trace: Trace | None = None
        self._entry: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None
        try:
            raw = None
            if electrode_log is not None:
                raw = self._folder / "electrode.raw"
                self._trace = Trace(raw, electrode_log)
            key = None if key_file is None else self._provision(key_file)
            number = 0 if key is not None else next_power_on() if power_on is None else power_on
            command = self._command(raw, number, key)
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.port, self.electrode, _ = self._ports()
            if key is not None:
                self._wait_loaded()
                key.unlink()
            self._register()
        except BaseException:
            self.close()
            raise

    @property
    def image_sha256(self) -> str:
        """What HELLO_ACK reports as its build; hex."""
        return self.image.sha256

    def __enter__(self) -> QemuBoard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the emulator and wait for it."""
        if self.process is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()  # the guard ends QEMU
            try:
                self.process.wait(2 * EXIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()  # and the kernel QEMU
                self.process.wait()
            self.process.stdout.close()
        if self._trace is not None:
            self._trace.close()
        if self._entry is not None:
            self._entry.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """One command to QEMU's monitor (QMP); its answer.

        Raises:
            UserError: QEMU has gone, does not answer, or refuses the command.
        """
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(QMP_S)
                sock.connect(str(self._folder / "qmp"))
                stream = sock.makefile("rw")
                stream.readline()  # greeting
                for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    answer = _answer(stream)
        except OSError as error:
            raise UserError(f"the emulated board {self.kind} does not answer: {error}") from None
        if "error" in answer:
            raise UserError(f"QEMU refuses '{command}': {answer['error'].get('desc')}")
        return answer.get("return")

    def _provision(self, key_file: Path) -> Path:
        """A file with the board's key section, its owner's alone, in a private folder; gone once it is loaded."""
        path = self._folder / "key-section"
        write_private(path, section(read_key(key_file), count_boots(key_file, STARTS), STARTS))
        return path

    def _command(self, raw: Path | None, power_on: int, key: Path | None) -> list[str]:
        target = find_target(self.kind)
        assert target.machine is not None
        ram = target.memory("RAM")
        log = "" if raw is None else f",logfile={raw},logappend=on"
        return [
            *(qemu(), "-M", target.machine, "-kernel", str(self.image.elf)),
            *("-display", "none", "-monitor", "none", "-net", "none"),
            *("-chardev", "pty,id=link", "-serial", "chardev:link"),
            *("-chardev", f"pty,id=electrode{log}", "-serial", "chardev:electrode"),
            *("-qmp", f"unix:{self._folder / 'qmp'},server=on,wait=off"),
            *(("-icount", ICOUNT) if self.image.steady else ()),
            *("-device", f"loader,addr={ram.origin + ram.size - LAUNCHER_BYTES:#x},data={power_on},data-len=4"),
            *(() if key is None else ("-device", f"loader,file={key},addr={target.key_address:#x},force-raw=on")),
        ]

    def _ports(self) -> Ports:
        assert self.process is not None
        assert self.process.stdout is not None
        end = time.monotonic() + START_S
        said = b""
        found: dict[str, str] = {}
        while len(found) < 2 and (left := end - time.monotonic()) > 0:
            if not select.select([self.process.stdout], [], [], left)[0]:
                break
            more = os.read(self.process.stdout.fileno(), 4096)
            if not more:
                break
            said += more
            found = {label: path for path, label in _PTY.findall(said.decode(errors="replace"))}
        if len(found) < 2:
            lines = said.decode(errors="replace").splitlines() or ["it said nothing"]
            raise UserError(f"the emulator of {self.kind} did not start: {lines[-1]}")
        return Ports(found["link"], found["electrode"], self.kind)

    def _wait_loaded(self) -> None:
        """Until the monitor answers: it does so only once all files are read."""
        end = time.monotonic() + START_S
        while True:
            try:
                self.qmp("query-status")
                return
            except UserError:
                assert self.process is not None
                if self.process.poll() is not None or time.monotonic() > end:
                    raise UserError(f"the emulator of {self.kind} did not start: {self._said()}") from None
                time.sleep(0.01)

    def _said(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        lines = (self.process.stdout.read() or b"").decode(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    def _register(self) -> None:
        assert self.process is not None
        self._entry = runtime_dir() / f"board-{self.process.pid}.json"
        atomic_write_text(
            self._entry, json.dumps({"port": self.port, "electrode": self.electrode, "kind": self.kind}) + "\n"
        )


def _answer(stream: Any) -> dict[str, Any]:
    """The next answer; events are skipped. Empty: QEMU went away, as it does on ``quit``."""
    while line := stream.readline():
        said: dict[str, Any] = json.loads(line)
        if "return" in said or "error" in said:
            return said
    return {}


def next_power_on() -> int:
    """The number of the next power-on of an emulated board, counted for this user; the resets after it count on.

    A real board counts in its flash (ports/nucleo-f446re); an emulated one has none and is told at its start.

    Raises:
        UserError: the count cannot be written.
    """
    path = cache_dir() / "power-ons"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            count = (int(text) if text.isdigit() else 0) % (65536 // POWER_ON_STEP - 1) + 1
            file.truncate(0)
            file.write(str(count))
    return count * POWER_ON_STEP
