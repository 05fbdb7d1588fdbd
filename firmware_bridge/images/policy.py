"""The policy that goes into an image: where its C source stands, and whether its tables fit on a board."""

from __future__ import annotations

import re
from pathlib import Path

from envs.errors import UserError
from firmware_bridge.targets import FIRMWARE_FLASH, FIRMWARE_RAM, STACK_BYTES, find_target

FORMATS = ("int8", "fp32", "fp16")
_ELEMENT_BYTES = {
    "int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "_Float16": 2, "__fp16": 2,
    "int32_t": 4, "uint32_t": 4, "float": 4, "int64_t": 8, "uint64_t": 8,
}  # fmt: skip
_ARRAY = re.compile(
    rf"^[ \t]*static\s+(?:_Alignas\(\d+\)\s+)?(const\s+)?({'|'.join(_ELEMENT_BYTES)}|number_t)\s+\w+"
    r"((?:\s*\[[0-9 *+u]+\])+)",
    re.M,
)
_NUMBER = re.compile(r"typedef (\w+) number_t;")  # the float formats' one type


def policy_source(policy_dir: Path, format: str) -> Path:
    """The C source of a policy in an export folder.

    Raises:
        UserError: an unknown format, or this export holds no such source.
    """
    if format not in FORMATS:
        raise UserError(f"there is no policy format '{format}': choose one of {', '.join(FORMATS)}")
    path = policy_dir / "c" / format / "sea_policy.c"
    if not path.is_file():
        raise UserError(f"there is no {path}: export the run with --targets c and the precision {format}")
    return path


def table_bytes(source: str) -> tuple[int, int]:
    """Bytes of constant tables (flash) and of buffers (RAM) that a generated policy declares at file scope."""
    totals = {True: 0, False: 0}
    number = _NUMBER.search(source)
    sizes = _ELEMENT_BYTES | ({"number_t": _ELEMENT_BYTES[number[1]]} if number else {})
    for const, kind, axes in _ARRAY.findall(source):
        count = 1
        for axis in re.findall(r"\[([0-9 *+u]+)\]", axes):
            factors = [int(factor.strip(" u")) for factor in axis.split("*") if factor.strip(" u").isdigit()]
            for factor in factors:
                count *= factor
        totals[bool(const)] += count * sizes[kind]
    return totals[True], totals[False]


def check_fits(board: str, flash_bytes: int, ram_bytes: int = 0) -> None:
    """Whether a policy's tables and buffers fit beside the firmware, asked before anything is compiled.

    Raises:
        UserError: they do not; says by how much.
    """
    target = find_target(board)
    if target.is_host:
        return
    for name, wanted, firmware in (
        ("flash", flash_bytes, FIRMWARE_FLASH),
        ("RAM", ram_bytes, FIRMWARE_RAM + STACK_BYTES),
    ):
        there = target.memory(name.upper()).size
        if wanted + firmware > there:
            raise UserError(
                f"the policy is too large for {board} by {wanted + firmware - there} bytes: it takes {wanted} bytes of "
                f"{name}, the firmware {firmware}, the board has {there}"
            )
