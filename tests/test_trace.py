"""The hash chain: whatever is changed, the right link is named; a killed session's chain is readable and not closed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_tools import SESSION_COLUMNS, change_recording, command, make_export, table_of

from envs.errors import UserError
from export import chain as policy_chain
from export import manifest
from export.chain import LINKS, Chain
from firmware_bridge.board import HostBoard
from firmware_bridge.chain import SESSION_LINKS
from firmware_bridge.images import MARK, Image, build_image, patched
from firmware_bridge.named_images import check_own, named_images, which_image
from firmware_bridge.plan import SessionPlan, prepare
from firmware_bridge.recorder import Recorder
from firmware_bridge.rederive import compiled
from firmware_bridge.session import run_session
from firmware_bridge.trace import Trace, trace
from sea_dbs.config import load_config
from sea_dbs.files import sha256_file, write_json

BOARD = "qemu-m4f"


def make_run(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(load_config("realtime", ["seed=3"]).to_yaml())
    (folder / "policy.pt").write_bytes(b"weights")
    return folder


def make_elf(binary: bytes) -> bytes:
    """A 32-bit ELF file of one segment that loads ``binary``."""
    header = bytearray(52)
    header[:6] = b"\x7fELF\x01\x01"
    header[28:32] = (52).to_bytes(4, "little")
    header[42:46] = (32).to_bytes(2, "little") + (1).to_bytes(2, "little")
    words = (1, 84, 0, 0, len(binary), len(binary), 5, 4)
    return bytes(header) + b"".join(word.to_bytes(4, "little") for word in words) + binary


def make_image(export: Path, model: bytes) -> bytes:
    """firmware/qemu-m4f/int8 of an export folder; the image's hash."""
    folder = export / "firmware" / BOARD / "int8"
    folder.mkdir(parents=True)
    data, sha = patched(b"code" * 20 + MARK + bytes(32) + b"more" * 20)
    (folder / "sea-board.bin").write_bytes(data)
    (folder / "sea-board.elf").write_bytes(make_elf(data))
    facts = {name: 0 for name in Image.__dataclass_fields__ if name != "folder"}
    said = {"board": BOARD, "format": "int8", "sha256": sha, "model_hash": model.hex()}
    write_json(folder / "image.json", facts | said)
    return bytes.fromhex(sha)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole chain: run, export (every kind of file), a recording of a session that ended."""
    root = tmp_path_factory.mktemp("chain")
    run, export = make_run(root / "run"), make_export(root / "export")
    described = manifest.load(export)
    config = load_config(run / "config.yaml").sha256()
    hashes = described.hashes.model_copy(update={"config": config, "weights": sha256_file(run / "policy.pt")})
    manifest.save(export, described.model_copy(update={"hashes": hashes}))
    np.savez(export / "integer.npz", weights=np.arange(4))
    np.savez(export / "calibration.npz", observation=np.ones(4))
    (export / "c" / "int8").mkdir(parents=True)
    (export / "c" / "int8" / "sea_policy.c").write_text("const int a = 1;\n")
    chain = policy_chain.write(export)
    build = make_image(export, chain.model_hash)
    (root / "session").mkdir()
    said = {"onnx": hashes.onnx, "model": chain.model_hash.hex(), "board_model": chain.model_hash.hex()}
    columns = {**SESSION_COLUMNS, "hashes": json.dumps({**said, "firmware": build.hex()})}
    with Recorder(root / "session" / "session.sqlite", columns) as recorder:
        note = which_image(export, chain, BOARD, "port", build)
        recorder.chain(chain, build, note, export)
        recorder.event(1, "armed", "armed")
        recorder.event(2, "stop", "STOP was acknowledged")
        recorder.end("finished", "2026-01-01T00:00:01")
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def follow(root: Path) -> Trace:
    return trace(root / "session", root / "export", root / "run")


def test_the_whole_chain_holds(made: Path) -> None:
    found = follow(made)
    assert found.broken is None
    assert found.closed
    assert list(dict.fromkeys(row.link for row in found.rows)) == list(SESSION_LINKS)
    assert {row.verdict for row in found.rows} == {"held"}
    assert found.model_hash == Chain.of_folder(made / "export").model_hash.hex()
    files = {row.file for row in found.rows}
    assert {"config", "weights", "manifest.json", "policy_fp16.onnx", "integer.npz", "calibration.npz"} <= files
    assert {"c/int8/sea_policy.c", "chain.json", f"firmware/{BOARD}/int8/image.json", "rows"} <= files


def test_what_is_out_of_reach_is_said(made: Path, copy: Path) -> None:
    shutil.copytree(copy / "session", copy / "alone")
    near = trace(copy / "alone")  # the recording says where its export stood
    assert {row.verdict for row in near.rows if row.link == "training"} == {"not reachable"}
    assert {row.verdict for row in near.rows if row.link != "training"} == {"held"}
    change(copy / "alone", f"UPDATE chain SET place = '{copy / 'gone'}'")
    far = trace(copy / "alone")
    assert {row.verdict for row in far.rows if row.link != "session"} == {"not reachable"}
    assert far.broken is not None  # the place is a row of the recording like any other
    assert "'session'" in far.broken


def append(file: str) -> Callable[[Path], None]:
    def do(root: Path) -> None:
        with (root / file).open("ab") as stream:
            stream.write(b"\n")

    return do


def flip(file: str) -> Callable[[Path], None]:
    def do(root: Path) -> None:
        data = bytearray((root / file).read_bytes())
        data[-1] ^= 1
        (root / file).write_bytes(data)

    return do


def replace_text(file: str, old: str, new: str) -> Callable[[Path], None]:
    def do(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new))

    return do


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


def create(file: str) -> Callable[[Path], None]:
    def do(root: Path) -> None:
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text("int b;\n")

    return do


def change(session: Path, *statements: str) -> None:
    change_recording(session / "session.sqlite", *statements)


def sql(*statements: str) -> Callable[[Path], None]:
    return lambda root: change(root / "session", *statements)


IMAGE = f"export/firmware/{BOARD}/int8"
SOURCE_C = "export/c/int8/sea_policy.c"
CHANGES = {
    "settings": (replace_text("run/config.yaml", "seed: 3", "seed: 4"), "training", "config.yaml was changed"),
    "weights": (append("run/policy.pt"), "training", "policy.pt was changed"),
    "manifest's weights": (lambda root: rehash(root, "weights"), "training", "weights was changed"),
    "manifest": (replace_text("export/manifest.json", "3000.0", "4000.0"), "onnx", "manifest.json was changed"),
    "manifest damaged": (replace_text("export/manifest.json", "}", ""), "training", "manifest.json"),
    "onnx": (append("export/policy_fp16.onnx"), "onnx", "policy_fp16.onnx was changed"),
    "onnx gone": (remove("export/policy_fp16.onnx"), "onnx", "policy_fp16.onnx is missing"),
    "quantised": (append("export/integer.npz"), "quantised", "integer.npz was changed"),
    "calibration": (append("export/calibration.npz"), "quantised", "calibration.npz was changed"),
    "source": (append(SOURCE_C), "source", "sea_policy.c was changed"),
    "source gone": (remove(SOURCE_C), "source", "sea_policy.c is missing"),
    "source added": (create("export/c/fp32/sea_policy.c"), "source", "not named by the chain"),
    "chain.json": (replace_text("export/chain.json", '"model_hash": "', '"model_hash": "00'), "source", "chain.json"),
    "chain.json gone": (remove("export/chain.json"), "source", "chain.json"),
    "binary": (flip(f"{IMAGE}/sea-board.bin"), "image", "sea-board.bin was changed"),
    "program": (flip(f"{IMAGE}/sea-board.elf"), "image", "sea-board.elf was changed"),
    "program gone": (remove(f"{IMAGE}/sea-board.elf"), "image", "sea-board.elf"),
    "another image": (replace_text(f"{IMAGE}/image.json", '"sha256": "', '"sha256": "00'), "image", "another image"),
    "another model": (lambda root: other_model(root), "image", "was made for the model 0000"),
    "an event": (sql("UPDATE events SET text = 'x' WHERE event_index = 1"), "session", "row was changed"),
    "an event gone": (sql("DELETE FROM events WHERE event_index = 2"), "session", "row was changed"),
    "an event added": (sql("INSERT INTO events SELECT 9, 1, 'armed', NULL, NULL, '', 0.0"), "session", "row was"),
    "the seed": (sql("UPDATE session SET seed = 1"), "session", "row was changed"),
    "the outcome": (sql("UPDATE session SET outcome = 'x'"), "session", "row was changed"),
    "a table": (sql("CREATE TABLE more (id)"), "session", "row was changed"),
    "the seal gone": (
        sql("DELETE FROM chain WHERE link = 'session'"),
        "session",
        "digest that it wrote then is missing",
    ),
    "a link gone": (sql("DELETE FROM chain WHERE link = 'source'"), "source", "does not name it"),
    "all links gone": (sql("DELETE FROM chain"), "training", "names no link"),
    "a link's hash": (sql("UPDATE chain SET hash = zeroblob(0) WHERE link = 'onnx'"), "onnx", "damaged"),
    "a link's part": (sql("UPDATE chain SET parts = '{}' WHERE link = 'quantised'"), "quantised", "contradicts itself"),
    "the firmware": (sql("UPDATE session SET hashes = json_set(hashes, '$.firmware', '11')"), "image", "firmware 11"),
    "the model": (sql("UPDATE session SET hashes = json_set(hashes, '$.model', '11')"), "image", "the model 11"),
    "the board": (sql("UPDATE session SET hashes = json_set(hashes, '$.board_model', '11')"), "image", "bound to the"),
    "the file": (sql("UPDATE session SET hashes = json_set(hashes, '$.onnx', '11')"), "onnx", "another file decided"),
}


def rehash(root: Path, name: str) -> None:
    described = manifest.load(root / "export")
    hashes = described.hashes.model_copy(update={name: "1" * 64})
    manifest.save(root / "export", described.model_copy(update={"hashes": hashes}))


def other_model(root: Path) -> None:
    path = root / IMAGE / "image.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_hash": "00" * 32}))


def test_settings_that_are_gone_are_not_reachable(copy: Path) -> None:
    remove("run/config.yaml")(copy)
    found = follow(copy)
    assert found.broken is None
    row = next(row for row in found.rows if row.file == "config")
    assert row.verdict == "not reachable"
    assert "config.yaml is not there" in row.detail


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_named(copy: Path, what: str) -> None:
    alter, link, sentence = CHANGES[what]
    alter(copy)
    found = follow(copy)
    assert found.broken is not None
    assert found.broken.startswith(f"the chain is broken at the link '{link}': ")
    assert sentence in found.broken


@pytest.mark.parametrize(
    "what", [name for name in CHANGES if name.split()[0] in ("manifest", "onnx", "quantised", "source", "chain.json")]
)
def test_a_changed_export_arms_no_board(copy: Path, tmp_path: Path, what: str) -> None:
    """Refused before a board is touched, or a folder made."""
    alter, link, sentence = CHANGES[what]
    alter(copy)
    with pytest.raises(UserError) as refused:
        prepare(SessionPlan(out=tmp_path / "out", policy=copy / "export"))
    said = str(refused.value)
    assert f"'{link}'" in said or "chain.json" in said
    assert sentence in said


@pytest.mark.parametrize("what", ["binary", "program", "program gone", "another model"])
def test_an_image_that_does_not_hold_is_not_armed(copy: Path, what: str) -> None:
    export = copy / "export"
    chain, (image,) = Chain.of_folder(export), named_images(export)
    build = bytes.fromhex(image.sha256)
    assert which_image(export, chain, BOARD, "port", build) == f"{BOARD} int8, firmware/{BOARD}/int8/image.json"
    assert which_image(export, chain, "host board", "port", bytes(32)) == "host board"
    with pytest.raises(UserError, match=r"port is not armed: .*'image': it runs 000000000000…, .*image.json names"):
        which_image(export, chain, BOARD, "port", bytes(32))
    check_own(image, chain)
    alter, _, sentence = CHANGES[what]
    alter(copy)
    with pytest.raises(UserError, match=f"not armed: .*'image': .*{sentence}"):
        check_own(named_images(export)[0], chain)
    with pytest.raises(UserError, match=f"not armed: .*'image': .*{sentence}"):
        which_image(export, chain, BOARD, "port", build)


def test_every_link_changes_the_model_hash(made: Path, copy: Path) -> None:
    export = copy / "export"
    heads = {Chain.of_folder(made / "export").model_hash}
    for name in ("policy_fp16.onnx", "calibration.npz", "integer.npz", "c/int8/sea_policy.c", "manifest.json"):
        append(name)(export)
        heads.add(policy_chain.write(export).model_hash)
    rehash(copy, "config")
    heads.add(policy_chain.write(export).model_hash)
    (export / "integer.npz").unlink()
    heads.add(policy_chain.write(export).model_hash)
    assert len(heads) == 8


def test_an_image_is_compiled_again() -> None:
    sha = build_image("host").sha256
    assert compiled("host board of this session", None, sha) == "host without a policy"
    assert compiled("host board of this session", None, "00" * 32) is None
    assert compiled("serial board", None, sha) is None


# -- as a user runs it ---------------------------------------------------------------------------------------------


def sea_dbs(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-c", "from sea_dbs.cli import main; main()", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)


def test_command(made: Path, copy: Path) -> None:
    whole = ("--export", made / "export", "--run", made / "run")
    done = sea_dbs("trace", made / "session", *whole)
    assert (done.returncode, done.stderr) == (0, "")
    assert "held" in done.stdout
    assert "no link is broken" in done.stdout
    append(SOURCE_C)(copy)
    done = sea_dbs("trace", copy / "session" / "session.sqlite", "--export", copy / "export", "--json")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts["broken"] == done.stderr.strip()
    assert {row["link"] for row in facts["links"] if row["verdict"] == "broken"} == {"source"}
    for wrong, sentence in (
        ((copy / "run",), "no recording"),
        ((made / "session", "--export", copy / "run"), "no export folder"),
        ((made / "session", "--run", copy / "export"), "no run folder"),
    ):
        done = sea_dbs("trace", *wrong)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert sentence in done.stderr


def test_a_recording_without_a_chain_is_said(tmp_path: Path) -> None:
    path = tmp_path / "session.sqlite"
    Recorder(path, SESSION_COLUMNS).close()
    change(tmp_path, "DROP TABLE chain")
    with pytest.raises(UserError, match="holds no chain"):
        trace(path)


def test_a_session_records_its_chain(tmp_path: Path) -> None:
    export = make_export(tmp_path / "export")
    run_session(SessionPlan(out=tmp_path / "out", policy=export, steps=2, quiet=True))
    found = trace(tmp_path / "out")
    assert found.broken is None
    assert found.closed
    assert found.model_hash == Chain.of_folder(export).model_hash.hex()
    change(tmp_path / "out", "UPDATE decisions SET reward = reward + 1e-9 WHERE decision_index = 1")
    assert "'session'" in str(trace(tmp_path / "out").broken)
    plan = SessionPlan(out=tmp_path / "baseline", controller="never", preset="realtime", steps=2, quiet=True)
    run_session(plan)
    baseline = trace(tmp_path / "baseline")
    assert baseline.broken is None
    assert {row.verdict for row in baseline.rows if row.link in LINKS} == {"absent"}


def test_a_killed_session_is_readable_and_not_closed(tmp_path: Path) -> None:
    export = make_export(tmp_path / "export")
    with HostBoard() as board:
        arguments = command("--policy", export, "--port", board.port, "--out", tmp_path / "out", "--steps", "100000")
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 150
        while time.monotonic() < end and not recorded(tmp_path / "out"):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = sea_dbs("trace", tmp_path / "out", "--export", export)
    assert done.returncode == 0, done.stderr
    assert "not closed" in done.stdout
    found = trace(tmp_path / "out", export)
    assert not found.closed
    assert [row.verdict for row in found.rows if row.link in ("onnx", "session")] == ["held", "held", "not closed"]


def recorded(out: Path) -> bool:
    try:
        return len(table_of(out, "decisions")) >= 2
    except UserError:
        return False  # it is being made
