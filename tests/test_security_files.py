"""Hostile files of every kind that is read: one sentence, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from envs.npz import read_npz
from envs.patients import read_cohort
from envs.untrusted import load_yaml, read_bounded
from firmware_bridge.trace import trace
from sea_dbs import checkpoint
from sea_dbs.config import load_config
from sea_dbs.recording_file import open_recording
from sea_dbs.recording_schema import SCHEMA
from sea_dbs.report.session_data import read_session


def one_sentence(read: Callable[[], object], *words: str) -> None:
    with pytest.raises(UserError) as error:
        read()
    said = str(error.value)
    assert "\n" not in said
    assert len(said) < 600
    assert all(word in said for word in words), said


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


# -- checkpoints -----------------------------------------------------------------------------------------------------


def as_torch(path: Path, content: object) -> None:
    torch.save(content, path)


def as_old_torch(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [as_torch, as_old_torch, as_pickle])
@pytest.mark.parametrize("name", [checkpoint.POLICY, checkpoint.CHECKPOINT])
def test_a_checkpoint_that_would_run_code_does_not(
    write: Callable[[Path, object], None], name: str, tmp_path: Path
) -> None:
    mark = tmp_path / "touched"
    write(tmp_path / name, {"format": 1, "weights": Touches(mark), "spec": {}})
    one_sentence(lambda: checkpoint.load(tmp_path / name), name)
    one_sentence(lambda: checkpoint.read_policy(tmp_path))
    assert not mark.exists()
    if write is as_pickle:  # the trap itself works
        pickle.loads((tmp_path / name).read_bytes())
        assert mark.exists()


def test_a_packed_checkpoint_and_impossible_sizes_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.pt"
    checkpoint.save(good, {"zeros": torch.zeros(1 << 20)})
    with zipfile.ZipFile(good) as from_, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as to:
        for entry in from_.infolist():
            to.writestr(entry.filename, from_.read(entry))
    one_sentence(lambda: checkpoint.load(tmp_path / "bomb.pt"), "bomb.pt")
    for spec in ({"n_obs": 10**9, "slots": 1}, {"n_obs": 1000, "slots": 10**9}, {"n_obs": "x", "slots": 1}, [1], None):
        whole = {"actor": "paper", **spec} if isinstance(spec, dict) else spec
        checkpoint.save(tmp_path / checkpoint.POLICY, {"spec": whole, "weights": {}})
        one_sentence(lambda: checkpoint.read_policy(tmp_path), checkpoint.POLICY)
    array = {"__array__": torch.zeros(8, dtype=torch.uint8), "dtype": "|O", "shape": [1]}
    torch.save({"format": 1, "objects": array}, tmp_path / "objects.pt")
    one_sentence(lambda: checkpoint.load(tmp_path / "objects.pt"), "objects.pt")


@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_checkpoint_is_one_sentence(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint.save(folder / "a.pt", {"value": np.arange(20), "step": 3})
    content = bytearray((folder / "a.pt").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.pt").write_bytes(content)
    with suppress(UserError):  # anything else is a failure
        checkpoint.load(folder / "a.pt")


# -- arrays ----------------------------------------------------------------------------------------------------------


def npz(path: Path, entries: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in entries.items():
            archive.writestr(f"{name}.npy", data)
    return path


def header(shape: str, descr: str = "<f8") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "touched"
    np.savez(tmp_path / "a.npz", P_beta=np.array([Touches(mark)], object))
    one_sentence(lambda: read_npz(tmp_path / "a.npz", ()), "Python objects")
    assert not mark.exists()
    with np.load(tmp_path / "a.npz", allow_pickle=True) as data:
        assert data["P_beta"] is not None
    assert mark.exists(), "the trap itself works"


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"a": header("(1000000000000,)")}, "not what it holds"),
        ({"a": header("(-1, -8)") + bytes(64)}, "not what it holds"),
        ({"a": header("(2,)") + bytes(8)}, "not what it holds"),
        ({"a": header("()", "|O") + bytes(8)}, "Python objects"),
        ({"a": header("(__import__('os').system('true'),)")}, "cannot read"),
        ({"a": b"no array"}, "cannot read"),
        ({f"a{i}": header("()") + bytes(8) for i in range(1001)}, "1001 arrays"),
    ],
)
def test_arrays_that_lie_are_refused(entries: dict[str, bytes], word: str, tmp_path: Path) -> None:
    one_sentence(lambda: read_npz(npz(tmp_path / "a.npz", entries), ()), word)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = npz(tmp_path / "bomb.npz", {"a": header(f"({1 << 21},)") + bytes(1 << 24)})
    assert path.stat().st_size < 20_000
    one_sentence(lambda: read_npz(path, (), max_bytes=1 << 20), "unpacks to")
    assert read_npz(path, ("a",))["a"].nbytes == 1 << 24
    data = bytearray(path.read_bytes())  # the table now says less than it unpacks to
    for size_at in (22, data.rindex(b"PK\x01\x02") + 24):
        data[size_at : size_at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    one_sentence(lambda: read_npz(path, (), max_bytes=1 << 20), "cannot read")


# -- YAML ------------------------------------------------------------------------------------------------------------

BILLION_LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(9)
)
HOSTILE_YAML = {
    "aliases": BILLION_LAUGHS,
    "merges": "a: &a {x: 1, y: 2}\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join([f'*{chr(97 + i)}'] * 10)}]}}\n" for i in range(9)),
    "recursion": "a: &a [*a]\n",
    "depth": "a: " + "[" * 100_000,
    "size": "#" * (1 << 20) + "\na: 1\n",
    "base 60": "a: " + "1:" * 4000 + "1\n",
    "digits": "a: " + "9" * 50_000 + "\n",
    "date": "a: 2026-99-99\n",
    "python": "a: !!python/object/apply:os.system ['touch touched']\n",
    "python name": "preset: !!python/name:os.system\n",
    "key": "? [a, b]\n: 1\n",
    "set": "!!set {a, b}\n",
    "bytes": b"\xff\xfe\x00".decode("latin-1"),
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_hostile_yaml_is_one_sentence_everywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.yaml"
    path.write_text(HOSTILE_YAML[name], encoding="utf-8")
    one_sentence(lambda: load_config(path), "hostile.yaml")
    one_sentence(lambda: read_cohort(path), "hostile.yaml")
    assert not (tmp_path / "touched").exists()


def test_plain_aliases_are_taken_and_pipes_are_not(tmp_path: Path) -> None:
    assert load_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: 1}}") == {"a": [1, 2], "b": [1, 2], "c": {"d": 1}}
    os.mkfifo(tmp_path / "pipe")
    one_sentence(lambda: read_bounded(tmp_path / "pipe", 10, "the config"), "no plain file")
    (tmp_path / "large").write_bytes(bytes(11))
    one_sentence(lambda: read_bounded(tmp_path / "large", 10, "the config"), "larger than the 10 bytes")


@given(text=st.text(alphabet="&*ab:[]{},!<|>-? \n\t'\"#%@`0.1e", max_size=60))
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    with suppress(yaml.YAMLError):
        load_yaml(text)


# -- recordings ------------------------------------------------------------------------------------------------------


@contextmanager
def recording(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA)
        db.execute("PRAGMA user_version = 1")
        yield db
        db.commit()


HOSTILE_SQL = {
    "view": "DROP TABLE pulses; CREATE VIEW pulses AS SELECT * FROM events",
    "endless view": "DROP TABLE pulses; CREATE VIEW pulses AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 "
    "FROM c) SELECT x FROM c",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM pulses; END",
    "virtual table": "CREATE VIRTUAL TABLE f USING fts5(a)",
    "computes": "DROP TABLE pulses; CREATE TABLE pulses (a, b AS (zeroblob(900000000)))",
}


@pytest.mark.parametrize("word", HOSTILE_SQL)
def test_a_recording_with_more_than_tables_is_refused(word: str, tmp_path: Path) -> None:
    path = tmp_path / "session.sqlite"
    with recording(path) as db:
        db.executescript(HOSTILE_SQL[word])
    before = path.read_bytes()
    one_sentence(lambda: read_session(path), word.split()[-1])
    one_sentence(lambda: trace(path), word.split()[-1])
    assert path.read_bytes() == before


def test_a_recording_is_only_read(tmp_path: Path) -> None:
    path = tmp_path / "session.sqlite"
    with recording(path):
        pass
    for statement in ("DELETE FROM pulses", "CREATE TABLE x (a)", f"ATTACH '{tmp_path / 'other'}' AS o",
                      "PRAGMA query_only = OFF; DELETE FROM pulses", "SELECT load_extension('x')"):  # fmt: skip

        def run(text: str = statement) -> None:
            with open_recording(path) as db:
                for part in text.split(";"):
                    db.execute(part)

        one_sentence(run, "session.sqlite")
    assert not (tmp_path / "other").exists()


def test_a_recording_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large.sqlite").open("wb") as stream:
        stream.truncate((1 << 30) + 1)  # sparse: it takes no disk
    one_sentence(lambda: read_session(tmp_path / "large.sqlite"), "more than")


@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_recording_is_one_sentence(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("recording") / "session.sqlite"
    with recording(path):
        pass
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(16, 4000))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    one_sentence(lambda: read_session(path), "session.sqlite")  # even a whole one holds no session
