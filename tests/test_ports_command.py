"""``sea-dbs board`` for emulated boards: what it prints, how it ends, and that no emulator is ever left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_bridge.bench import Bench
from firmware_bridge.board import find_board, running_boards
from firmware_bridge.client import BoardClient
from firmware_bridge.links import SerialLink
from tests.ports_tools import wait_for
from tests.test_board_process import is_running, read_log

CLI = [sys.executable, "-c", "from sea_dbs.cli import main; main()", "board"]


@pytest.fixture(autouse=True)
def _own_boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the boards of other tests nothing is seen: one could get the pseudo-terminal that has just become free."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def children(pid: int) -> list[int]:
    """Processes started by a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def emulator(launcher: int) -> tuple[int, int]:
    """(guard, QEMU) below a launcher."""
    (guard,) = children(launcher)
    (qemu,) = children(guard)
    return guard, qemu


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CLI, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_port_and_runs_until_told_to_end(ending: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "electrode.jsonl"
    with start("qemu-m4f", "--electrode-log", log) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert process.stdout.readline().strip() == f"electrode {find_board(port).electrode}"
        assert find_board(port).kind == "qemu-m4f"
        with BoardClient(SerialLink(port)) as client, Bench(find_board(port).electrode, stepped=True) as bench:
            assert not bench.stepped, "an emulated board keeps its own time"
            client.hello()
        _, qemu = emulator(process.pid)
        process.send_signal(ending)
        assert process.wait(20) == 0
    assert not is_running(qemu)
    assert port not in [ports.port for ports in running_boards()]
    assert [line["state"] for line in read_log(log)] == ["IDLE", "OFF"]


@pytest.mark.parametrize("victim", ["launcher", "guard"])
def test_no_emulator_outlives_its_starter(victim: str) -> None:
    with start("qemu-m4f") as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        guard, qemu = emulator(process.pid)
        os.kill(process.pid if victim == "launcher" else guard, signal.SIGKILL)
        wait_for(lambda: not is_running(qemu) and not is_running(guard), "the emulator to end")
        process.wait(20)
        assert process.stderr is not None
        said = process.stderr.read()
    if victim == "guard":
        assert process.returncode == 2
        assert re.fullmatch(r"sea-dbs: the emulator of qemu-m4f ended by itself \(exit code -9\)\n", said)
    assert port not in [ports.port for ports in running_boards()]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["qemu-m4f", "--policy", "nowhere"], "nowhere is no export folder"),
        (["qemu-m55", "--electrode-log", "/nonexistent/log"], "cannot write /nonexistent/log"),
        (["build", "uno", "--out", "x"], "there is no board 'uno'"),
    ],
)
def test_what_cannot_start_says_why_in_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(rf"sea-dbs: .*{sentence}.*\n", done.stderr), done.stderr


def test_build_writes_an_image_to_flash(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CLI, "build", "nucleo-f446re", "--out", str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert re.search(r"sea-board.bin: \d+ bytes of flash, \d+ of RAM", done.stdout)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sea-board.elf", "sea-board.bin", "image.json"}
