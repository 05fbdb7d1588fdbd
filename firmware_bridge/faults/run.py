"""Run the catalogue on a board: each row so many times, each trial judged by the independent checker."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from envs.errors import UserError
from firmware_bridge.faults import inject_board, inject_host, inject_link, inject_loop  # noqa: F401  (they register)
from firmware_bridge.faults.catalogue import Row
from firmware_bridge.faults.checker import Finding, check
from firmware_bridge.faults.expectation import expected
from firmware_bridge.faults.outcome import INJECTIONS, NotHereError, Outcome
from firmware_bridge.faults.rig import Rig
from firmware_bridge.images import FixedSetting
from sea_dbs.progress import progress

PASS, FAIL, ABSENT, SKIPPED = "pass", "FAIL", "not there", "skipped by the person"
KEEP_FINDINGS = 20  # of a row: enough to see what is wrong
WAITING = 4  # boards at a time where all of them keep real time: they mostly wait

Ask = Callable[[Row], bool]  # a person is asked to break something; False: skipped
Say = Callable[[str], None]  # and told when


@dataclass
class Trial:
    """One trial, with the part of the trace that belongs to it."""

    outcome: Outcome
    lines: list[dict[str, Any]]
    findings: list[Finding]
    before: str | None = None  # the board's state at the start


@dataclass
class RowResult:
    """A row on a board."""

    row: Row
    board: str
    verdict: str = PASS
    trials: int = 0
    passed: int = 0
    reaction_ms: list[float] = field(default_factory=list)  # `reaction_us` of each trial
    problems: list[str] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    pulses: int = 0
    host_s: float = 0.0
    shown: Trial | None = None  # for the picture: the first that failed, else the first

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.row.name,
            "board": self.board,
            "verdict": self.verdict,
            "trials": self.trials,
            "passed": self.passed,
            "pulses": self.pulses,
            "reaction_ms_max": round(max(self.reaction_ms), 3) if self.reaction_ms else None,
            "problems": self.problems[:KEEP_FINDINGS],
            "said": self.said[:KEEP_FINDINGS],
            "host_s": round(self.host_s, 2),
            "row": {name: value for name, value in asdict(self.row).items() if name not in ("trials", "full", "name")},
        }


@dataclass
class Settings:
    """How a run is made."""

    board: str
    trials: int | None = None  # of each row; None: the catalogue's own
    full: bool = False
    seed: int = 0
    broken: str | None = None
    port: str | None = None  # a board that runs already
    electrode: str | None = None
    ask: Ask | None = None
    say: Say = print
    jobs: int | None = None  # boards at a time; None: several where time is real and the machine only waits


def run_rows(rows: Sequence[Row], settings: Settings) -> list[RowResult]:
    """Every row, one after another; a row that cannot be run on this board says so.

    Raises:
        UserError: the board cannot be started or reached.
    """
    total = sum(_trials(row, settings) for row in rows)
    results = []
    with progress(f"faults on {settings.board}", total) as bar:
        for row in rows:
            done = bar.done + _trials(row, settings)
            results.append(_run_row(row, settings, bar))
            bar.update(done - bar.done, f"{row.name}: {results[-1].verdict}")
    return results


def _trials(row: Row, settings: Settings) -> int:
    if settings.port is not None and row.hands and settings.trials is None:
        return 1
    return settings.trials if settings.trials is not None else row.trials_on(settings.board, settings.full)


def _absent(row: Row, settings: Settings) -> str | None:
    """Why a row cannot be run on this board."""
    if settings.port is None and settings.board not in row.boards:
        return f"this board cannot suffer it: only {', '.join(row.boards)} can"
    if settings.port is not None and row.setting is not None:
        return "a board that runs already has the setting for FALLBACK that it was built with"
    return None


def _run_row(row: Row, settings: Settings, bar: progress) -> RowResult:
    result = RowResult(row, settings.board)
    if (why := _absent(row, settings)) is not None:
        result.verdict = ABSENT
        result.problems.append(why)
        return result
    if settings.port is not None and row.hands and not (settings.ask is not None and settings.ask(row)):
        result.verdict = SKIPPED
        return result
    began = time.monotonic()
    for k, tried in _tried(row, settings):
        bar.update(1, row.name)
        if isinstance(tried, Trial):
            _count(result, tried, k)
        elif isinstance(tried, NotHereError):
            result.verdict = ABSENT
            result.problems.append(str(tried))
            break
        else:
            result.trials += 1
            result.verdict = FAIL
            result.problems.append(f"trial {k}: {tried}")
            break
    result.host_s = time.monotonic() - began
    return result


def _jobs(row: Row, settings: Settings) -> int:
    """Boards at a time."""
    wanted = settings.jobs or (WAITING if row.free and settings.board == "host" else 1)
    return 1 if settings.port is not None else min(wanted, _trials(row, settings))


def _tried(row: Row, settings: Settings) -> Iterator[tuple[int, Trial | NotHereError | UserError]]:
    """Each trial with its number, as they end; what a board raises ends its part of them.

    Raises:
        UserError: a board cannot be started or reached.
    """
    jobs = _jobs(row, settings)
    numbers, ended = iter(range(_trials(row, settings))), threading.Event()
    out: queue.SimpleQueue[tuple[int, Trial | NotHereError | UserError] | None] = queue.SimpleQueue()

    def board() -> Iterator[tuple[int, Trial | NotHereError | UserError]]:
        with _rig(row, settings) as rig:
            for k in numbers:
                if ended.is_set():
                    return
                try:
                    by_hand = settings.say if settings.port is not None and row.hands else None
                    yield k, run_trial(rig, row, random.Random(f"{settings.seed} {row.name} {k}"), by_hand)
                except (NotHereError, UserError) as error:
                    yield k, error
                    return

    def work() -> None:
        try:
            for done in board():
                out.put(done)
        finally:
            out.put(None)

    if jobs == 1:
        yield from board()
        return
    with ThreadPoolExecutor(jobs) as pool:
        try:
            workers = [pool.submit(work) for _ in range(jobs)]
            left = jobs
            while left:
                done = out.get()
                if done is None:
                    left -= 1
                else:
                    yield done
            for worker in workers:
                worker.result()
        finally:
            ended.set()


def _rig(row: Row, settings: Settings) -> Rig:
    return Rig(
        settings.board,
        stepped=not row.free,
        broken=settings.broken,
        port=settings.port,
        electrode=settings.electrode,
        fixed=None if row.setting is None else FixedSetting(**row.setting),
    )


def _count(result: RowResult, trial: Trial, k: int) -> None:
    result.trials += 1
    wrong = [f"{finding.rule} at {finding.t_us} µs: {finding.text}" for finding in trial.findings]
    wrong += trial.outcome.problems
    result.passed += not wrong
    result.problems += [f"trial {k}: {text}" for text in wrong]
    result.pulses += sum("pulse" in line for line in trial.lines)
    if trial.outcome.said:
        result.said.append(trial.outcome.said)
    if (took_us := reaction_us(trial)) is not None:
        result.reaction_ms.append(took_us / 1e3)
    if result.shown is None or (wrong and result.verdict == PASS):
        result.shown = trial
    if wrong:
        result.verdict = FAIL


def reaction_us(trial: Trial) -> int | None:
    """From the fault, or from the last frame of a lost host that the board took, to the state that must follow."""
    outcome = trial.outcome
    wanted = outcome.expect[0] if outcome.expect else None
    if wanted is None or wanted.state is None or wanted.restart:
        return None
    since = outcome.fault_us
    for line in trial.lines:
        t_us = int(line.get("t_us", 0))
        if line.get("state") == wanted.state and t_us >= outcome.expect[0].after_us:
            return t_us - since
        if wanted.lease_ms is not None and line.get("lease_until_us"):
            since = t_us
    return None


def run_trial(rig: Rig, row: Row, rng: random.Random, by_hand: Say | None = None) -> Trial:
    """One trial, judged; ``by_hand``: a person injects it and is told when.

    Raises:
        NotHereError: this board cannot suffer this fault.
        UserError: the board went away.
    """
    trace = rig.lines()
    before = len(trace)
    state = next((line["state"] for line in reversed(trace) if "state" in line), None)
    if by_hand is not None and row.hands:
        outcome = inject_board.by_hand(rig, rng, row.hands, by_hand)
    else:
        outcome = INJECTIONS[row.injection](rig, rng, row.given)
    lines = rig.lines()[before:]
    findings = [finding for finding in check(lines, rig.rules, state) if finding.rule not in row.allow]
    for wanted in outcome.expect:
        findings += expected(lines, wanted, rig.rules)
    return Trial(outcome, lines, findings, state)
