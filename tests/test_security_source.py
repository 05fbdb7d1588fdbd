"""An export folder from elsewhere: its C source is compiled only if it follows from its ONNX file."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from envs.errors import UserError
from export import chain
from firmware_bridge.boards import start_board
from firmware_bridge.images import build_image, check_source
from tests.session_tools import make_export

TRAP = "#include <stdlib.h>\n__attribute__((constructor)) static void t(void) {{ (void)!system(\"touch '{0}'\"); }}\n"


def hostile(folder: Path, mark: Path) -> Path:
    """An export whose chain holds and whose C source would touch a file when the board starts."""
    make_export(folder)
    (folder / "c" / "int8").mkdir(parents=True)
    (folder / "c" / "int8" / "sea_policy.c").write_text(TRAP.format(mark))
    chain.write(folder)
    return folder


def test_a_foreign_c_source_is_not_compiled(tmp_path: Path) -> None:
    folder = hostile(tmp_path / "export", tmp_path / "touched")
    with pytest.raises(UserError):
        check_source(folder, "int8")
    with pytest.raises(UserError):
        build_image("host", folder)
    for kind in ("host", "qemu-m4f"):
        with pytest.raises(UserError):
            start_board(kind, policy_dir=folder)
    commands = (
        ("board", "host", "--policy", folder),
        ("board", "build", "host", "--policy", folder, "--out", tmp_path / "image"),
        ("session", "--policy", folder, "--decide-on", "board", "--out", tmp_path / "out"),
    )
    for command in commands:
        done = any_command(*command)
        assert done[0] == 2, done
        assert "Traceback" not in done[1]
    assert not (tmp_path / "touched").exists()


def test_what_is_made_of_the_onnx_file_is_told_from_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hostile(tmp_path / "export", tmp_path / "touched")
    path = folder / "c" / "int8" / "sea_policy.c"
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr("firmware_bridge.images.source.derived", lambda _: {"c/int8/sea_policy.c": right})
    check_source(folder, "int8")
    path.write_text(path.read_text() + " ")
    with pytest.raises(UserError, match="is not what this version makes of the ONNX file"):
        check_source(folder, "int8")
    chain.write(folder)  # hashes that fit come from the same hand
    with pytest.raises(UserError, match="is not what this version makes of the ONNX file"):
        build_image("host", folder)
    check_source(folder, "fp32")  # not there: nothing to compile


def any_command(*words: object) -> tuple[int, str]:
    """Exit code and standard error of a command."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("sea-dbs")), *map(str, words)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr
