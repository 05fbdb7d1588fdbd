"""The fault catalogue as it is run: on the host board, on an emulated one, and on boards that are broken on purpose."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from envs.errors import UserError
from firmware_bridge.faults import link as faulty
from firmware_bridge.faults.catalogue import choose, load
from firmware_bridge.faults.docs import BEGIN, END, PAGE, write_docs
from firmware_bridge.faults.outcome import INJECTIONS
from firmware_bridge.faults.rig import Rig
from firmware_bridge.faults.run import ABSENT, FAIL, PASS, RowResult, Settings, run_rows, run_trial
from firmware_bridge.faults.soak import ROWS, Life, Soak, soak
from firmware_bridge.faults.tables import head
from firmware_bridge.images import FixedSetting
from firmware_bridge.links import LoopbackLink
from sea_dbs.cli.app import app

SLOW = {"clock"}  # an hour of simulated time


def verdicts(results: list[RowResult]) -> dict[str, str]:
    return {result.row.name: result.verdict for result in results}


def test_the_catalogue_is_whole() -> None:
    rows = load()
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) >= 25
    assert {row.injection for row in rows} == INJECTIONS.keys(), "each injection is used, each row has one"
    assert set(ROWS) <= set(names)
    for row in rows:
        assert 1 <= row.trials["qemu"] <= row.full["qemu"], row.name
        assert 1 <= row.trials["host"] <= row.full["host"], row.name
    assert choose(["replay", "host_killed"])[0].name == "host_killed", "in the catalogue's order"
    with pytest.raises(UserError, match="no row 'nothing' in the fault catalogue"):
        choose(["nothing"])


def test_every_row_passes_on_the_host_board() -> None:
    rows = [row for row in load() if row.name not in SLOW]
    results = run_rows(rows, Settings("host", trials=1, seed=3))
    wrong = {result.row.name: result.problems[:2] for result in results if result.verdict == FAIL}
    assert wrong == {}
    absent = {name for name, verdict in verdicts(results).items() if verdict == ABSENT}
    assert absent <= {"firmware_hangs", "memory_flip"}, "what this board cannot suffer says so"
    assert sum(result.pulses for result in results) > 300


@pytest.mark.parametrize(("broken", "rule"), [("ramp", "ramp"), ("lease", "lease"), ("balance", "balance")])
def test_a_broken_board_is_caught(broken: str, rule: str) -> None:
    """A checker that cannot fail is worthless."""
    [result] = run_rows(choose(["cable_pulled"]), Settings("host", trials=1, broken=broken))
    assert result.verdict == FAIL
    assert any(f": {rule} at " in problem for problem in result.problems), result.problems


def test_a_setting_that_nobody_approved_is_caught() -> None:
    """The board was built with another setting for FALLBACK than the one that was approved."""
    [row] = choose(["fallback_setting"])
    with Rig("host", fixed=FixedSetting(500, 90, 15_000)) as rig:
        rig.rules["fallback_setting"] = row.setting
        trial = run_trial(rig, row, random.Random(1))
    texts = [finding.text for finding in trial.findings]
    assert {finding.rule for finding in trial.findings} == {"fallback", "ramp"}
    assert any("90/90 µs in FALLBACK, not 60 µs" in text for text in texts)
    assert any("15000 µs after the last pulse, not 20000 µs" in text for text in texts)


def test_several_boards_at_a_time() -> None:
    rows = choose(["cable_pulled"])
    once = run_rows(rows, Settings("host", trials=4, seed=1, jobs=1))[0]
    at_once = run_rows(rows, Settings("host", trials=4, seed=1, jobs=2))[0]
    assert (at_once.verdict, at_once.trials, at_once.passed) == (PASS, 4, 4)
    assert sorted(at_once.reaction_ms) == pytest.approx(sorted(once.reaction_ms), abs=0.001)


def test_a_lost_host_on_an_emulated_board() -> None:
    [result] = run_rows(choose(["cable_pulled"]), Settings("qemu-m4f", trials=1))
    assert (result.verdict, result.passed) == (PASS, 1), result.problems
    assert 0 < max(result.reaction_ms) <= 320


def test_faults_are_replayable() -> None:
    rows = choose(["delay_and_loss", "stop_always"])
    once, again = (run_rows(rows, Settings("host", trials=2, seed=5)) for _ in range(2))
    assert [result.said for result in once] == [result.said for result in again]
    assert [result.pulses for result in once] == [result.pulses for result in again]


def test_a_short_soak_is_quiet_and_replayable() -> None:
    once, again = soak(7, 0.7), soak(7, 0.7)
    assert once.good, (once.violations, once.problems)
    assert (once.faults, once.pulses) == (again.faults, again.pulses)
    assert once.pulses > 300
    assert sum(life.stretches for life in once.lives) == sum(once.faults.values())
    assert all(life.first_kb > 0 for life in once.lives)
    assert not soak(7, 0.2, broken="ramp").good
    with pytest.raises(UserError, match=r"outside 0\.1 to 6000"):
        soak(0, 0)


def test_a_leak_is_found_within_a_life_of_the_board_and_not_between_two() -> None:
    result = Soak(0, 1.0, lives=[Life(1, 116, 116, 9), Life(2, 500, 504, 5)], host_kb=(40_000, 42_000))
    assert result.good
    result.lives[0].last_kb = 160
    result.host_kb = (40_000, 90_000)
    assert result.leaks == ["board's life 1: +44 kB in 9 stretches", "this process: +50000 kB since it was warm"]
    assert not result.good


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "faults"
    done = CliRunner().invoke(app, ["faults", "--rows", "stop_always", "--trials", "1", "--json", "--out", str(out)])
    assert done.exit_code == 0, done.output
    said = json.loads((out / "faults.json").read_text())
    assert [(row["name"], row["verdict"]) for row in said["rows"]] == [("stop_always", "pass")]
    assert "| stop_always | STOP from somebody" in (out / "faults.md").read_text()
    assert (out / "stop_always.png").read_bytes().startswith(b"\x89PNG")
    listed = CliRunner().invoke(app, ["faults", "--list"])
    assert listed.output.count("\n") == len(load())
    assert "electrode_open" in listed.output
    assert "[hands]" in listed.output
    failed = CliRunner().invoke(app, ["faults", "--rows", "cable_pulled", "--trials", "1", "--broken", "balance"])
    assert failed.exit_code == 1
    assert "**FAIL**" in failed.output


def test_the_injector_damages_as_it_says() -> None:
    came: list[bytes] = []

    def board(data: bytes) -> bytes:
        came.append(data)
        return b"answer"

    link = faulty.FaultyLink(LoopbackLink(board))
    now = 0
    link.now_us = lambda: now
    link.write(b"a")
    link.out = faulty.twice
    link.write(b"b")
    link.out = faulty.swap()
    link.write(b"c")
    link.write(b"d")
    link.out = faulty.delay(random.Random(1), 5_000, 5_000)
    link.write(b"e")
    assert came == [b"a", b"b", b"b", b"d", b"c"]
    link.release(4_999)
    assert len(came) == 5
    link.release(5_000)
    assert came[-1] == b"e"
    link.cut = True
    link.write(b"f")
    assert came[-1] == b"e"
    assert link.read(0) == b"", "nor does anything come back"
    assert link.sent == [b"a", b"b", b"c", b"d", b"e", b"f"]


@pytest.mark.parametrize("rate", [1e-3, 1e-2])
def test_bits_flip_at_the_rate_asked_for(rate: float) -> None:
    flip = faulty.flip_bits(random.Random(2), rate)
    data = bytes(100_000)
    flipped = sum(byte.bit_count() for byte in flip(data))
    assert flipped == pytest.approx(rate * 8 * len(data), rel=0.1)


def test_the_docs_table_is_written_by_the_command(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text(f"before\n{BEGIN}\nof yesterday\n{END}\nafter\n")
    rows = choose(["stop_always", "cable_pulled"])
    settings = Settings("host", trials=2)
    write_docs(tmp_path, run_rows(rows, settings), head(settings))
    again = Settings("host", trials=1, broken="balance")
    write_docs(tmp_path, run_rows(rows[:1], again), head(again, "cable_pulled"))
    page = (tmp_path / PAGE).read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "of yesterday" not in page
    assert "| **FAIL** 0/1 |" in page
    assert "| 2/2, 0 ms |" in page, "the row that was not run again stands as it was"
    assert "--broken balance`" in page
    assert "(cable_pulled)" in page, "its own command and commit beside it"
    (tmp_path / PAGE).write_text("no place\n")
    done = CliRunner().invoke(app, ["faults", "--rows", "stop_always", "--write-docs", str(tmp_path)])
    assert isinstance(done.exception, UserError)
