"""Progress of long jobs: a bar on a terminal, elsewhere a line on stderr now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY_S = 10.0  # without a terminal, a line at most this often


class progress:  # noqa: N801 (used like a function: with progress(...) as bar)
    """``with progress("training", total=900) as bar: bar.update(8, "P_beta 400")``."""

    def __init__(self, name: str, total: int, done: int = 0, *, quiet: bool = False) -> None:
        self.name, self.total, self.done, self.quiet = name, total, done, quiet
        self._last_line = float("-inf")
        self._bar: Progress | None = None

    def __enter__(self) -> progress:
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn(self.name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[state]}"), console=Console(stderr=True))
            self._task = self._bar.add_task(self.name, total=self.total, completed=self.done, state="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, steps: int, state: str = "") -> None:
        """``steps`` more are done; ``state`` stands beside the bar."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, state=state)
        elif not self.quiet and (time.monotonic() - self._last_line >= LINE_EVERY_S or self.done >= self.total):
            self._last_line = time.monotonic()
            sys.stderr.write(f"{self.name} {self.done}/{self.total}  {state}\n")
