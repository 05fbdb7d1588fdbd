"""What the stimulators' tests share: emulators as processes, and what their own log says they gave."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from firmware_bridge.stimulators.driver import HostTimed
from firmware_bridge.stimulators.pacing import PromptLink
from firmware_bridge.stimulators.pulsepal import PulsePal
from firmware_bridge.stimulators.stimjim import StimJim

PULSE = {"stimjim": (3000, 60), "pulsepal": (1800, 100)}  # µA, µs that the tests order


class Emulated(NamedTuple):
    """A running emulator."""

    kind: str
    port: str
    log: Path
    process: subprocess.Popen[str]
    before: int = 0  # pulses of earlier tests

    def fresh(self) -> Emulated:
        """The same emulator for one more test, its log empty."""
        return self._replace(before=len(self._replace(before=0).pulses()))

    def pulses(self) -> list[dict[str, Any]]:
        """What it has given so far."""
        lines = self.log.read_text().splitlines(keepends=True)[self.before :]
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def times(self) -> list[int]:
        """When (µs of the monotonic clock)."""
        return [row["t_us"] for row in self.pulses()]


@contextmanager
def emulated(kind: str, folder: Path, *options: str) -> Iterator[Emulated]:
    """An emulator for the time of the block."""
    log = folder / f"{kind}.log"
    command = [sys.executable, "-m", "firmware_bridge.stimulators.emulate", kind, "--with-parent"]
    command += ["--electrode-log", str(log), *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        port = process.stdout.readline().strip()
        assert process.stdout.readline().startswith("electrode ")
        yield Emulated(kind, port, log, process)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
        process.stdin.close()


class SpyLink(PromptLink):
    """A port that remembers each write."""

    def __init__(self, port: str) -> None:
        super().__init__(port)
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)


def make_driver(kind: str, port: str, **options: Any) -> HostTimed:
    """The driver of a device, in bench mode."""
    link = SpyLink(port)
    if kind == "stimjim":
        return StimJim(link, bench=True, **options)
    return PulsePal(link, bench=True, isolator_uA=PULSE[kind][0], **options)


def writes(driver: HostTimed) -> list[bytes]:
    """What a driver has sent."""
    assert isinstance(driver.link, SpyLink)
    return driver.link.writes


@contextmanager
def driving(kind: str, port: str, **options: Any) -> Iterator[HostTimed]:
    """An armed driver for the time of the block."""
    driver = make_driver(kind, port, **options)
    try:
        driver.connect()
        driver.arm()
        yield driver
    finally:
        driver.close()


def wait_for(true: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.005)
