"""The board as a process: clocks, kills, command line, and what is said when something is wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envs.errors import UserError
from firmware_bridge.bench import Bench
from firmware_bridge.board import HostBoard, find_board, running_boards, runtime_dir
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import State
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import Ack, StatusRequest
from tests.board_tools import NONCE, rig

HERE = Path(__file__).parent
LEASE_US, MARGIN_US = 300_000, 20_000


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def read_log(path: Path) -> list[dict[str, Any]]:
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill_a_host(log: Path, *arguments: str) -> list[dict[str, Any]]:
    """Start a host, kill it -9 amid its renewals, wait for FALLBACK; the log's lines from this host on."""
    before = len(read_log(log))
    host = subprocess.Popen(
        [sys.executable, str(HERE / "board_host.py"), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    for _ in range(4):
        assert host.stdout.readline() == "renewed\n"
    host.kill()
    host.wait()
    host.stdout.close()
    wait_for(lambda: any(e.get("state") == "FALLBACK" for e in read_log(log)[before:]), "FALLBACK")
    return read_log(log)[before:]


def check_lost_host(lines: list[dict[str, Any]]) -> None:
    """No pulse later than the last renewal + lease + 20 ms, and FALLBACK entered by then, all in device time."""
    last_renewal = max(e["t_us"] for e in lines if e.get("lease_until_us"))
    pulses = [e["t_us"] for e in lines if "pulse" in e]
    fallback = next(e for e in lines if e.get("state") == "FALLBACK")
    assert pulses[-1] < last_renewal + LEASE_US + MARGIN_US
    assert last_renewal + LEASE_US <= fallback["t_us"] <= last_renewal + LEASE_US + MARGIN_US
    assert fallback["cause"] == "LEASE_ENDED"
    assert pulses[-1] > last_renewal, "the lease itself was used: the host died amid a decision"
    assert all(e["pulse"]["residual_pC"] == 0 for e in lines if "pulse" in e)


def test_a_killed_host_is_outlived_by_its_lease_alone(tmp_path: Path) -> None:
    log = tmp_path / "electrode.jsonl"
    with HostBoard(electrode_log=log) as board:
        for _ in range(3):  # each host finds the board in the FALLBACK that the one before left
            lines = kill_a_host(log, board.port)
            check_lost_host(lines)
        time.sleep(0.5)
        assert not [e for e in read_log(log)[-1:] if "pulse" in e]


def test_a_killed_host_that_held_the_clock_does_not_freeze_the_lease(tmp_path: Path) -> None:
    log = tmp_path / "electrode.jsonl"
    with HostBoard(electrode_log=log) as board:
        check_lost_host(kill_a_host(log, board.port, board.electrode))


def test_a_board_whose_parent_is_killed_lives_through_the_lease_and_ends(tmp_path: Path) -> None:
    log = tmp_path / "electrode.jsonl"
    parent = subprocess.Popen(
        [sys.executable, str(HERE / "board_parent.py"), str(log)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not is_running(pid), "the board to end")
    lines = read_log(log)
    assert [e["state"] for e in lines if "state" in e][-2:] == ["FALLBACK", "OFF"]
    assert max(e["t_us"] for e in lines if "pulse" in e) < LEASE_US
    assert not (runtime_dir() / f"board-{pid}.json").exists()


def test_the_clock_is_free_again_when_the_bench_is_closed(tmp_path: Path) -> None:
    log = tmp_path / "electrode.jsonl"
    with HostBoard(electrode_log=log) as board, BoardClient(SerialLink(board.port)) as client:
        with Bench(board.electrode) as bench:
            client.hello()
            client.arm()
            client.set_stim(1, 0, 20_000, [1] * 50, 3000, 60)
            bench.advance(10_000)
            time.sleep(0.1)
            client.heartbeat()
            assert client.device_time_us == 10_000, "a stepped clock stands"
        wait_for(lambda: any(e.get("state") == "FALLBACK" for e in read_log(log)), "FALLBACK")
        with Bench(board.electrode) as bench:
            assert bench.now_us >= LEASE_US
            assert bench.state is State.FALLBACK


def test_a_real_time_board_keeps_its_own_time() -> None:
    with (
        HostBoard(realtime=True) as board,
        Bench(board.electrode) as bench,
        BoardClient(SerialLink(board.port)) as client,
    ):
        assert not bench.stepped
        client.hello()
        client.arm()
        start_us = client.time_sync().device_us + 1_000_000  # far enough for the slowest machine to order in time
        assert isinstance(client.set_stim(1, start_us, 20_000, [1, 0, 1, 1], 3000, 60, 1000), Ack)
        assert bench.advance(start_us - 600_000) == []
        assert isinstance(client.renew(1), Ack)
        pulses = bench.advance(start_us + 80_000)
        assert bench.now_us >= start_us + 80_000
        assert [p.t_us for p in pulses] == [start_us + i * 20_000 for i in (0, 2, 3)]
        sample = client.time_sync()
        assert sample.round_trip_us > 0
        assert sample.device_us >= start_us + 80_000


def test_a_lockstep_run_gives_the_same_bytes_every_time(tmp_path: Path) -> None:
    def run(log: Path) -> tuple[bytes, bytes, bytes]:
        with rig(electrode_log=log) as board:
            link, bench = bytearray(), bytearray()
            read, bench_read = board.client.link.read, board.bench._read
            board.client.link.read = lambda t: (data := read(t), link.extend(data))[0]  # type: ignore[method-assign]
            board.bench._read = lambda: (data := bench_read(), bench.extend(data))[0]  # type: ignore[method-assign]
            for k in range(1, 6):
                board.order(k, [i % k == 0 for i in range(50)], start_us=(k - 1) * 1_000_000, amplitude_uA=1000 * k)
                for t in range(100_000, 1_000_001, 100_000):
                    board.bench.advance((k - 1) * 1_000_000 + t)
                    board.client.renew(k)
            board.client.status()
        return bytes(link), bytes(bench), log.read_bytes()

    first, second = run(tmp_path / "a.jsonl"), run(tmp_path / "b.jsonl")
    assert len(first[0]) > 3_000
    assert len(first[1]) > 5_000
    assert first[:2] == second[:2]
    assert first[2].splitlines()[:-1] == second[2].splitlines()[:-1]  # the last line tells when it was switched off


def test_the_log_and_the_channel_tell_the_same(tmp_path: Path) -> None:
    log = tmp_path / "electrode.jsonl"
    with rig(electrode_log=log) as board:
        board.order(1, [1, 0, 1] * 10)
        pulses = board.bench.advance(400_000)
        told = [(e["t_us"], *e["pulse"]["uA"], *e["pulse"]["us"]) for e in read_log(log) if "pulse" in e]
    seen = [(p.t_us, p.amplitude_uA, p.second_amplitude_uA, p.width_us, p.second_width_us) for p in pulses]
    assert told == seen
    assert len(told) == 10


def cli(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from sea_dbs.cli import main; main()", "board", "host", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_port_and_runs_until_told_to_end(ending: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "electrode.jsonl"
    with cli("--electrode-log", str(log)) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert process.stdout.readline().strip() == f"electrode {find_board(port).electrode}"
        assert port in [ports.port for ports in running_boards()]
        link = tmp_path / "stim"
        link.symlink_to(port)
        with BoardClient(SerialLink(str(link))) as client, Bench(find_board(str(link)).electrode) as bench:
            client.hello()
            client.arm()
            client.set_stim(1, 0, 20_000, [0, 1], 3000, 60)  # the set point has climbed to 10 µA by then
            assert len(bench.advance(bench.now_us + 40_000)) == 1
        assert process.poll() is None
        process.send_signal(ending)
        assert process.wait(20) == 0
    assert port not in [ports.port for ports in running_boards()]
    assert read_log(log)[-1]["state"] == "OFF"


def test_a_board_can_be_bound_to_an_exported_policy(tmp_path: Path) -> None:
    from session_tools import make_export

    from export.chain import Chain

    export = make_export(tmp_path / "export")
    model = Chain.of_folder(export).model_hash
    with cli("--policy", str(export)) as process:
        assert process.stdout is not None
        with BoardClient(SerialLink(process.stdout.readline().strip())) as client:
            with pytest.raises(UserError, match=f"another model .board {model.hex()[:12]}, host 000000000000"):
                client.hello()
            assert client.hello(model).model_hash == model
            client.arm()
        process.terminate()


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--policy", "nowhere"], {}, "nowhere is no export folder"),
        (["--electrode-log", "/nonexistent/log"], {}, "cannot write /nonexistent/log"),
        ([], {"CC": "no-such-compiler"}, r"the compiler \$CC = no-such-compiler is not there: .*apt-get install gcc"),
    ],
)
def test_what_cannot_start_says_why_in_one_sentence(
    arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    with cli(*arguments, env=os.environ | environment) as process:
        out, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == ""
    assert re.fullmatch(rf"sea-dbs: .*{sentence}.*\n", error), error


def test_wrong_ports_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no port /dev/pts/99999: start a board with 'sea-dbs board host'"):
        SerialLink("/dev/pts/99999")
    with pytest.raises(UserError, match=r"there is no port /dev/pts/99999"):
        find_board("/dev/pts/99999")
    file = tmp_path / "file"
    file.write_text("no port")
    with pytest.raises(UserError, match="cannot be opened as a serial port"):
        SerialLink(str(file))
    with pytest.raises(UserError, match="belongs to no running host board"):
        find_board(str(file))
    with pytest.raises(UserError, match="is no electrode channel"):
        Bench(str(file))
    with pytest.raises(UserError, match="nosuch://x is no port"):
        SerialLink("nosuch://x")
    with HostBoard() as board:
        link = SerialLink(board.port)
        with pytest.raises(UserError, match=f"the port {board.port} is busy"):
            SerialLink(board.port)
        link.close()
        with Bench(board.electrode), pytest.raises(UserError, match=f"{board.electrode} is busy"):
            Bench(board.electrode)


def test_a_silent_port_is_given_up_in_one_sentence() -> None:
    master, slave = pty.openpty()
    link = SerialLink(os.ttyname(slave))
    with pytest.raises(UserError, match=r"no answer from a board at /dev/pts/\d+ within 0.6 s"):
        BoardClient(link).hello(timeout_s=0.6)
    link.close()
    os.close(master)
    os.close(slave)


def test_a_board_that_dies_is_noticed() -> None:
    with HostBoard() as board:
        client, bench = BoardClient(SerialLink(board.port), nonce=NONCE), Bench(board.electrode)
        client.hello()
        board.process.kill()
        board.process.wait()
        with pytest.raises(UserError, match=r"went away|no answer"):
            client.status()
        with pytest.raises(UserError, match="went away"):
            bench.advance(bench.now_us + 1000)
        client.close()
        bench.close()
        assert board.port not in [ports.port for ports in running_boards()], "the entry of a dead board is swept away"


def test_an_unread_link_does_not_block_the_board() -> None:
    with rig() as board:
        data = board.client.connection.send(StatusRequest())
        frames = 400
        for _ in range(frames):
            board.client.link.write(data)  # the first is answered, the others are repeats
        for k in range(frames):
            board.client.link.write(b"\x05noise\x00")
            if k % 50 == 0:
                board.bench.advance((k + 1) * 1000)
        board.bench.advance(10_000_000)
        assert board.bench.now_us == 10_000_000
        while board.client.link.read(0.1):
            pass
        status = board.client.status()
        assert status.frames_old_sequence == frames - 1
        assert status.frames_bad >= frames
