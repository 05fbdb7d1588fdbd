"""Key files: made once, readable by their owner alone, never shown."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from envs.errors import UserError
from firmware_bridge.security.auth import SessionAuth
from firmware_bridge.security.keys import DeviceKey, new_key, read_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    new_key(tmp_path / "a.key")
    return tmp_path / "a.key"


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        read_key(path)
    text = "".join(traceback.format_exception(error.value))
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)
    secret = path.read_bytes().split()[1:2] if path.is_file() and os.access(path, os.R_OK) else []
    assert not any(part.decode() in text for part in secret)


def test_a_new_key_is_private_whatever_the_umask_says(tmp_path: Path) -> None:
    for umask in (0, 0o277):
        before = os.umask(umask)
        try:
            key = new_key(tmp_path / f"{umask}.key")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{umask}.key").stat().st_mode) == 0o600
        assert read_key(tmp_path / f"{umask}.key").secret == key.secret
    assert (tmp_path / "0.key").read_bytes() != (tmp_path / "191.key").read_bytes()


def test_a_key_is_never_overwritten(file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (file, tmp_path / "link"):
        with pytest.raises(UserError, match="never overwritten"):
            new_key(path)
    assert file.read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("rights", [0o640, 0o604, 0o620, 0o660, 0o644, 0o700])
def test_rights_beyond_0600_are_refused(file: Path, rights: int) -> None:
    file.chmod(rights)
    refused(file, f"{rights:04o}", "chmod 600")


def test_another_owner_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    refused(file, f"belongs to user {owner}")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 32, b"sea-dbs-key-1 " + b"0" * 63, b"sea-dbs-key-1 " + b"0" * 65, b"sea-dbs-key-2 " + b"0" * 64,
     b"sea-dbs-key-1 " + b"0" * 64 + b"\n\n", b"sea-dbs-key-1 " + "٣".encode() * 64, b"x" * 100_000],
)  # fmt: skip
def test_what_is_no_key_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    refused(file, "is no key file")


def test_links_folders_and_pipes_are_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    refused(tmp_path / "link", "no symbolic link")
    (tmp_path / "folder").mkdir(mode=0o600)
    refused(tmp_path / "folder", "no plain file")
    os.mkfifo(tmp_path / "pipe", 0o600)
    refused(tmp_path / "pipe", "no plain file")
    refused(tmp_path / "none", "No such file")


def test_a_key_shows_itself_nowhere(file: Path) -> None:
    key = read_key(file)
    auth = SessionAuth(key, bytes(16), bytes(16))
    hexed = key.secret.hex()
    assert hexed[:16] not in f"{key} {key!r} {auth!r} {key.fingerprint} {vars(type(key))}"
    for thing in (key, auth):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(thing)
    with pytest.raises(UserError) as error:
        DeviceKey(key.secret + b"1")
    assert repr(key.secret)[2:20] not in str(error.value)


def test_the_command_prints_the_fingerprint_alone(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("sea-dbs")), "key", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    made = run("new", "--out", str(tmp_path / "k"))
    key = read_key(tmp_path / "k")
    shown = run("show", str(tmp_path / "k"))
    again = run("new", "--out", str(tmp_path / "k"))
    (tmp_path / "k").chmod(0o644)
    open_to_all = run("show", str(tmp_path / "k"))
    assert (made.returncode, shown.returncode, again.returncode, open_to_all.returncode) == (0, 0, 2, 2)
    assert key.fingerprint in made.stdout
    assert shown.stdout == f"{key.fingerprint}\n"
    said = "".join(done.stdout + done.stderr for done in (made, shown, again, open_to_all))
    assert key.secret.hex() not in said
    assert "Traceback" not in said
