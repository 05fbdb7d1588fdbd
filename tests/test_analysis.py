"""What analyses the board's C finds what is broken, and nothing in what is not."""

from __future__ import annotations

import base64
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.build import CORE, sources
from tests.analysis import coverage, misra
from tests.analysis.python_codec import check
from tests.corruption import corrupt, sizes_source
from tests.fuzz.targets import COMPILER, HERE, SMALL, TARGETS, corpus, repack_source, run, unpack


def test_kept_inputs_and_a_short_run_find_nothing(tmp_path: Path) -> None:
    for target in TARGETS:
        outcome = run(target, 2000, 7, tmp_path, sanitized=True)
        assert not outcome.findings
        assert outcome.executions >= 2000
        assert outcome.edges > 100


@pytest.mark.parametrize("target", TARGETS)
def test_a_corpus_is_small_and_without_doubles(target: str, tmp_path: Path) -> None:
    lines = corpus(target).read_text().split()
    assert corpus(target).stat().st_size < 150_000
    assert len(set(lines)) == len(lines)
    kept = [path.read_bytes() for path in unpack(target, tmp_path / "kept").iterdir()]
    assert {base64.b64decode(line) for line in lines} <= set(kept)


def _broken(tmp_path: Path, right: str, wrong: str, program: str, extra: str, *flags: str) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    texts = {path.name: path.read_text() for path in sources(CORE)}
    assert sum(text.count(right) for text in texts.values()) == 1, "the line to break is there, once"
    for name, text in texts.items():
        (source / name).write_text(text.replace(right, wrong))
    (source / "harness_dump.h").write_text(extra)
    made = tmp_path / "program"
    units = [str(HERE / program), *map(str, sorted(source.glob("*.c")))]
    subprocess.run([COMPILER, "-std=c11", "-O1", *flags, "-I", str(source), "-o", str(made), *units], check=True)
    return made


@pytest.mark.parametrize(
    ("target", "right", "wrong", "verdict"),
    [
        ("decoder", "body, size - 4) != sea_get_u32(", "body, size - 4) == 1 + sea_get_u32(", "a wrong CRC"),
        ("decoder", "if (code == 0 || (size_t)(code - 1u) > size - read) {", "if (code == 0) {", ""),
        ("core", "core->now_us + decision->lease_us;", "core->now_us + decision->lease_us + 50000u;", "past the lease"),
    ],
)
def test_a_fuzzer_finds_what_is_broken(target: str, right: str, wrong: str, verdict: str, tmp_path: Path) -> None:
    flags = ("-fsanitize=fuzzer,address", *(SMALL if target == "core" else ()))
    program = _broken(tmp_path, right, wrong, f"{target}.c", repack_source(), *flags)
    kept = unpack(target, tmp_path / "kept")
    command = [str(program), "-runs=200000", "-seed=1", f"-artifact_prefix={tmp_path}/", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode != 0
    assert verdict in done.stdout + done.stderr


def test_damaged_frames_are_counted_and_none_is_accepted() -> None:
    result = corrupt(20_000, 5)
    assert result["corrupted"] == 20_000 == sum(result["kinds"].values())
    assert result["accepted"] == 0
    assert min(result["kinds"].values()) > 1000
    assert min(result["refused_by"][reason] for reason in ("cobs", "size", "crc")) > 100


def test_a_decoder_without_a_crc_accepts_damaged_frames(tmp_path: Path) -> None:
    extra = "#include <stdint.h>\n" + sizes_source()
    right = "body, size - 4) != sea_get_u32(body + size - 4)"
    program = _broken(tmp_path, right, "body, 0) == sea_get_u32(body + size - 4)", "corruption.c", extra)
    assert subprocess.run([str(program), "1000", "1"], capture_output=True, check=False).returncode == 1


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_mean_the_same_to_both_decoders_and_raise_nothing(data: bytes) -> None:
    check(data)


def test_a_rule_that_is_not_written_down_or_too_often_broken_is_a_finding(tmp_path: Path) -> None:
    permitted = next(row for row in misra.deviations() if row.permitted)
    assert permitted.permitted is not None
    assert misra.judge(Counter({permitted.rule: permitted.permitted})) == []
    assert len(misra.judge(Counter({permitted.rule: permitted.permitted + 1, "21.3": 1}))) == 2
    bad = tmp_path / "bad.c"
    bad.write_text(
        "int bad(int a);\nint bad(int a)\n{\n    int b[2] = {0};\n    goto out;\nout:\n    return b[a & 1];\n}\n"
    )
    assert any(line.startswith("15.1 is broken") for line in misra.judge(misra.findings([bad])))
    assert all(len(row.reason) > 20 for row in misra.deviations())


def test_coverage_below_the_mark_is_a_finding() -> None:
    assert coverage.judge(coverage.Coverage(95.0, 95.0, {})) == []
    assert len(coverage.judge(coverage.Coverage(94.9, 94.9, {}))) == 2
