"""A host board with a key file: the process itself, from its files to its pulses."""

from __future__ import annotations

import random
import stat
import subprocess
import time
from pathlib import Path

import pytest

from envs.errors import UserError
from firmware_bridge.bench import Bench
from firmware_bridge.board import HostBoard, board_command
from firmware_bridge.client import BoardClient
from firmware_bridge.codec import encode
from firmware_bridge.codes import State
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import Ack, Heartbeat, SetStim, pack_mask
from firmware_bridge.security.keys import DeviceKey, new_key, read_key
from tests.board_tools import no_ramp
from tests.session_tools import run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    new_key(tmp_path / "a.key")
    return tmp_path / "a.key"


def session_of(board: HostBoard, key: DeviceKey | None) -> tuple[int, bytes]:
    """The power-on count and the nonce that the board gives."""
    with BoardClient(SerialLink(board.port), key=key) as client:
        nonce = client.hello().board_nonce
        return client.connection.session >> 16, nonce


def test_a_keyed_board_obeys_its_owner_alone(file: Path, tmp_path: Path) -> None:
    key, other = read_key(file), new_key(tmp_path / "other.key")
    with HostBoard(key_file=file, image=no_ramp()) as board, Bench(board.electrode) as bench:
        for wrong, said in ((None, "--key FILE"), (other, "does not hold the key")):
            with BoardClient(SerialLink(board.port), key=wrong) as client, pytest.raises(UserError, match=said):
                client.hello()
        with BoardClient(SerialLink(board.port), key=key) as client:
            client.hello()
            client.arm()
            assert isinstance(client.set_stim(1, 0, 20_000, [1] * 50, 3000, 60), Ack)
            assert len(bench.advance(100_000)) == 5
            assert client.status().frames_forged == 0
        said = " ".join(board.process.args if isinstance(board.process.args, list) else [])
    assert key.secret.hex() not in said, "a command line is for anybody to read"


def test_each_power_on_counts_and_has_its_own_nonce(file: Path) -> None:
    seen = []
    for _ in range(2):
        with HostBoard(key_file=file) as board:
            seen.append(session_of(board, read_key(file)))
    counter = Path(f"{file}.boots")
    counted = int(counter.read_text())
    assert stat.S_IMODE(counter.stat().st_mode) == 0o600
    counter.unlink()
    while time.time() < counted + 1:  # the clock has passed the two quick starts
        time.sleep(0.1)
    with HostBoard(key_file=file) as board:
        seen.append(session_of(board, read_key(file)))
    assert int(counter.read_text()) > counted, "a lost count goes on from the clock"
    assert len({nonce for _, nonce in seen}) == 3
    counter.write_text("4294967295")
    with pytest.raises(UserError, match="did not start"), HostBoard(key_file=file):
        pass


@pytest.mark.parametrize("spoil", ["rights", "content", "link", "counter"])
def test_a_board_does_not_start_with_a_bad_key_file(spoil: str, file: Path, tmp_path: Path) -> None:
    command = board_command(key_file=file)
    if spoil == "rights":
        file.chmod(0o644)
    elif spoil == "content":
        file.write_bytes(file.read_bytes()[:-2])
    elif spoil == "link":
        file.rename(tmp_path / "real")
        file.symlink_to(tmp_path / "real")
    else:
        Path(f"{file}.boots").symlink_to(tmp_path / "elsewhere")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("sea-board-host: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_session_with_a_key(file: Path, tmp_path: Path) -> None:
    secret = file.read_text().split()[1]
    arguments = ("--controller", "always", "--preset", "paper", "--steps", "1", "--out", tmp_path / "out")
    done = run(*arguments, "--key", file)
    assert done.returncode == 0, done.stderr
    kept = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert kept
    assert not any(secret.encode() in data or bytes.fromhex(secret) in data for data in kept)
    assert secret not in done.stdout + done.stderr
    file.chmod(0o640)
    done = run(*arguments, "--key", file, "--overwrite")
    assert done.returncode == 2
    assert "0640" in done.stderr


def test_a_thousand_hostile_frames_at_a_running_board(file: Path) -> None:
    draw = random.Random(3)
    with (
        HostBoard(key_file=file) as board,
        Bench(board.electrode) as bench,
        BoardClient(SerialLink(board.port), key=read_key(file)) as client,
    ):
        client.hello()
        client.arm()
        connection, slots, mask = client.connection, *pack_mask([1] * 50)
        old = connection.send(Heartbeat())
        client.link.write(old)
        for i in range(1000):
            order = SetStim(1 + i, 0, 20_000, slots, mask, 3000, 60, 300)
            sequence, tag = connection.sequence + draw.randrange(1, 1000), draw.randbytes(8)
            forged = encode(order, sequence=sequence, session=connection.session, sign=lambda _, tag=tag: tag)
            client.link.write(forged if i % 2 else old)
        status = client.status()
        assert (status.frames_forged, status.frames_old_sequence) == (500, 500)
        assert (status.state, status.orders_refused) == (State.ARMED, 0)
        assert bench.advance(2_000_000) == []
