"""A board that decides in a session: the same bits as on the host, the same pulses, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import UserError
from export import chain
from export.integer import IntegerModel, c_source, quantise
from export.integer import run as run_integers
from firmware_bridge.board import HostBoard
from firmware_bridge.boards import start_board
from firmware_bridge.plan import SessionPlan, prepare
from firmware_bridge.session import run_parts, run_session
from firmware_bridge.summary import summarise
from tests.integer_tools import model
from tests.session_tools import SHORT, change_recording, make_export, table_of

ENVIRONMENT: dict[str, Any] = {**SHORT, "stride_ms": 1.0, "n_obs": 200}  # two frames an observation
DECIDED = ("observation", "observation_int8", "logits_int32", "mask", "applied_mask", "start_us", "pulses", "P_beta")


def board_export(folder: Path, actor: str) -> Path:
    """An export folder with an integer policy that decides now so, now so."""
    make_export(folder, ENVIRONMENT)
    integers = model(actor, ENVIRONMENT["n_obs"], ENVIRONMENT["slots"], 4.0)
    integers.save(folder / "integer.npz")
    (folder / "c" / "int8").mkdir(parents=True)
    (folder / "c" / "int8" / "sea_policy.c").write_text(c_source(integers))
    chain.write(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def made_by_hand() -> Iterator[None]:
    """These exports' C follows from no ONNX file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("firmware_bridge.session.start_board", partial(start_board, unchecked_source_for_tests=True))
        yield


@pytest.fixture(scope="module", params=["tiny", "recurrent"])
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return board_export(tmp_path_factory.mktemp("policy") / "export", request.param)


@pytest.fixture(scope="module")
def by_board(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("board") / "out"
    summary = run_session(SessionPlan(out=out, policy=export, decide_on="board", steps=6, seed=4, quiet=True))
    assert summary["board_logits"] == {
        "decisions_checked": 6,
        "decisions_that_differ": 0,
        "values_that_differ": 0,
        "reference": "export.integer, bit by bit",
    }
    return out


def test_the_boards_logits_are_the_references(by_board: Path, export: Path) -> None:
    rows = table_of(by_board, "decisions")
    seen = np.stack([np.frombuffer(row["observation"], "<f4") for row in rows])
    integers = IntegerModel.load(export / "integer.npz")
    values = quantise(integers, seen)
    assert [row["observation_int8"] for row in rows] == [value.tobytes() for value in values]
    logits = run_integers(integers, values)  # from rest, as after ARM; a recurrent state goes from row to row
    for row, expected in zip(rows, logits, strict=True):
        np.testing.assert_array_equal(np.frombuffer(row["logits_int32"], "<i4").reshape(-1, 2), expected)
        assert row["mask"] == "".join(str(int(no < yes)) for no, yes in expected)
        margins = (expected[:, 1].astype(np.int64) - expected[:, 0]) >> integers.margin_shift
        np.testing.assert_array_equal(np.frombuffer(row["margins_int16"], "<i2"), np.clip(margins, -32768, 32767))
        assert (row["reason"], row["nack"], row["applied_mask"]) == ("as decided", None, row["mask"])
    assert len({row["mask"] for row in rows}) > 1, "the policy decides now so, now so"
    session = table_of(by_board, "session")[0]
    assert session["decide_on"] == "board (int8)"


def test_host_and_board_give_the_same_pulses(by_board: Path, export: Path, tmp_path: Path) -> None:
    plan = SessionPlan(out=tmp_path / "out", policy=export, steps=6, seed=4, quiet=True)
    parts = replace(prepare(plan), controller=prepare(replace(plan, decide_on="board")).controller)
    run_parts(plan, parts)
    host, board = table_of(tmp_path / "out", "decisions"), table_of(by_board, "decisions")
    assert [[row[name] for name in DECIDED] for row in host] == [[row[name] for name in DECIDED] for row in board]
    assert table_of(tmp_path / "out", "pulses") == table_of(by_board, "pulses")
    assert len(table_of(by_board, "pulses")) > 0


def test_in_lockstep_latency_is_nothing_to_claim(by_board: Path) -> None:
    latency = summarise(by_board / "session.sqlite")["latency_us"]
    assert latency["sample_to_pulse"]["max"] == 0
    assert "by construction" in latency["sample_to_pulse_is"]
    assert latency["split"] == {}


def test_a_board_that_computes_otherwise_is_counted_and_obeyed(export: Path, tmp_path: Path) -> None:
    """The check changes nothing: what the board decided is what the plant gets."""
    plan = SessionPlan(out=tmp_path / "out", policy=export, decide_on="board", steps=3, seed=4, quiet=True)
    parts = prepare(plan)
    change = {"q_centre": parts.controller.model.q_centre + 3}  # type: ignore[attr-defined]
    parts.controller.model = replace(parts.controller.model, **change)  # type: ignore[attr-defined]
    (head, *rest) = parts.controller.model.layers  # type: ignore[attr-defined]
    last = rest[-1]
    other = replace(last, bias=last.bias + 1000)
    parts.controller.model = replace(parts.controller.model, layers=(head, *rest[:-1], other))  # type: ignore[attr-defined]
    summary = run_parts(plan, parts)
    assert summary["board_logits"]["decisions_that_differ"] == 3
    assert summary["safety"]["violations"] == 0
    rows = table_of(tmp_path / "out", "decisions")
    assert all(row["applied_mask"] == row["mask"] for row in rows)
    assert summary["pulses"] == sum(row["mask"].count("1") for row in rows)


def test_in_real_time_the_parts_of_the_latency_add_up(export: Path, tmp_path: Path) -> None:
    for decide_on in ("host", "board"):
        out = tmp_path / decide_on
        plan = SessionPlan(
            out=out, policy=export, decide_on=decide_on, steps=4, seed=4, realtime=True, latency_ms=0, quiet=True
        )
        summary = run_session(plan)
        assert summary["safety"]["violations"] == 0
        latency = summary["latency_us"]
        assert set(latency["split"]) == {"observing", "link", "deciding", "waiting"}
        if latency["sample_to_pulse"]["n"] == 1:
            total = sum(part["p50"] for part in latency["split"].values())
            assert total == pytest.approx(latency["sample_to_pulse"]["p50"], abs=4)
        rows = table_of(out, "decisions")
        assert all(row["start_us"] == row["ack_us"] for row in rows if row["nack"] is None)  # slot 0 as soon as decided
        assert summary["deadline_misses"] == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"decide_on": "nobody"}, "--decide-on is 'nobody': host or board is expected"),
        ({"policy": None, "controller": "always"}, "--controller always decides on the host"),
        ({"policy": None}, "a session needs --policy EXPORT_DIR"),
        ({"precision": "int4"}, "--precision is 'int4': a board that decides holds int8, fp32, fp16"),
        ({"precision": "fp32"}, r"holds no C source of fp32 \(c/fp32/sea_policy.c\)"),
        (
            {"board": "qemu-m4f", "port": "/dev/null"},
            "--board qemu-m4f starts a board, --port /dev/null names a running",
        ),
        (
            {"latency_ms": -1.0, "realtime": True},
            r"--latency-ms is -1: 0 \(slot 0 as soon as it is decided\), or 0.001",
        ),
        ({"latency_ms": 0.0}, "--latency-ms belongs to --realtime"),
    ],
)
def test_options_that_do_not_go_together(export: Path, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    plan = SessionPlan(out=tmp_path / "out", policy=export, decide_on="board", steps=1, quiet=True)
    with pytest.raises(UserError, match=sentence):
        run_session(replace(plan, **change))
    assert not (tmp_path / "out").exists()


def test_an_export_without_integers_is_refused(tmp_path: Path) -> None:
    plan = SessionPlan(out=tmp_path / "out", policy=make_export(tmp_path / "export"), decide_on="board", quiet=True)
    with pytest.raises(UserError, match=r"holds no C source of int8 .* --precisions fp32,fp16,int8 --targets c"):
        run_session(plan)


def test_a_board_without_a_policy_is_refused(export: Path, tmp_path: Path) -> None:
    plan = SessionPlan(out=tmp_path / "out", policy=export, decide_on="board", steps=1, quiet=True)
    with (
        HostBoard(model_hash=prepare(plan).model_hash) as board,
        pytest.raises(UserError, match="holds no policy and cannot decide"),
    ):
        run_session(replace(plan, port=board.port))


def test_an_unknown_board_is_one_sentence(export: Path, tmp_path: Path) -> None:
    plan = SessionPlan(out=tmp_path / "out", policy=export, decide_on="board", board="qemu-m3", quiet=True)
    with pytest.raises(UserError, match="there is no board 'qemu-m3'"):
        run_session(plan)


def test_a_baseline_says_what_it_uses_of_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = make_export(tmp_path / "export")
    summary = run_session(SessionPlan(out=tmp_path / "out", policy=export, controller="never", steps=1))
    assert "never decides: of the policy" in capsys.readouterr().err
    assert summary["pulses"] == 0


@pytest.mark.timeout(120)
def test_an_emulated_board_decides(export: Path, tmp_path: Path) -> None:
    """The whole chain on a Cortex-M4F: real time, so that nothing is said of how fast, only of what."""
    plan = SessionPlan(
        out=tmp_path / "out",
        policy=export,
        decide_on="board",
        board="qemu-m4f",
        steps=4,
        seed=4,
        latency_ms=0,
        quiet=True,
    )
    summary = run_session(plan)
    assert summary["clock"] == "realtime"
    assert summary["board"] == "qemu-m4f"
    assert summary["board_logits"]["decisions_checked"] >= 4 - summary["refused"]
    assert summary["board_logits"]["values_that_differ"] == 0
    assert summary["safety"]["violations"] == 0


def test_recordings_made_before_boards_decided_are_read(by_board: Path, tmp_path: Path) -> None:
    old = tmp_path / "session.sqlite"
    old.write_bytes((by_board / "session.sqlite").read_bytes())
    columns = ("whole_us", "observation_int8", "logits_int32", "margins_int16", "logits_differ")
    change_recording(
        old,
        *[f"ALTER TABLE decisions DROP COLUMN {name}" for name in columns],
        "ALTER TABLE session DROP COLUMN decide_on",
    )
    summary = summarise(old)
    assert (summary["decide_on"], summary["board_logits"]) == ("host", None)
