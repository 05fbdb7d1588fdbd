"""What a session shows while it runs: a bar on a terminal, elsewhere a line now and then; on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from firmware_bridge.electrode import BENCH_MODE, Electrode

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY_S = 10.0  # without a terminal, a line at most this often


class SessionProgress:
    """Progress over ``total`` decisions."""

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.total, self.quiet = total, quiet
        self._last_line = float("-inf")
        self._bar: Progress | None = None

    def __enter__(self) -> SessionProgress:
        if self.quiet:
            return self
        sys.stderr.write(f"{BENCH_MODE}\n")
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("session"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("session", total=self.total, state="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, step: int, beta: float, pulses: int, electrode: Electrode) -> None:
        """A decision is over."""
        if self.quiet:
            return
        state = f"P_beta {beta:.0f}  pulses {pulses} ({electrode.pulse_count})  {electrode.state.name}"
        if electrode.deadline_misses:
            state += f"  deadline misses {electrode.deadline_misses}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, state=state)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S or step == self.total:
            self._last_line = time.monotonic()
            sys.stderr.write(f"session {step}/{self.total}  {state}\n")
