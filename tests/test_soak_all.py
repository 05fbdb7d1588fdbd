"""The soak in one command: small counts, killed amid its work, gone on with, and written down."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import soak_all, soak_parts

SMALL = ["--scale", "0.00003"]


def call(folder: Path, *more: str) -> list[str]:
    return [*SMALL, "--out", str(folder / "kept"), "--docs", str(folder), *more]


def test_every_part_names_its_command() -> None:
    parts = soak_parts.parts()
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    assert {f"kills-{board}" for board in ("host", *soak_parts.EMULATED)} <= set(names)
    counts = {part.name: part.commands[0] for part in parts}
    assert counts["kills-host"][-2] == "1000"
    assert counts["kills-qemu-m55"][-2] == "100"
    assert "10000000" in counts["corruption"]
    assert counts["attack"][-1] == "1000000"
    fuzz = [command for part in parts if part.name.startswith("fuzz") for command in part.commands]
    assert sum(int(command[command.index("--runs") + 1]) for command in fuzz) >= 10**8
    assert len(set(fuzz)) == len(fuzz), "each share has seeds of its own"
    assert counts["soak"][3:5] == ("--minutes", "60.0")


def test_a_killed_soak_goes_on_and_writes_its_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak_all", *call(tmp_path, "--parts", "attack,kills-host")]
    process = subprocess.Popen(command, cwd=soak_all.ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "kept" / "kills-host.json").exists() and time.monotonic() < end:
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    first = (tmp_path / "kept" / "kills-host.json").read_bytes()
    assert soak_all.main(call(tmp_path, "--parts", "attack,kills-host")) == 0
    assert (tmp_path / "kept" / "kills-host.json").read_bytes() == first, "not run again"
    page = (tmp_path / "SOAK.md").read_text()
    assert "| 1 kills | 1 of 1 | pass |" in page
    assert "| 0 applied | 3" in page
    assert "not run yet" in page
    said = json.loads((tmp_path / "soak.json").read_text())
    assert set(said) == {"attack", "kills-host"}
    assert said["kills-host"]["commits"][0] in page


def test_a_part_that_fails_is_said_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "part.py"
    twice = ((str(script), "1"), (str(script), "2"))
    good = soak_parts.Part("one", "one thing", "none", twice, lambda said: (str(sum(x["n"] for x in said)), "0 found"))
    monkeypatch.setattr(soak_all, "parts", lambda scale: (good,))
    script.write_text("import sys; print('{\"n\": 2}') if sys.argv[1] == '1' else sys.exit('it broke')")
    assert soak_all.main(call(tmp_path)) == 1
    assert "| 2 | 0 found; it broke | **FAIL** |" in (tmp_path / "SOAK.md").read_text()
    script.write_text("""print('{"n": 3}')""")
    assert soak_all.main(call(tmp_path)) == 0
    assert "| 5 | 0 found | pass |" in (tmp_path / "SOAK.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--parts", "nothing"], "there is no part 'nothing' of the soak"), (["--scale", "2"], "outside 0 to 1"),
     (["--scale", "0.1"], "small counts into docs/")],
)  # fmt: skip
def test_wrong_arguments_are_one_sentence(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert soak_all.main([*arguments, "--out", str(tmp_path)]) == 2
    assert text in capsys.readouterr().err


def test_a_part_run_in_another_checkout_keeps_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "part.py"
    script.write_text("""import sys; print('{"n": ' + sys.argv[1] + '}')""")
    one, two = (
        soak_parts.Part(name, f"{name} thing", "none", ((str(script), n),), lambda said: (str(said[0]["n"]), "0 found"))
        for name, n in (("first", "4"), ("second", "7"))
    )
    monkeypatch.setattr(soak_all, "parts", lambda scale: (one, two))
    assert soak_all.main(call(tmp_path, "--parts", "first")) == 0
    shutil.rmtree(tmp_path / "kept")  # a new clone has the page, not what it was made of
    assert soak_all.main(call(tmp_path, "--parts", "second")) == 0
    page = (tmp_path / "SOAK.md").read_text()
    assert "| 4 | 0 found | pass |" in page
    assert "| 7 | 0 found | pass |" in page
    other = dataclasses.replace(one, commands=((str(script), "5"),))
    monkeypatch.setattr(soak_all, "parts", lambda scale: (other, two))
    assert soak_all.main(call(tmp_path, "--parts", "second")) == 0
    assert "| first thing | none | not run yet |" in (tmp_path / "SOAK.md").read_text(), "it was of another command"
