"""Random frames, noise and time steps against the compiled core, watched by a judge that shares no table with it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_bridge.build import CORE, WARNINGS, sources
from firmware_bridge.images import image_flags, image_sources
from firmware_bridge.targets import TARGETS
from tests.board_tools import HERE, NO_RAMP, compiled

COMPILERS = [name for name in ("gcc", "clang", "clang-14") if shutil.which(name)]
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ROUNDS = 100_000


def run(program: Path, seed: int, rounds: int = ROUNDS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), str(seed), str(rounds)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_random_traffic_leads_outside_the_envelope(compiler: str) -> None:
    program = compiled("fuzz", [HERE / "fuzz.c"], (*WARNINGS, *SANITIZERS), compiler=compiler)
    for seed in (1, 2):
        done = run(program, seed)
        assert done.returncode == 0, done.stdout + done.stderr
        words = done.stdout.split()
        assert int(words[1]) > 1000, "pulses were given"
        assert all(int(visits) > 0 for visits in words[9:15]), f"every state was visited: {done.stdout}"
        assert int(words[16]) > 50, "the board decided"
        assert int(words[18]) > 3, "and its policy failed"
        assert int(words[20]) > 300, "frames were forged and repeated"
        assert int(words[22]) > 30, "sessions were in shadow"


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [
        ("core->now_us + decision->lease_us;", "core->now_us + decision->lease_us + 50000u;", "a pulse past the lease"),
        ("if (lease_at <= now_us && lease_at", "if (false && lease_at", "something due was not done"),
        ("< SEA_SLOT_PERIOD_MIN_US) {", "< 5000u) {", "faster than 185 Hz"),
        ("#define UNBALANCE_UA 0", "#define UNBALANCE_UA 1", "not balanced"),
        ("    lower(verdict, SEA_CLAMP_CHARGE_DENSITY, density / width);\n", "", "charge density above"),
        ("lower(verdict, SEA_CLAMP_RUN_TIME_AMPLITUDE, effective.amplitude_uA);", "", "amplitude outside"),
        (
            "return sea_crc32(0, observation->blob, blob_size(core)) == observation->crc;",
            "return true;",
            "another observation",
        ),
        ("if (!is_number(pair[0]) ||", "if (false &&", "not finite was taken"),
        (
            "    if (observation->whole) {\n        return (sea_verdict_t)",
            "    if (false) {\n        return (sea_verdict_t)",
            "changed while",
        ),
        ("if (pair[1] > pair[0]) {", "if (pair[1] >= pair[0]) {", "another observation"),
        ("const uint8_t after = ", "const uint8_t after = before == 5 && event == 5 ? 1 : ", "SAFE_OFF was left"),
    ],
)
def test_the_judge_catches_a_broken_core(right: str, wrong: str, verdict: str, tmp_path: Path) -> None:
    done = run_broken(right, wrong, tmp_path, *NO_RAMP)
    assert done.returncode == 1
    assert verdict in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [
        ("smaller(elapsed, SEA_RAMP_UP_UA_S,", "smaller(elapsed, SEA_RAMP_UP_UA_S + 1,", "a pulse above the ramp"),
        (".energy_aJ += energy_aJ(", ".energy_aJ += 0 * energy_aJ(", "the mean power is above its cap"),
        ("return complies(limits, (uint64_t)amp", "return complies(limits, 0 * amp", "that the stimulator cannot give"),
        ("sea_auth_check(&core->auth, SEA_FROM_HOST,", "true || sea_auth_check(&core->auth, SEA_FROM_HOST,", "forged"),
        ("if (frame->sequence <= core->rx_sequence) {", "if (false) {", "repeated frame was answered"),
        (
            "sea_equal(right, tag, sizeof right);\n}\n\nvoid sea_auth_release",
            "true;\n}\n\nvoid sea_auth_release",
            "forged",
        ),
        ("given->residual_pC > (int32_t)SEA_RESIDUAL_MAX_PC ||", "false ||", "did not lead to SAFE_OFF"),
    ],
)
def test_the_judge_catches_a_broken_core_with_its_ramp(right: str, wrong: str, verdict: str, tmp_path: Path) -> None:
    done = run_broken(right, wrong, tmp_path)
    assert done.returncode == 1
    assert verdict in done.stdout


def run_broken(right: str, wrong: str, tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    texts = {path.name: path.read_text() for path in sources(CORE)}
    assert sum(text.count(right) for text in texts.values()) == 1, "the line to break is there, once"
    for name, text in texts.items():
        (tmp_path / name).write_text(text.replace(right, wrong))
    program = tmp_path / "fuzz"
    units = [str(HERE / "fuzz.c"), *map(str, sorted(tmp_path.glob("*.c")))]
    subprocess.run(
        [COMPILERS[0], "-std=c11", "-O1", *flags, "-I", str(tmp_path), "-o", str(program), *units], check=True
    )
    return run(program, 1, 10 * ROUNDS)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_the_core_compiles_cleanly_and_stands_alone(compiler: str, level: str, tmp_path: Path) -> None:
    objects = []
    for path in sources(CORE):
        if path.suffix == ".c":
            objects.append(str(tmp_path / f"{path.stem}.o"))
            command = [compiler, *WARNINGS, level, "-ffreestanding", "-c", "-o", objects[-1], str(path)]
            subprocess.run(command, check=True)
    joined = str(tmp_path / "core.o")
    subprocess.run(["ld", "-r", "-o", joined, *objects], check=True)
    missing = subprocess.run(["nm", "-u", joined], check=True, capture_output=True, text=True).stdout.split()
    # a freestanding compiler may call these four, and nothing else is asked of a port's libc
    assert {name for name in missing if name != "U"} <= {"memcpy", "memset", "memmove", "memcmp"}
    writable = subprocess.run(["size", "-A", joined], check=True, capture_output=True, text=True).stdout
    sizes = {line.split()[0]: int(line.split()[1]) for line in writable.splitlines() if line.startswith(".")}
    assert sizes.get(".data", 0) == sizes.get(".bss", 0) == 0, "no globals"


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_host_port_compiles_cleanly(compiler: str, tmp_path: Path) -> None:
    host = TARGETS["host"]
    units = [str(path) for path in image_sources(host) if path.suffix == ".c"]
    subprocess.run([compiler, *image_flags(host, None), "-o", str(tmp_path / "board"), *units], check=True)
