"""Pieces of C text that the generators share: tables of numbers, the kernels' files, comments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.integer.model import Meaning

KERNELS = Path(__file__).parent / "kernels"
WIDTH = 118


def kernel(name: str) -> str:
    """The text of a kernel: a file of this package, copied as it stands."""
    return (KERNELS / f"{name}.c").read_text(encoding="utf-8")


def table(kind: str, name: str, shape: str, rows: NDArray[Any] | Iterable[Iterable[str]], comment: str) -> str:
    """``static const kind name shape = {…};`` with a comment before it; each row begins a line."""
    lines = [f"/* {plain(comment)} */", f"static const {kind} {name}{shape} = {{"]
    for row in rows:
        texts = row if not isinstance(row, np.ndarray) else map(str, row.tolist())
        lines += _wrapped(texts)
    return "\n".join([*lines, "};", ""])


def _wrapped(texts: Iterable[str]) -> list[str]:
    lines, line = [], "   "
    for text in texts:
        if len(line) + len(text) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {text},"
    return [*lines, line]


def plain(text: str) -> str:
    """Text of a file from elsewhere, made safe inside a comment: printable ASCII, no comment marks, not endless."""
    kept = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return kept.replace("*/", "* /").replace("/*", "/ *")[:300]


def descriptor(
    *, meaning: Meaning, n_obs: int, slots: int, format_name: str, logit_bits: int, margin_shift: int, q_zero: int,
    q_shift: int, q_multiplier: int, q_centre: int,
) -> str:  # fmt: skip
    """The one public object of a generated policy, SEA_POLICY."""
    fields = {
        "n_obs": n_obs, "slots": slots, "slot_period_us": meaning.slot_period_us, "amplitude_uA": meaning.amplitude_uA,
        "width_us": meaning.width_us, "format": format_name, "logit_bits": logit_bits, "margin_shift": margin_shift,
        "q_zero": q_zero, "q_shift": q_shift, "q_multiplier": q_multiplier, "q_centre": q_centre, "reset": "reset",
        "infer": "infer",
    }  # fmt: skip
    lines = [f"    .{name} = {value}," for name, value in fields.items()]
    return "\n".join(["const sea_policy_t SEA_POLICY = {", *lines, "};", ""])
