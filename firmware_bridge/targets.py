"""What the firmware can be built for: one row a board, its memories read from its linker script."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from envs.errors import UserError
from firmware_bridge.build import FIRMWARE, find_compiler

PORTS = FIRMWARE / "ports"
COMMON = PORTS / "common"
CORTEX_M = PORTS / "cortex-m"
CMSDK = PORTS / "cmsdk"
CROSS = "arm-none-eabi-"
CROSS_APT = "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"
QEMU_APT = "apt-get install qemu-system-arm"
STACK_BYTES = 16 * 1024  # kept free by the linker scripts (BOARD_STACK)
LAUNCHER_BYTES = 56  # at the end of RAM: sections.ld
FLASH_STARTS = {"nucleo-f446re": 128 * 1024 - 64}  # starts that a board can count beside its key section (board.c)
FIRMWARE_FLASH = 24 * 1024  # bytes of the firmware without a policy, rounded up: measured 18.7 to 21.9 kB
FIRMWARE_RAM = 24 * 1024  # bytes likewise without the stack: measured 21.5 kB, 16 kB of it ring buffers


@dataclass(frozen=True)
class Memory:
    """A memory of a board, in bytes."""

    origin: int
    size: int


@dataclass(frozen=True)
class Target:
    """A board: its port's folder, compiler flags, and the machine that QEMU calls it by (None: not emulated)."""

    name: str
    core: str
    flags: tuple[str, ...] = ()
    machine: str | None = None
    virtual: bool = True  # has the virtual electrode

    @property
    def folder(self) -> Path:
        """The port."""
        return PORTS / self.name

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder of sources beside the core, the port's own last."""
        family = () if self.is_host else (CORTEX_M,)
        return (COMMON, *family, *((CMSDK,) if self.machine else ()), self.folder)

    @property
    def is_host(self) -> bool:
        """A process on this machine, not a microcontroller."""
        return not self.flags

    @property
    def cpu_hz(self) -> int:
        """Clock of the core (Hz), from the port's own headers, else from those that it shares with other ports.

        Raises:
            UserError: none of them names it.
        """
        for header in (path for folder in reversed(self.folders) for path in sorted(folder.glob("*.h"))):
            if found := re.search(r"#define BOARD_CPU_HZ (\d+)u", header.read_text()):
                return int(found[1])
        raise UserError(f"no header of the port {self.name} defines BOARD_CPU_HZ")

    def memory(self, name: str) -> Memory:
        """``FLASH`` or ``RAM``, from the linker script."""
        return self._memories[name]

    @property
    def key_address(self) -> int:
        """Where the board looks for its key section (``BOARD_KEY`` of its linker script).

        Raises:
            UserError: it has none: a host board reads a key file.
        """
        script = self.folder / "link.ld"
        found = re.search(r"BOARD_KEY = (0x\w+);", script.read_text()) if script.is_file() else None
        if found is None:
            raise UserError(f"{self.name} has no key section")
        return int(found[1], 16)

    @cached_property
    def _memories(self) -> dict[str, Memory]:
        found = re.findall(
            r"(FLASH|RAM) \(\w+\) : ORIGIN = (\w+), LENGTH = (\d+)([KM])", (self.folder / "link.ld").read_text()
        )
        return {name: Memory(int(at, 16), int(size) << {"K": 10, "M": 20}[unit]) for name, at, size, unit in found}

    def compiler(self) -> str:
        """The compiler.

        Raises:
            UserError: it is not installed; says the apt line.
        """
        return find_compiler() if self.is_host else cross("gcc")


def cross(tool: str) -> str:
    """A tool of the cross compiler.

    Raises:
        UserError: it is not installed.
    """
    found = shutil.which(CROSS + tool)
    if found is None:
        raise UserError(f"{CROSS}{tool} was not found: a board's firmware needs it, on Debian '{CROSS_APT}'")
    return found


def qemu() -> str:
    """The emulator.

    Raises:
        UserError: it is not installed.
    """
    found = shutil.which("qemu-system-arm")
    if found is None:
        raise UserError(f"qemu-system-arm was not found: the emulated boards need it, on Debian '{QEMU_APT}'")
    return found


_THUMB = ("-mthumb", "-mfloat-abi=hard", "-mfp16-format=ieee")
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("host", "this machine"),
        Target("qemu-m4f", "Cortex-M4F", ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", *_THUMB), "mps2-an386"),
        Target("qemu-m7", "Cortex-M7", ("-mcpu=cortex-m7", "-mfpu=fpv5-d16", *_THUMB), "mps2-an500"),
        # plain cortex-m55: with +nomve, _Float16 code hung (GCC 12.2)
        Target("qemu-m55", "Cortex-M55", ("-mcpu=cortex-m55", *_THUMB), "mps3-an547"),
        Target("nucleo-f446re", "Cortex-M4F", ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", *_THUMB), virtual=False),
    )
}


def find_target(name: str) -> Target:
    """A board by its name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in TARGETS:
        raise UserError(f"there is no board '{name}': choose one of {', '.join(TARGETS)}")
    return TARGETS[name]
