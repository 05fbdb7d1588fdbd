"""Sessions of a policy that is shown the duties of its own decisions: what the board gave, beside what was sensed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from session_tools import SHORT, make_export, table_of

from envs.config import env_config
from envs.errors import UserError
from firmware_bridge.plan import SessionPlan, check_decides, prepare
from firmware_bridge.release.check import Asked, check
from firmware_bridge.session import run_session
from firmware_bridge.streams import observed
from sea_dbs.report.session_data import read_session

OWN = 3
STEPS = 5


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("policy") / "export", {**SHORT, "own_duties": OWN})


@pytest.fixture(scope="module")
def recorded(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("session") / "out"
    run_session(SessionPlan(out=out, policy=export, steps=STEPS, seed=4, quiet=True))
    return out


def seen(folder: Path) -> NDArray[np.float32]:
    return np.stack([np.frombuffer(row["observation"], "<f4") for row in table_of(folder, "decisions")])


def test_the_policy_is_shown_what_came_on_the_electrode(recorded: Path) -> None:
    given = [row["pulses"] / SHORT["slots"] for row in table_of(recorded, "decisions")]
    assert len(given) == STEPS
    assert 0 < sum(given) < STEPS
    for k, row in enumerate(seen(recorded)):
        np.testing.assert_array_equal(row[:OWN], np.float32(([0.0] * OWN + given)[k : k + OWN]))
    assert [row["nack"] for row in table_of(recorded, "decisions")] == [None] * STEPS
    assert json.loads((recorded / "summary.json").read_text())["safety"]["violations"] == 0


def test_beta_of_the_recording_holds_none_of_it(recorded: Path) -> None:
    data = read_session(recorded / "session.sqlite")
    times, beta = data.beta_trace()
    np.testing.assert_allclose(np.diff(times), 0.02, atol=1e-9)  # a value each 20 ms, without a gap
    np.testing.assert_allclose(beta[:10], 1000.0 * seen(recorded)[0, OWN:], rtol=1e-6)
    assert beta.min() > 50.0


def test_a_recording_is_replayed_to_a_policy_with_duties_of_its_own(
    recorded: Path, export: Path, tmp_path: Path
) -> None:
    source = f"file:{recorded / 'session.sqlite'}"
    run_session(SessionPlan(out=tmp_path / "same", policy=export, source=source, steps=STEPS, quiet=True))
    np.testing.assert_array_equal(seen(tmp_path / "same"), seen(recorded))
    run_session(
        SessionPlan(out=tmp_path / "off", policy=export, controller="never", source=source, steps=STEPS, quiet=True)
    )
    assert not seen(tmp_path / "off")[:, :OWN].any()
    np.testing.assert_array_equal(seen(tmp_path / "off")[:, OWN:], seen(recorded)[:, OWN:])


def test_a_sensor_that_stands_still_is_found_though_the_duties_change(export: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "flat.npz", P_beta=np.full(60, 400.0), rate_hz=50)
    out = tmp_path / "out"
    plan = SessionPlan(out=out, policy=export, source=f"file:{tmp_path / 'flat.npz'}", steps=3, quiet=True)
    with suppress(UserError):  # the board may give the loop up
        run_session(plan)
    rows = table_of(out, "decisions")
    assert rows
    assert not any(row["pulses"] for row in rows)
    assert all(row["nack"] is not None for row in rows)
    assert "all its values are equal" in rows[0]["reason"]


def test_a_board_does_not_decide_by_such_a_policy_nor_is_it_released(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = r"shown the duties of its own last 3 decisions.*--decide-on host.*cannot be released"
    monkeypatch.setattr("firmware_bridge.plan._check_board", lambda plan: "int8")
    with pytest.raises(UserError, match=words):
        prepare(SessionPlan(out=tmp_path / "out", policy=export, decide_on="board", steps=2))
    with pytest.raises(UserError, match=words):
        check(Asked(export, tmp_path / "released"))
    check_decides(env_config("paper", **SHORT))


def test_streams_name_duties_before_beta() -> None:
    config = env_config("paper", **SHORT, own_duties=2).model_dump()
    names = [name for name, *_ in observed(config, 12, 20.0)]
    assert names[:3] == ["duty_-2", "duty_-1", "P_beta_-180_ms"]
    assert names[-1] == "P_beta_0_ms"
    assert [name for name, *_ in observed(env_config("paper", **SHORT).model_dump(), 10, 20.0)] == names[2:]
