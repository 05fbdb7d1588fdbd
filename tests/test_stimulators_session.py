"""Sessions over an emulated stimulator: what it says it gave drives the plant, and every report warns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from envs.errors import UserError
from firmware_bridge.plan import SessionPlan
from firmware_bridge.stimulators.session import run_stimulator_session
from sea_dbs.report import style
from sea_dbs.report.find import find
from sea_dbs.report.page import Text
from sea_dbs.report.sections import session_section
from sea_dbs.report.session_data import NO_DEVICE_ENVELOPE, read_session
from tests.session_tools import make_export
from tests.stimulator_tools import emulated


@pytest.mark.parametrize(("kind", "width", "amplitude"), [("stimjim", None, 3000), ("pulsepal", 100, 1800)])
def test_a_policy_closes_the_loop_over_a_stimulator(
    kind: str, width: int | None, amplitude: int, tmp_path: Path
) -> None:
    plan = SessionPlan(out=tmp_path / "out", policy=make_export(tmp_path / "export"), steps=5, quiet=True)
    with emulated(kind, tmp_path) as device:
        summary = run_stimulator_session(plan, f"{kind}:{device.port}", width)
        given = device.pulses()
    data = read_session(plan.out / "session.sqlite")
    recorded = [(row["device_us"], row["amplitude_uA"], row["width_us"]) for row in data.pulses]
    assert recorded == [(row["t_us"], *row["phases"][0]) for row in given if row["t_us"] < recorded[-1][0] + 1]
    assert {(-amplitude, width or 60)} == {pulse[1:] for pulse in recorded}
    assert len(given) - len(recorded) <= 1  # one may have come after the last look
    assert sum(row["pulses"] for row in data.done) >= 1  # the plant was given them
    assert summary["outcome"] == "finished"
    assert summary["decisions"] == 5
    assert summary["safety"]["violations"] == 0
    assert summary["clock"] == "realtime"
    assert summary == json.loads((plan.out / "summary.json").read_text())
    assert summary["mode"].startswith(NO_DEVICE_ENVELOPE)
    assert summary["stimulator"]["device_envelope"] is False
    assert summary["stimulator"]["triggers"] > 0
    assert not data.device_envelope


def test_the_report_warns_in_red(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    plan = SessionPlan(out=tmp_path / "out", controller="always", steps=1, quiet=True)
    with emulated("stimjim", tmp_path) as device:
        run_stimulator_session(plan, f"stimjim:{device.port}")
    red = tuple(int(style.WARNING[i : i + 2], 16) for i in (1, 3, 5))
    pixels = (image.imread(plan.out / "session.png")[..., :3] * 255).round().astype(int)
    assert (pixels == red).all(axis=-1).sum() > 100
    found = find(plan.out)
    part = found.sessions[0]
    section = session_section(found, [(part, read_session(plan.out / "session.sqlite"))])
    assert any(isinstance(block, Text) and block.tone == "bad" for block in section.blocks)


def test_a_stimulator_that_fails_ends_the_session_and_says_why(tmp_path: Path) -> None:
    plan = SessionPlan(out=tmp_path / "out", policy=make_export(tmp_path / "export"), steps=5, quiet=True)
    with (
        emulated("pulsepal", tmp_path, "--misbehave", "silent", "--after", "25") as device,
        pytest.raises(UserError, match="no answer to the handshake"),
    ):
        run_stimulator_session(plan, f"pulsepal:{device.port}", 100)
    data = read_session(plan.out / "session.sqlite")
    assert "no answer to the handshake" in data.session["outcome"]


def test_what_cannot_be_is_refused_in_one_sentence(tmp_path: Path) -> None:
    policy = make_export(tmp_path / "export")
    plan = SessionPlan(out=tmp_path / "out", policy=policy, steps=1, quiet=True)
    with emulated("pulsepal", tmp_path) as device:
        for stimulator, width, says in (
            ("stimjim", None, "must be stimjim:PORT"),
            (f"master8:{device.port}", None, "must be stimjim:PORT"),
            (f"stimjim:{device.port}", None, "belongs to an emulated pulsepal"),
            ("pulsepal:/dev/null", None, "bench mode only"),
            ("pulsepal:/dev/no-such-port", None, "there is no port"),
            (f"pulsepal:{device.port}", None, "only 100 µs"),
            (f"pulsepal:{device.port}", 0, "at least 1"),
        ):
            with pytest.raises(UserError, match=says):
                run_stimulator_session(plan, stimulator, width)
        for other in (
            replace(plan, board="qemu-m4f"),
            replace(plan, decide_on="board"),
            replace(plan, source="file:x"),
            replace(plan, port="/dev/pts/0"),
        ):
            with pytest.raises(UserError, match="--stimulator"):
                run_stimulator_session(other, f"pulsepal:{device.port}", 100)
    assert not plan.out.exists()
