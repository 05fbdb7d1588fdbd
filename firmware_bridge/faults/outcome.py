"""What an injection says of its trial: when the fault was, what must follow, and what the link told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from firmware_bridge.faults.expectation import Expectation


@dataclass
class Outcome:
    """Handed to the checker, which alone judges; `problems` are those that only the link can show."""

    fault_us: int  # device time
    expect: list[Expectation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    marks: list[tuple[int, str]] = field(default_factory=list)  # for the timeline: (device time, what)
    shown_s: float | None = None  # and so long after the fault; None: a little longer than the reaction
    said: dict[str, Any] = field(default_factory=dict)

    def must(self, holds: bool, otherwise: str) -> None:
        """A criterion of the link's side."""
        if not holds:
            self.problems.append(otherwise)


class NotHereError(Exception):
    """This board has no way to suffer this fault; the row is not passed, and says so."""


INJECTIONS: dict[str, Callable[..., Outcome]] = {}


def injection(run: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Register an injection under its function's name."""
    INJECTIONS[run.__name__] = run
    return run
