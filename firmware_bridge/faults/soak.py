"""Soak: hours of simulated closed loop on the host board with faults at random times, seeded and replayable.

Between stretches of undisturbed loop a row of the catalogue is chosen, injected and judged. The whole trace is judged
once more at the end, as one piece. The memory of the board's process is compared within each of its lives (a loss of
power starts a new process, which would hide a leak), that of this process from the warm-up on.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.errors import UserError
from firmware_bridge.faults.catalogue import Row, choose
from firmware_bridge.faults.checker import Checker, Finding
from firmware_bridge.faults.driver import Driver
from firmware_bridge.faults.rig import Rig
from firmware_bridge.faults.run import run_trial
from sea_dbs.progress import progress

ROWS = (
    "cable_pulled", "host_stalls", "bit_errors", "broken_frames", "replay", "delay_and_loss", "receiver_overrun",
    "policy_nan", "policy_saturated", "wrong_hash", "sensor", "sample_gap", "artefact", "limit_cycle", "power_loss",
    "electrode_open", "electrode_short", "compliance", "electrode_dead", "charge_left", "stop_always", "memory_flip",
    "dose",
)  # fmt: skip
CALM_US = (2_000_000, 20_000_000)  # undisturbed loop between two faults
COUNTED = ("limit_cycle", "receiver_overrun", "dose")
WINDOW_US = 11_500_000
WARM = 0.1  # share of the time after which this process must not grow any more
GROWTH_BOARD_KB = 16  # of a board's own memory within one life: its stack may still reach a page or two deeper
GROWTH_HOST_KB = 16_000  # of this process, whose allocator keeps what it has had


@dataclass
class Life:
    """One process of the board, from the end of its first stretch to that of its last one."""

    pid: int
    first_kb: int
    last_kb: int
    stretches: int = 1

    @property
    def grown_kb(self) -> int:
        """What its own memory has grown by."""
        return self.last_kb - self.first_kb


@dataclass
class Soak:
    """What came of it."""

    seed: int
    minutes: float
    device_s: float = 0.0
    pulses: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    reactions: Counter[str] = field(default_factory=Counter)  # state and cause, as logged
    violations: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    host_kb: tuple[int, int] = (0, 0)  # when warm and at the end
    last: str = ""  # row
    kept: int = 0  # lines of the trace that were taken already

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "seed": self.seed,
            "minutes": self.minutes,
            "device_s": round(self.device_s, 3),
            "pulses": self.pulses,
            "faults": dict(sorted(self.faults.items())),
            "reactions": dict(sorted(self.reactions.items())),
            "violations": self.violations[:50],
            "problems": self.problems[:50],
            "board_lives": [[life.stretches, life.first_kb, life.last_kb] for life in self.lives],
            "host_kb": list(self.host_kb),
            "leaks": self.leaks,
        }

    @property
    def leaks(self) -> list[str]:
        """Memory that grew more than it may."""
        found = [
            f"board's life {k + 1}: {life.grown_kb:+d} kB in {life.stretches} stretches"
            for k, life in enumerate(self.lives)
            if life.grown_kb > GROWTH_BOARD_KB
        ]
        grown = self.host_kb[1] - self.host_kb[0]
        return [*found, *([f"this process: {grown:+d} kB since it was warm"] if grown > GROWTH_HOST_KB else [])]

    @property
    def good(self) -> bool:
        """Nothing outside the envelope, each fault had its reaction, and no memory was lost."""
        return not self.violations and not self.problems and not self.leaks


def soak(seed: int = 0, minutes: float = 60.0, *, broken: str | None = None) -> Soak:
    """Run it.

    Raises:
        UserError: no compiler, or the length is outside 0.1 to 6,000 minutes.
    """
    if not 0.1 <= minutes <= 6_000:
        raise UserError(f"{minutes} minutes of soak is outside 0.1 to 6000")
    rng = random.Random(f"soak {seed}")
    result = Soak(seed, minutes)
    rows = {row.name: row for row in choose(ROWS)}
    with Rig("host", broken=broken) as rig, progress("soak", int(minutes * 60)) as bar:
        warm = 0
        whole = Checker()
        k, done_s = 0, 0
        while result.device_s < minutes * 60:
            row = rows[rng.choice(ROWS)]
            lived = _stretch(rig, result, row, random.Random(f"soak {seed} {k}"))
            _take(result, rig, whole)
            k += 1
            result.device_s += lived
            _watch(result.lives, rig)
            if not warm and result.device_s >= WARM * minutes * 60:
                warm = _own_kb("self")
            bar.update(int(result.device_s) - done_s, f"{k} faults, {len(result.violations)} violations")
            done_s = int(result.device_s)
        result.host_kb = (warm, _own_kb("self"))
        allowed = {rule for row in rows.values() for rule in row.allow}
        result.violations += [_text(finding) for finding in whole.findings if finding.rule not in allowed]
    return result


def _take(result: Soak, rig: Rig, whole: Checker) -> None:
    """The trace since the last time, judged as part of the whole and then forgotten."""
    new = rig.lines()[result.kept :]
    whole.feed(new)
    result.pulses += sum("pulse" in line for line in new)
    result.reactions.update(f"{line['state']} {line['cause']}" for line in new if "state" in line)
    rig.forget_trace()
    result.kept = len(rig.lines())


def _stretch(rig: Rig, result: Soak, row: Row, rng: random.Random) -> float:
    """Calm, then a fault; seconds of device time."""
    began = rig.now()
    if result.last in COUNTED:
        rig.halt()
        rig.advance(WINDOW_US)  # what the board counts in a rolling window would end the next loop too
    result.last = row.name
    driver = Driver(rig, rng)
    driver.begin()
    driver.drive(rng.randint(*CALM_US))
    lived = rig.now() - began
    restarts = rig.restarts
    middle = rig.now()
    try:
        trial = run_trial(rig, row, rng)
    except UserError as error:
        result.problems.append(f"{row.name}: {error}")
        return lived / 1e6
    result.faults[row.name] += 1
    result.violations += [f"{row.name}: {_text(finding)}" for finding in trial.findings]
    result.problems += [f"{row.name}: {text}" for text in trial.outcome.problems]
    lived += rig.now() if rig.restarts != restarts else rig.now() - middle
    return lived / 1e6


def _text(finding: Finding) -> str:
    return f"{finding.rule} at {finding.t_us} µs: {finding.text}"


def _watch(lives: list[Life], rig: Rig) -> None:
    """The memory of the board's process as it is now, in its life."""
    assert rig.board is not None
    assert rig.board.process is not None
    pid = rig.board.process.pid
    kb = _own_kb(pid)
    if not lives or lives[-1].pid != pid:
        lives.append(Life(pid, kb, kb))
    else:
        lives[-1].last_kb = kb
        lives[-1].stretches += 1


def _own_kb(pid: int | str) -> int:
    """Resident memory of a process that is backed by no file, kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise UserError(f"/proc/{pid}/status has no RssAnon: memory can be watched on Linux alone")
