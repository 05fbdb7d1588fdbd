"""Firmware images: they compile for every board, carry their own hash, repeat, and say what is missing or too large."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import envs
import export
import firmware_bridge
import sea_dbs
from envs.errors import UserError
from export import chain
from firmware_bridge.boards import BOARDS, start_board
from firmware_bridge.images import HASH_BYTES, MARK, build_image, check_fits, compile_image, load_image, table_bytes
from firmware_bridge.targets import FIRMWARE_FLASH, FIRMWARE_RAM, TARGETS, find_target
from tests.ports_tools import MODEL, POLICY, image_with_policy
from tests.session_tools import make_export


@pytest.mark.parametrize("board", TARGETS)
def test_every_board_compiles_with_and_without_a_policy(board: str) -> None:
    bare = build_image(board)
    if board == "host":
        assert bare.elf.stat().st_mode & 0o100
        return
    emulated = TARGETS[board].machine is not None
    whole = image_with_policy(board) if emulated else compile_image(TARGETS[board], POLICY, MODEL, format="int8")
    assert 0 < bare.flash_bytes < FIRMWARE_FLASH
    assert 0 < bare.ram_bytes < FIRMWARE_RAM, "what is set aside for the firmware before a policy is judged"
    assert whole.flash_bytes > bare.flash_bytes
    assert 0 < whole.policy_flash_bytes < 2000
    assert whole.policy_ram_bytes == 4, "the tiny policy's one word of state"
    assert whole.bin.stat().st_size == pytest.approx(whole.flash_bytes, abs=16)
    assert whole.model_hash == MODEL.hex()


@pytest.mark.parametrize("board", ["host", "qemu-m4f"])
def test_an_image_carries_the_hash_of_itself(board: str) -> None:
    image = build_image(board)
    data = image.bin.read_bytes()
    at = data.index(MARK) + len(MARK)
    assert data[at : at + HASH_BYTES].hex() == image.sha256
    assert hashlib.sha256(data[:at] + bytes(HASH_BYTES) + data[at + HASH_BYTES :]).hexdigest() == image.sha256
    assert bytes.fromhex(image.sha256) in image.elf.read_bytes()


@pytest.mark.parametrize("board", ["host", "qemu-m55"])
def test_the_same_bytes_come_from_any_folder(board: str, tmp_path: Path) -> None:
    here = build_image(board)
    for package in (envs, export, firmware_bridge, sea_dbs):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"from firmware_bridge.images import build_image; print(build_image({board!r}).elf)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    elf = Path(made.stdout.strip())
    assert elf.is_relative_to(tmp_path), "it was really built there"
    assert elf.read_bytes() == here.elf.read_bytes()
    assert str(tmp_path).encode() not in elf.read_bytes()


def test_an_export_s_policy_goes_into_the_image_with_its_chain(tmp_path: Path) -> None:
    folder = make_export(tmp_path / "export")
    (folder / "c" / "int8").mkdir(parents=True)
    shutil.copy(POLICY, folder / "c" / "int8" / "sea_policy.c")
    shutil.copy(POLICY.parent / "tiny_policy.h", folder / "c" / "int8" / "tiny_policy.h")
    model = chain.write(folder).model_hash
    image = build_image("qemu-m4f", folder, out_dir=tmp_path / "out", unchecked_source_for_tests=True)
    assert image.elf == tmp_path / "out" / "sea-board.elf"
    assert image.model_hash == model.hex()
    links = chain.links_of(json.loads((tmp_path / "out" / "image.json").read_text())["chain"])
    assert [link.name for link in links] == [*chain.LINKS, "image"]
    assert chain.inconsistent(links) is None
    assert links[-1].parts == {"image": image.sha256}
    assert load_image(tmp_path / "out") == image
    with pytest.raises(UserError, match=r"there is no .*c/fp32/sea_policy.c: export the run with --targets c"):
        build_image("qemu-m4f", folder, "fp32")
    with pytest.raises(UserError, match="no policy format 'int4': choose one of int8, fp32, fp16"):
        build_image("qemu-m4f", folder, "int4")
    (folder / "c" / "int8" / "sea_policy.c").write_text("/* another */")
    with pytest.raises(UserError, match="broken at the link 'source'"):
        build_image("qemu-m4f", folder)


def test_tables_are_counted_from_the_source() -> None:
    source = """
    static const int8_t weights[32][64] = {{1}};
    static const int32_t bias[2 * 8] = {0};
    static const float f[3u] = {0};
    static int8_t buffer[1000];
    static int32_t sums[4];
    static const char *name = "x";
    """
    assert table_bytes(source) == (32 * 64 + 64 + 12, 1000 + 16)


def test_a_policy_too_large_is_refused_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_export(tmp_path / "export")
    (folder / "c" / "int8").mkdir(parents=True)
    flash = find_target("qemu-m55").memory("FLASH").size
    (folder / "c" / "int8" / "sea_policy.c").write_text(f"static const int8_t w[{flash}] = {{0}};")
    chain.write(folder)
    monkeypatch.setenv("PATH", str(tmp_path))  # no compiler: it is not even looked for
    with pytest.raises(UserError, match=rf"too large for qemu-m55 by {FIRMWARE_FLASH} bytes: it takes {flash} bytes"):
        build_image("qemu-m55", folder)
    with pytest.raises(UserError, match=r"too large for nucleo-f446re by \d+ bytes: it takes 200000 bytes of RAM"):
        check_fits("nucleo-f446re", 1000, 200_000)
    check_fits("qemu-m4f", 3_000_000)
    check_fits("host", 10**9)


def test_what_is_missing_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build_image("qemu-m4f")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"arm-none-eabi-gcc was not found: .*'apt-get install gcc-arm-none-eabi"):
        build_image("qemu-m4f")
    with pytest.raises(UserError, match=r"qemu-system-arm was not found: .*'apt-get install qemu-system-arm'"):
        firmware_bridge.qemu.QemuBoard(image)
    with pytest.raises(UserError, match="there is no board 'uno': choose one of host, qemu-m4f"):
        build_image("uno")
    with pytest.raises(UserError, match="there is no board 'nucleo-f446re'"):
        start_board("nucleo-f446re")
    assert BOARDS == ("host", "qemu-m4f", "qemu-m7", "qemu-m55")


def test_a_policy_that_does_not_compile_is_one_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "sea_policy.c"
    bad.write_text("int nothing = missing;")
    with pytest.raises(UserError, match=r"could not build the policy: .*'missing' undeclared") as refused:
        compile_image(TARGETS["qemu-m4f"], bad, MODEL)
    assert "\n" not in str(refused.value)
