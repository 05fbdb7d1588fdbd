"""What the soak is made of: commands with their full counts, and how their results are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EMULATED = ("qemu-m4f", "qemu-m7", "qemu-m55")
Said = list[Any]  # the JSON values that a command wrote, one after another


@dataclass(frozen=True)
class Part:
    """Commands, and how their results are read."""

    name: str
    what: str
    limit: str
    commands: tuple[tuple[str, ...], ...]  # arguments of this interpreter, each with its share of the count
    read: Callable[[Said], tuple[str, str]]  # count, result


def _cli(*words: str) -> tuple[str, ...]:
    return ("-m", "sea_dbs.cli", *words)


def _kills(said: Said) -> tuple[str, str]:
    [row] = said[0]["rows"]
    return f"{row['trials']:,} kills", f"{row['passed']:,} of {row['trials']:,}"


def _fuzz(said: Said) -> tuple[str, str]:
    runs = sum(entry["executions"] for entry in said)
    found = sum(len(entry["findings"]) for entry in said)
    edges = max(entry["edges"] for entry in said)
    return f"{runs:,} executions", f"{found} findings; {edges} edges"


def _corruption(said: Said) -> tuple[str, str]:
    return f"{said[0]['corrupted']:,} frames", f"{said[0]['accepted']} accepted"


def _attack(said: Said) -> tuple[str, str]:
    entry = said[0]
    kinds = entry.get("kinds") or {kind: entry[kind] for kind in ("forged", "replayed", "reordered")}
    each = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    return f"{entry['sent']:,} frames ({each})", f"{entry['applied']} applied"


def _soak(said: Said) -> tuple[str, str]:
    entry = said[0]
    count = f"{entry['device_s'] / 60:.0f} min, {sum(entry['faults'].values())} faults, {entry['pulses']:,} pulses"
    judged = f"{len(entry['violations'])} violations, {len(entry['problems'])} reactions missed"
    if "board_lives" not in entry:  # of an older commit, which looked across the board's lives
        return count, f"{judged}; memory not judged"
    lives, own = entry["board_lives"], entry["host_kb"][1] - entry["host_kb"][0]
    grown = max(last - first for _, first, last in lives)
    memory = f"memory: board {grown:+d} kB at most within one of {len(lives)} lives, host {own:+d} kB"
    return count, f"{judged}; {memory}"


def _clock(said: Said) -> tuple[str, str]:
    [row] = said[0]["rows"]
    worst = max(trial["worst_us"] for trial in row["said"])
    return f"{row['trials']} hours of up to ±200 ppm", f"offset at most {worst} µs wrong"


def parts(scale: float = 1.0) -> tuple[Part, ...]:
    """Every part; ``scale`` < 1 takes that share of each count."""

    def n(count: int) -> str:
        return str(max(1, round(count * scale)))

    def kills(board: str, count: int) -> Part:
        words = ("faults", "--board", board, "--rows", "host_killed", "--trials", n(count), "--json")
        return Part(
            f"kills-{board}",
            f"host killed (SIGKILL) amid its renewals, {board}",
            "FALLBACK and last ordered pulse <= lease + 20 ms, then nothing above the ramp, each time",
            (_cli(*words),),
            _kills,
        )

    def attack(name: str, where: str, count: int, *more: str) -> Part:
        command = ("-m", "tests.security_attack", n(count), *more)
        return Part(name, f"forged, replayed, reordered frames, {where}", "0 applied", (command,), _attack)

    def fuzz(target: str, count: int, shares: int) -> Part:
        words = (
            "-m",
            "tests.fuzz",
            "--target",
            target,
            "--runs",
            n(count // shares),
            "--plain",
            "--jobs",
            "2",
            "--json",
        )
        commands = tuple((*words, "--seed", str(2 * k + 1)) for k in range(shares))
        return Part(f"fuzz-{target}", f"libFuzzer, {target}", "0 findings", commands, _fuzz)

    return (
        kills("host", 1_000),
        *(kills(board, 100) for board in EMULATED),
        Part(
            "corruption",
            "random corruptions of whole frames, C decoder",
            "0 accepted",
            (("-m", "tests.corruption", n(10_000_000), "--json"),),
            _corruption,
        ),
        fuzz("decoder", 97_000_000, 50),
        fuzz("core", 3_000_000, 10),
        attack("attack", "C core in process", 1_000_000),
        *(attack(f"attack-{board}", board, 1_000, "--board", board) for board in ("host", *EMULATED)),
        Part(
            "soak",
            "simulated closed loop with randomised faults, host board",
            "nothing outside the envelope, each fault's reaction, no leak",
            (_cli("soak", "--minutes", str(max(0.1, 60 * scale)), "--seed", "1", "--json"),),
            _soak,
        ),
        Part(
            "clock",
            "clocks of host and board drift apart (simulated)",
            "offset < 2 ms",
            (_cli("faults", "--rows", "clock", "--trials", n(2), "--json"),),
            _clock,
        ),
    )
