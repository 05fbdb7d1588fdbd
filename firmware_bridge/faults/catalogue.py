"""The fault catalogue as data: `catalogue.yaml`, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from envs.errors import UserError
from firmware_bridge.boards import BOARDS


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    fault: str
    reaction: str
    passes: str
    injection: str
    trials: dict[str, int]  # host, qemu
    full: dict[str, int]
    given: dict[str, Any] = field(default_factory=dict)
    free: bool = False  # the host board's clock runs freely
    boards: tuple[str, ...] = BOARDS
    hands: dict[str, Any] | None = None  # what a person does on a real board, and what must follow
    allow: tuple[str, ...] = ()  # rules that the fault itself breaks
    setting: dict[str, int] | None = None  # the board is built with this fixed setting for FALLBACK

    def trials_on(self, board: str, full: bool = False) -> int:
        """How often it is tried by default, or in a full run."""
        return (self.full if full else self.trials)["host" if board == "host" else "qemu"]


def load() -> tuple[Row, ...]:
    """Every row, in order."""
    data = yaml.safe_load(Path(__file__).with_name("catalogue.yaml").read_text())
    rows = []
    for entry in data["rows"]:
        values = dict(entry)
        values["given"] = values.pop("with", {})
        for name in ("boards", "allow"):
            if name in values:
                values[name] = tuple(values[name])
        rows.append(Row(**values))
    return tuple(rows)


def choose(names: Sequence[str] = ()) -> tuple[Row, ...]:
    """The rows of these names, in the catalogue's order; all where none is named.

    Raises:
        UserError: there is no row of a name.
    """
    rows = load()
    known = {row.name for row in rows}
    for name in names:
        if name not in known:
            raise UserError(f"there is no row '{name}' in the fault catalogue: choose from {', '.join(sorted(known))}")
    return tuple(row for row in rows if not names or row.name in names)
