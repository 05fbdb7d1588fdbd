"""The policy bench: a generated sea_policy.c run alone over many observations, on this machine or an emulated core.

Gives the logits bit for bit, and what a decision costs. Instructions are counted, not cycles: under ``-icount`` QEMU's
virtual clock advances by a fixed time for each instruction of the core, SysTick reads that clock around ``infer``, and
the same reading around an empty function is subtracted. On the host callgrind counts them.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from firmware_bridge import guard
from firmware_bridge.build import CORE, FIRMWARE, WARNINGS
from firmware_bridge.images import BARE_FLAGS, LINK_FLAGS, check_fits, run_compiler, table_bytes
from firmware_bridge.targets import CORTEX_M, PORTS, Target, find_target, qemu
from sea_dbs.progress import progress

BENCH = PORTS / "policy-bench"
HOST_TARGETS = ("host-gcc-O0", "host-gcc-O3", "host-clang-O0", "host-clang-O3")
EMULATED = ("qemu-m4f", "qemu-m7", "qemu-m55")
COUNTED = 32  # observations whose instructions are counted
ICOUNT_SHIFT = 7  # 128 ns of virtual time an instruction: 3.2 ticks of SysTick at 25 MHz, so that counts are exact
STUCK_S = 120.0  # host time without a further decision
_HEAD = struct.Struct("<IIII")
_COST = struct.Struct("<III")
_EXITS = {2: "cannot read or write its files", 3: "takes observations of another size"}


class PolicyRun(NamedTuple):
    """What a run gave."""

    logits: NDArray[np.int32]  # (n, slots, 2)
    instructions: float | None  # per decision, mean of the first `COUNTED`; None on a host (see `callgrind`)
    stack_bytes: int  # high-water mark below the caller of infer


def run_policy(
    target: str, policy_c: Path, observations: NDArray[np.int8], *, reset_every: int = 0, quiet: bool = False
) -> PolicyRun:
    """Run a policy over observations (n, n_obs), in order.

    Args:
        target: one of `HOST_TARGETS` or `EMULATED`.
        policy_c: the generated source.
        observations: int8, as the policy takes them.
        reset_every: clear the recurrent state before each of these; 0: only before the first.
        quiet: without a progress bar.

    Raises:
        UserError: an unknown target, a missing tool, observations of another size, or a policy that does not compile,
            does not fit or does not end.
    """
    if observations.dtype != np.int8 or observations.ndim != 2 or len(observations) == 0:
        raise UserError(f"observations are int8 (n, n_obs), not {observations.dtype} {observations.shape}")
    with tempfile.TemporaryDirectory(prefix="sea-bench-") as name:
        folder = Path(name)
        if target in HOST_TARGETS:
            program = _host_program(target, policy_c, folder)
            _write(folder, observations, reset_every, counted=0)
            _run([str(program)], folder, target, len(observations), quiet)
            return PolicyRun(*_read(folder, len(observations)))
        if target not in EMULATED:
            raise UserError(f"there is no target '{target}': choose one of {', '.join((*HOST_TARGETS, *EMULATED))}")
        board = find_target(target)
        check_fits(target, *table_bytes(policy_c.read_text()))
        program = _bare_program(board, policy_c, folder)
        few = observations[:COUNTED]
        _write(folder, few, reset_every, counted=len(few))
        _run(_emulate(board, program, count=True), folder, target, len(few), quiet=True)
        logits, _, stack_bytes = _read(folder, len(few))
        instructions = _instructions(folder, board)
        if len(observations) > len(few):
            _write(folder, observations, reset_every, counted=0)
            _run(_emulate(board, program, count=False), folder, target, len(observations), quiet)
            logits = _read(folder, len(observations))[0]
        return PolicyRun(logits, instructions, stack_bytes)


def callgrind(policy_c: Path, observations: NDArray[np.int8], *, level: str = "-O3") -> float:
    """Instructions per decision on this machine, counted by callgrind inside ``infer`` (and a call to it), gcc.

    Raises:
        UserError: valgrind or gcc is missing, or the run failed.
    """
    valgrind = _tool("valgrind", "apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="sea-bench-") as name:
        folder = Path(name)
        program = _host_program(f"host-gcc{level}", policy_c, folder)
        _write(folder, observations, 0, counted=0)
        counting = ["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=sea_bench_infer"]
        command = [valgrind, "-q", *counting, "--callgrind-out-file=callgrind.out", str(program), "no-stack"]
        _run(command, folder, "valgrind", len(observations), quiet=True)
        found = re.search(r"^(?:totals|summary): (\d+)", (folder / "callgrind.out").read_text(), re.M)
        if found is None:
            raise UserError("callgrind counted nothing: its output has no totals")
        return int(found[1]) / len(observations)


def check_tools(targets: Sequence[str]) -> None:
    """Whether every tool of some targets is here, asked before hours of work.

    Raises:
        UserError: the first that is not, with the line that installs it.
    """
    if any(target in HOST_TARGETS for target in targets):
        _tool("gcc", "apt-get install gcc libc6-dev")
        _clang()
        _tool("valgrind", "apt-get install valgrind")
    for target in targets:
        if target in EMULATED:
            find_target(target).compiler()
            qemu()


def _clang() -> str:
    return shutil.which("clang") or _tool("clang-14", "apt-get install clang-14")


def _tool(name: str, apt: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UserError(f"{name} was not found: on Debian '{apt}'")
    return found


def _host_program(target: str, policy_c: Path, folder: Path) -> Path:
    _, family, level = target.split("-")
    compiler = _tool("gcc", "apt-get install gcc libc6-dev") if family == "gcc" else _clang()
    flags = [*WARNINGS, f"-{level}", "-ffp-contract=off", "-I", str(CORE), "-I", str(BENCH)]
    program = folder / "bench"
    run_compiler(compiler, [*flags, "-o", str(program), str(BENCH / "host.c"), str(policy_c)], f"the policy ({target})")
    return program


def _bare_program(board: Target, policy_c: Path, folder: Path) -> Path:
    flags = [*WARNINGS, *board.flags, *BARE_FLAGS, *LINK_FLAGS, f"-ffile-prefix-map={FIRMWARE}=."]
    flags += ["-T", str(board.folder / "link.ld"), "-L", str(CORTEX_M)]
    for include in (CORE, BENCH, *board.folders):
        flags += ["-I", str(include)]
    program = folder / "bench.elf"
    units = [str(BENCH / "bare.c"), str(CORTEX_M / "startup.c"), str(policy_c)]
    run_compiler(board.compiler(), [*flags, "-o", str(program), *units], f"the policy for {board.name}")
    return program


def _emulate(board: Target, program: Path, *, count: bool) -> list[str]:
    assert board.machine is not None
    command = [qemu(), "-M", board.machine, "-kernel", str(program), "-display", "none", "-monitor", "none"]
    command += ["-serial", "null", "-net", "none", "-semihosting-config", "enable=on,target=native"]
    return [*command, *(("-icount", f"shift={ICOUNT_SHIFT},align=off,sleep=off") if count else ())]


def _write(folder: Path, observations: NDArray[np.int8], reset_every: int, *, counted: int) -> None:
    head = _HEAD.pack(len(observations), observations.shape[1], reset_every, counted)
    (folder / "bench.in").write_bytes(head + np.ascontiguousarray(observations).tobytes())
    for name in ("bench.out", "bench.cost"):
        (folder / name).unlink(missing_ok=True)


def _run(command: Sequence[str], folder: Path, target: str, count: int, quiet: bool) -> None:
    """Run the bench in its folder, under the guard: nothing is left behind. Progress is read from its output."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, *command],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    out, cost = folder / "bench.out", folder / "bench.cost"
    done, moved = 0, time.monotonic()
    try:
        with progress(f"policy on {target}", count, quiet=quiet) as bar:
            while process.poll() is None:
                time.sleep(0.02)
                now = done
                if cost.exists() and cost.stat().st_size >= _COST.size and out.exists():
                    now = out.stat().st_size // (8 * _COST.unpack(cost.read_bytes()[: _COST.size])[1])
                if now > done:
                    bar.update(now - done)
                    done, moved = now, time.monotonic()
                elif time.monotonic() - moved > STUCK_S:
                    raise UserError(
                        f"the policy on {target} made no decision for {STUCK_S:g} s, after {done} of {count}"
                    )
            if count > done:
                bar.update(count - done)
    finally:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.close()
        process.wait()
        said = process.stderr.read().decode(errors="replace").splitlines()
        process.stderr.close()
    if process.returncode:
        why = _EXITS.get(process.returncode, f"ended with code {process.returncode}: {said[-1] if said else ''}")
        raise UserError(f"the policy on {target} {why}")


def _read(folder: Path, count: int) -> tuple[NDArray[np.int32], None, int]:
    _, slots, stack_bytes = _COST.unpack((folder / "bench.cost").read_bytes()[: _COST.size])
    logits = np.fromfile(folder / "bench.out", "<i4")
    if logits.size != count * slots * 2:
        raise UserError(f"the policy bench gave {logits.size} logits instead of {count * slots * 2}")
    return logits.astype(np.int32).reshape(count, slots, 2), None, int(stack_bytes)


def _instructions(folder: Path, board: Target) -> float:
    """Mean instructions of ``infer``: ticks to instructions, those of calling nothing subtracted."""
    spent = np.frombuffer((folder / "bench.cost").read_bytes()[_COST.size :], "<u8").reshape(-1, 2)
    ticks_an_instruction = board.cpu_hz * 2**ICOUNT_SHIFT * 1e-9
    return float((np.rint(spent[:, 0] / ticks_an_instruction) - np.rint(spent[:, 1] / ticks_an_instruction)).mean())
