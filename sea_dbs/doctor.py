"""What this machine has of what sea-dbs needs, and what to do about the rest."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PYTHON = ((3, 11), (3, 13))  # at least, below
FREE_GB = 2.0  # GB, a run with its replay memory, checkpoints and report stays far below
EXTRAS = {
    "train": ("torch", "tensorboard"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "report": ("matplotlib", "jinja2"),
}
CORE = ("numpy", "scipy", "numba", "gymnasium", "pydantic", "pyserial")


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and what to do when it is not good."""

    what: str
    good: bool
    found: str
    advice: str = ""
    needed: bool = True  # False: only part of the work needs it


def examine() -> Iterator[Finding]:
    """Every check, one after the other."""
    yield _python()
    yield from (_package(name) for name in CORE)
    for extra, names in EXTRAS.items():
        yield from (_package(name, extra) for name in names)
    yield _compiler()
    yield _pty()
    yield _serial()
    yield _disk()


def _python() -> Finding:
    found = sys.version.split()[0]
    good = PYTHON[0] <= sys.version_info[:2] < PYTHON[1]
    return Finding("Python", good, found, "use Python 3.11 or 3.12: make install PYTHON=python3.11")


def _package(name: str, extra: str = "") -> Finding:
    fix = f"pip install 'sea-dbs[{extra}]'" if extra else "pip install sea-dbs"
    try:
        return Finding(name, True, version(name), fix, needed=not extra)
    except PackageNotFoundError:
        return Finding(name, False, "missing", fix, needed=not extra)


def _compiler() -> Finding:
    path = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    advice = "the host board is compiled on first use: apt-get install gcc libc6-dev (macOS: xcode-select --install)"
    return Finding("C compiler", path is not None, path or "missing", advice)


def _pty() -> Finding:
    try:
        for descriptor in os.openpty():
            os.close(descriptor)
    except OSError as error:
        return Finding("pseudo-terminals", False, str(error), "virtual boards need /dev/pts: mount devpts")
    return Finding("pseudo-terminals", True, "work")


def _serial() -> Finding:
    """Rights on serial ports; a virtual board needs none."""
    if find_spec("serial") is None:
        return Finding("serial ports", False, "pyserial is missing", "pip install pyserial", needed=False)
    from serial.tools import list_ports

    ports = [port.device for port in list_ports.comports()]
    if not ports:
        return Finding("serial ports", True, "no device is plugged in", needed=False)
    denied = [port for port in ports if not os.access(port, os.R_OK | os.W_OK)]
    if denied:
        advice = f"no right to use {denied[0]}: sudo usermod -a -G dialout $USER, then log in again"
        return Finding("serial ports", False, f"{len(denied)} of {len(ports)} may not be opened", advice, needed=False)
    return Finding("serial ports", True, ", ".join(ports), needed=False)


def _disk() -> Finding:
    places = {Path.cwd(), Path(tempfile.gettempdir())}
    free = min(shutil.disk_usage(place).free for place in places) / 1e9
    return Finding("free disk", free >= FREE_GB, f"{free:.1f} GB", f"free some: a run wants {FREE_GB:g} GB")
