"""Boards that hold a key in their memory: three emulated ones, and what is written for a real one."""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from envs.errors import UserError
from firmware_bridge.board import running_boards
from firmware_bridge.boards import start_board
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import Cause, Feature, Refusal, State
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import Ack
from firmware_bridge.qemu import STARTS, QemuBoard
from firmware_bridge.security.auth import board_nonce
from firmware_bridge.security.keys import new_key, read_key
from firmware_bridge.security.provision import SECTION_BYTES, count_boots, intel_hex, section
from firmware_bridge.targets import FLASH_STARTS, TARGETS
from sea_dbs.report.session_data import read_session
from tests.ports_tools import KINDS, PATIENCE_S, wait_for
from tests.security_wire import attack_board
from tests.session_tools import electrode_log, run, table_of
from tests.test_board_process import is_running
from tests.test_ports_command import CLI, children, emulator

LEASE_US, MARGIN_US = 300_000, 20_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    new_key(tmp_path / "a.key")
    return tmp_path / "a.key"


@pytest.mark.parametrize("kind", KINDS)
def test_an_emulated_board_holds_a_key(kind: str, file: Path, tmp_path: Path) -> None:
    key, other = read_key(file), new_key(tmp_path / "other.key")
    with start_board(kind, key_file=file) as board:
        assert isinstance(board, QemuBoard)
        assert board.process is not None
        said = " ".join(map(str, board.process.args if isinstance(board.process.args, list) else []))
        for pid in (board.process.pid, *children(board.process.pid)):
            said += Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()
        assert key.secret.hex() not in said
        assert {path.name for path in board._folder.iterdir()} == {"qmp"}, "what held the key is gone once it is loaded"
        assert stat.S_IMODE(board._folder.stat().st_mode) == 0o700
        assert key.secret not in board.image.elf.read_bytes() + board.image.bin.read_bytes()
        sha256, nonces = board.image.sha256, set()
        for wrong, why in ((None, "--key FILE"), (other, "does not hold the key")):
            with BoardClient(SerialLink(board.port), key=wrong) as client, pytest.raises(UserError, match=why):
                client.hello(timeout_s=PATIENCE_S)
        for start in range(2):
            with BoardClient(SerialLink(board.port), timeout_s=PATIENCE_S, key=key) as client:
                answer = client.hello(timeout_s=PATIENCE_S)
                client.arm()
                assert isinstance(client.set_stim(1, 0, 20_000, [1] * 5, 3000, 60), Ack)
                status = client.status()
                nonces.add(answer.board_nonce)
                session = client.connection.session
            assert (status.state, status.frames_forged) == (State.CLOSED_LOOP, 0)
            assert answer.cause == (Cause.RESET if start else Cause.POWER_ON)
            boots = int(Path(f"{file}.boots").read_text()) - STARTS + 1 + start
            assert answer.board_nonce == board_nonce(key, boots, session)
            if not start:
                board.qmp("system_reset")
        assert len(nonces) == 2
    with start_board(kind) as board, BoardClient(SerialLink(board.port), key=key) as client:
        assert board.image.sha256 == sha256, "the key is no part of the image"
        with pytest.raises(UserError, match="holds no key"):
            client.hello(timeout_s=PATIENCE_S)


@pytest.mark.parametrize("spoil", ["crc", "magic", "used up"])
def test_a_key_section_that_does_not_hold_is_no_bench_mode(
    spoil: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*arguments: Any) -> bytes:
        data = bytearray(section(*arguments))
        if spoil == "used up":
            data[8:12] = bytes(4)
            data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
        else:
            data[{"crc": 20, "magic": 0}[spoil]] ^= 1
        return bytes(data)

    monkeypatch.setattr("firmware_bridge.qemu.section", spoilt)
    with start_board("qemu-m4f", key_file=file) as board, BoardClient(SerialLink(board.port)) as client:
        answer = client.hello(timeout_s=PATIENCE_S, refuse=False)
        assert not answer.features & Feature.KEYED
        assert answer.refusal & Refusal.KEY
        with pytest.raises(UserError, match="refused ARM"):
            client.arm()


def test_starts_are_counted_for_ever(file: Path) -> None:
    first = count_boots(file, 256)
    assert count_boots(file) == first + 256
    counter = Path(f"{file}.boots")
    assert stat.S_IMODE(counter.stat().st_mode) == 0o600
    with start_board("host", key_file=file) as board, BoardClient(SerialLink(board.port), key=read_key(file)) as client:
        client.hello()  # the host board counts on in the same file
    assert count_boots(file) == first + 258
    counter.write_text("4294967295")
    with pytest.raises(UserError, match="are used up"):
        count_boots(file)
    counter.chmod(0o644)
    with pytest.raises(UserError, match="0600"):
        count_boots(file)
    counter.unlink()
    counter.symlink_to(file.parent / "elsewhere")
    with pytest.raises(UserError, match="cannot be kept"):
        count_boots(file)


@pytest.mark.parametrize("kind", ["host", *KINDS])
def test_hostile_frames_do_nothing(kind: str) -> None:
    found = attack_board(kind, 60, seed=1)
    assert found["passed"], found
    assert (found["sent"], found["counted"], found["applied"]) == (60, 60, 0)
    assert min(found["kinds"].values()) > 0


@pytest.mark.parametrize("kind", ["host", "qemu-m4f"])
def test_an_attacker_who_has_the_key_is_noticed(kind: str) -> None:
    found = attack_board(kind, 40, seed=1, knows_the_key=True)
    assert not found["passed"]
    assert found["foreign_pulses"] > 0
    assert found["foreign_answers"] > 0


def test_a_session_on_an_emulated_board_with_a_key(file: Path, tmp_path: Path) -> None:
    arguments = (
        "--controller",
        "always",
        "--preset",
        "paper",
        "--steps",
        "2",
        "--no-prelude",
        "--board",
        "qemu-m4f",
        "--key",
        file,
    )
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["pulses"] > 0
    secret = read_key(file).secret
    kept = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(secret in data or secret.hex().encode() in data for data in (*kept, done.stdout.encode()))


def states(log: Path) -> list[dict[str, Any]]:
    return [line for line in electrode_log(log) if "state" in line]


def wait_for_decisions(out: Path, count: int) -> None:
    def there() -> bool:
        try:
            return len(read_session(out / "session.sqlite").decisions) >= count
        except UserError:
            return False

    wait_for(there, f"{count} decisions on the disk", 60)


def session(*arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [*CLI[:-1], "session", "--controller", "always", "--preset", "paper", "--no-prelude", "--steps", "60"]
    return subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_killed_session_leaves_a_board_that_stops_by_its_lease(file: Path, tmp_path: Path) -> None:
    """SIGKILL of a whole host on an emulated board: its file can be read, and the electrode was silent in time."""
    log, out = tmp_path / "electrode.jsonl", tmp_path / "out"
    command = [*CLI, "qemu-m4f", "--steady", "--key", str(file), "--electrode-log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as board:
        try:
            assert board.stdout is not None
            port = board.stdout.readline().strip()
            host = session("--port", port, "--realtime", "--key", file, "--out", out)
            try:
                wait_for(lambda: '"pulse"' in log.read_text(), "a pulse", 60)
            finally:
                os.kill(host.pid, signal.SIGKILL)
                host.wait()
            wait_for(lambda: states(log)[-1]["state"] == "FALLBACK", "FALLBACK")
            time.sleep(0.5)
        finally:
            board.terminate()
    lines = electrode_log(log)
    end = max(line["lease_until_us"] for line in lines if "lease_until_us" in line)
    fallback = states(log)[-2]
    assert states(log)[-1]["state"] == "OFF"
    assert fallback["cause"] == "LEASE_ENDED"
    assert end <= fallback["t_us"] <= end + MARGIN_US
    pulses = [line["t_us"] for line in lines if "pulse" in line]
    assert pulses
    assert max(pulses) <= end
    kept = table_of(out, "pulses")
    assert {pulse["device_us"] for pulse in kept} <= set(pulses)
    assert read_session(out / "session.sqlite").session["outcome"] is None


def test_a_killed_session_takes_its_own_emulator_with_it(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    host = session("--board", "qemu-m4f", "--key", file, "--out", out)
    try:
        wait_for_decisions(out, 1)
        guard, qemu = emulator(host.pid)
    finally:
        os.kill(host.pid, signal.SIGKILL)
        host.wait()
    wait_for(lambda: not is_running(qemu) and not is_running(guard), "the emulator to end")
    assert read_session(out / "session.sqlite").decisions
    assert not any(ports.kind == "qemu-m4f" and not Path(ports.port).exists() for ports in running_boards())


def test_a_key_section_for_a_flash(file: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "section.hex", read_key(file)
    sea = [str(Path(sys.executable).with_name("sea-dbs")), "key", "program", str(file), "--out"]
    done = subprocess.run([*sea, str(out)], capture_output=True, text=True, check=True)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert f"st-flash --format ihex write {out}" in done.stdout
    assert "NOT tried on the device" in done.stdout
    assert key.secret.hex() not in (done.stdout + done.stderr).lower()
    rows = [bytes.fromhex(line[1:]) for line in out.read_text().splitlines()]
    assert all(sum(row) & 0xFF == 0 for row in rows)
    data = b"".join(row[4:-1] for row in rows if row[3] == 0)
    first = int(Path(f"{file}.boots").read_text()) - FLASH_STARTS["nucleo-f446re"] + 1
    assert data == section(key, first, FLASH_STARTS["nucleo-f446re"])
    assert (len(data), struct.unpack_from(">H", rows[0], 4)[0] << 16) == (SECTION_BYTES, 0x08060000)
    flash = TARGETS["nucleo-f446re"].memory("FLASH")
    assert flash.origin + flash.size <= TARGETS["nucleo-f446re"].key_address, "outside the image"
    assert out.read_bytes() == intel_hex(data, TARGETS["nucleo-f446re"].key_address)
    before = out.read_bytes()
    for again, why in ((str(out), "never overwritten"), (str(tmp_path / "other"), "no key section in a flash")):
        words = [*sea, again, *(["--board", "qemu-m4f"] if again.endswith("other") else [])]
        refused = subprocess.run(words, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert why in refused.stderr
    assert out.read_bytes() == before
