"""Soak: hours of simulated closed loop on the host board with faults at random times, seeded and replayable.

Between stretches of undisturbed loop a row of the catalogue is chosen, injected and judged. The whole trace is judged
once more at the end, as one piece. The memory of the board's process and of this one is watched.
"""

from __future__ import annotations

import random
import resource
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
WARM = 0.1  # share of the time after which memory must not grow any more
PAGE_KB = resource.getpagesize() // 1024


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
    board_kb: tuple[int, int] = (0, 0)  # resident memory when warm and at the end
    host_kb: tuple[int, int] = (0, 0)
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
            "board_kb": list(self.board_kb),
            "host_kb": list(self.host_kb),
        }

    @property
    def good(self) -> bool:
        """Nothing outside the envelope, and each fault had its reaction."""
        return not self.violations and not self.problems


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
        warm = (0, 0)
        whole = Checker()
        k, done_s = 0, 0
        while result.device_s < minutes * 60:
            row = rows[rng.choice(ROWS)]
            lived = _stretch(rig, result, row, random.Random(f"soak {seed} {k}"))
            _take(result, rig, whole)
            k += 1
            result.device_s += lived
            if not warm[0] and result.device_s >= WARM * minutes * 60:
                warm = _memory(rig)
            bar.update(int(result.device_s) - done_s, f"{k} faults, {len(result.violations)} violations")
            done_s = int(result.device_s)
        end = _memory(rig)
        result.board_kb, result.host_kb = (warm[0], end[0]), (warm[1], end[1])
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


def _memory(rig: Rig) -> tuple[int, int]:
    """Resident memory of the board's process and of this one, kB."""

    def resident(pid: int | str) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KB

    assert rig.board is not None
    assert rig.board.process is not None
    return resident(rig.board.process.pid), resident("self")
