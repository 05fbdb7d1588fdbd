"""Sessions whose observations come from a file or a live stream: replayed exactly, checked, stopped by name."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pynwb import NWBHDF5IO
from session_tools import SHORT, change_recording, make_export, table_of

from envs.config import EnvConfig, env_config
from envs.errors import UserError
from firmware_bridge.archive import archive_session
from firmware_bridge.plan import SessionPlan, prepare
from firmware_bridge.session import run_parts, run_session
from firmware_bridge.sources import open_source, source_of
from firmware_bridge.summary import summarise
from sea_dbs.report.session_data import read_session
from sea_dbs.rollout import begin

CONFIG = env_config("paper", **SHORT)  # 10 values, one each 20 ms; decisions of 10 slots of 20 ms
RATE = 50.0
BETA = 400.0 + 100.0 * np.sin(np.arange(200) / 3.0)  # spikes²/s²


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("policy") / "export")


@pytest.fixture(scope="module")
def recorded(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of four decisions on the plant."""
    out = tmp_path_factory.mktemp("session") / "out"
    run_session(SessionPlan(out=out, policy=export, steps=4, seed=4, quiet=True))
    return out / "session.sqlite"


def write_csv(path: Path, beta: Any = BETA, rate: float = RATE, header: str = "time_s,P_beta") -> Path:
    with path.open("w", newline="") as stream:
        stream.write(header + "\n")
        csv.writer(stream).writerows((f"{i / rate:.6f}", repr(float(value))) for i, value in enumerate(beta))
    return path


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_recorded_session_is_replayed_byte_for_byte(recorded: Path, export: Path, tmp_path: Path) -> None:
    plan = SessionPlan(out=tmp_path / "out", policy=export, source=f"file:{recorded}", steps=4, quiet=True)
    summary = run_session(plan)
    before, after = table_of(recorded.parent, "decisions"), table_of(tmp_path / "out", "decisions")
    for name in ("observation", "logits", "mask", "applied_mask", "pulses"):
        assert [row[name] for row in after] == [row[name] for row in before], name
    for name in ("P_beta", "P_beta_last", "reward"):  # of float32 values, where the plant's are float64
        assert [row[name] for row in after] == pytest.approx([row[name] for row in before], rel=1e-6)
    ends = [table_of(folder, "session")[0]["final_observation"] for folder in (recorded.parent, tmp_path / "out")]
    assert ends[0] == ends[1] is not None
    assert len(table_of(tmp_path / "out", "pulses")) == len(table_of(recorded.parent, "pulses")) > 0
    assert summary["safety"]["violations"] == 0
    assert "no plant was driven" in summary["source"]
    assert "session.sqlite" in summary["source"]
    assert summarise(recorded)["source"] == "plant"


@pytest.mark.parametrize("kind", ["csv", "npz with times", "npz with a rate"])
def test_samples_become_observations(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("beta.csv" if kind == "csv" else "beta.npz")
    if kind == "csv":
        write_csv(path)
    elif kind == "npz with times":
        np.savez(path, P_beta=BETA, time_s=7.0 + np.arange(200) / RATE)
    else:
        np.savez(path, P_beta=BETA.astype(np.float32), rate_hz=50)
    env = open_source(f"file:{path}", CONFIG, steps=19)
    start = begin([env], [0])
    assert np.allclose(start.observation[0], BETA[:10] / 1000, rtol=1e-6)
    for step in range(1, 20):
        observation, _, _, _, info = env.step(np.ones(10, np.int8))
        assert np.allclose(observation, BETA[10 * step : 10 * step + 10] / 1000, rtol=1e-6)
        assert info["P_beta"] == pytest.approx(BETA[10 * step : 10 * step + 10].mean(), rel=1e-6)
        assert info["pulses"] == 0  # nobody delivers
    with pytest.raises(UserError, match="has ended, after 19 decisions"):
        env.step(np.ones(10, np.int8))


def spoiled(index: int, value: float) -> Any:
    beta = BETA.copy()
    beta[index] = value
    return beta


def test_a_file_that_does_not_fit_is_one_sentence(recorded: Path, tmp_path: Path) -> None:
    good = np.arange(200) / RATE
    gap = np.concatenate([good[:50], good[50:] + 0.04])
    npz = tmp_path / "beta.npz"
    for arrays, sentence in (
        ({"P_beta": spoiled(17, np.nan), "rate_hz": 50}, "sample 17 is nan"),
        ({"P_beta": spoiled(17, np.inf), "rate_hz": 50}, "sample 17 is inf"),
        ({"P_beta": spoiled(17, -1.0), "rate_hz": 50}, "sample 17 is -1"),
        ({"P_beta": BETA * 1e6, "rate_hz": 50}, "sample 0 is 4e"),
        ({"P_beta": BETA, "rate_hz": 100}, "100 samples a second, the preset 'paper' takes 50"),
        ({"P_beta": BETA, "rate_hz": np.nan}, "nan samples a second"),
        ({"P_beta": BETA, "time_s": gap}, "gap: sample 50 comes 60 ms after"),
        ({"P_beta": BETA, "time_s": good[::-1]}, "samples a second"),
        ({"P_beta": BETA, "time_s": good[:10]}, r"time_s has shape \(10,\)"),
        ({"P_beta": BETA}, "either time_s .* or rate_hz"),
        ({"beta": BETA, "rate_hz": 50}, "must hold P_beta"),
        ({"P_beta": BETA.reshape(2, 100), "rate_hz": 50}, "must hold P_beta"),
        ({"P_beta": BETA[:29], "rate_hz": 50}, "holds 1 decisions of 200 ms, --steps asks for 4"),
        ({"P_beta": BETA[:5], "rate_hz": 50}, "holds 0 decisions"),
        ({"P_beta": np.array([None]), "rate_hz": 50}, "cannot read .*Python objects"),
    ):
        np.savez(npz, allow_pickle=True, **arrays)
        with pytest.raises(UserError, match=sentence):
            open_source(f"file:{npz}", CONFIG, steps=4)
    text = tmp_path / "beta.csv"
    for content, sentence in (
        ("t,beta\n0,1\n", "begins with t,beta"),
        ("time_s,P_beta\n0,1\n0.02,one\n", "line 3: two numbers"),
        ("time_s,P_beta\n0,1\n", "at least 2"),
        ("time_s,P_beta\n0,1\nnan,1\n0.04,1\n", "time of sample 1 is not finite"),
        ("time_s,P_beta\n0,1\n0.02,nan\n0.04,1\n", "sample 1 is nan"),
        ("", "header time_s,P_beta"),
    ):
        text.write_text(content)
        with pytest.raises(UserError, match=sentence):
            open_source(f"file:{text}", CONFIG, steps=4)
    for spec, sentence in (
        ("film:x", "plant, file:RECORDING or lsl:NAME is expected"),
        ("file:", "plant, file:RECORDING or lsl:NAME is expected"),
        ("file:nowhere.csv", "no recording nowhere.csv"),
        (f"file:{Path(__file__)}", ".sqlite, .npz or .csv is expected"),
        ("lsl:beta", "pass --realtime"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_source(spec, CONFIG, steps=4)
    with pytest.raises(UserError, match=r"holds 4 decisions .* asks for 5"):
        open_source(f"file:{recorded}", CONFIG, steps=5)
    with pytest.raises(UserError, match=r"recorded with \(n_obs, slots, slot_us, stride_ms\)"):
        open_source(f"file:{recorded}", env_config("realtime"), steps=1)


@pytest.mark.parametrize("spec", ["file:beta.csv", "file:session.sqlite", "lsl:beta"])
@pytest.mark.parametrize(
    ("observed", "sentence"),
    [
        ({"obs": "lfp"}, "but the STN's LFP is observed: plant alone gives it"),
        ({"slots": 1, "view": "slots", "reward_signal": "newest"}, "but the GPi in single slots is observed"),
        ({"slots": 1, "view": "slots", "reward_signal": "newest", "obs": "lfp"}, "LFP in single slots is observed"),
    ],
)
def test_what_a_source_cannot_give_is_refused(spec: str, observed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=f"^--source {spec} gives P_beta of sliding windows, .*{sentence}"):
        open_source(spec, env_config("paper", **{**SHORT, **observed}), steps=4, realtime=True)


def test_a_session_that_observed_the_lfp(tmp_path: Path) -> None:
    """Its P_beta is what came of each decision, in picture and archive; its observations are no P_beta for anybody."""
    policy = make_export(tmp_path / "export", {**SHORT, "obs": "lfp"})
    run_session(SessionPlan(out=tmp_path / "out", policy=policy, steps=4, seed=4, quiet=True))
    path = tmp_path / "out" / "session.sqlite"
    data = read_session(path)
    assert not data.observes_beta
    times, values = data.beta_trace()
    assert list(values) == [row["P_beta_last"] for row in data.done]
    assert np.allclose(np.diff(times), 0.2)
    assert (tmp_path / "out" / "session.png").stat().st_size > 10_000
    archive_session(path, tmp_path / "out.nwb")
    with NWBHDF5IO(tmp_path / "out.nwb", "r") as io:
        beta = io.read().acquisition["P_beta"]
        assert beta.rate == pytest.approx(5.0)
        assert np.allclose(beta.data[:], values)
        assert "observed something else" in beta.description
    with pytest.raises(UserError, match="observed no P_beta"):
        open_source(f"file:{path}", CONFIG, steps=1)


def test_a_recording_with_a_gap_is_refused(recorded: Path, tmp_path: Path) -> None:
    for statement, sentence in (
        ("DELETE FROM decisions WHERE decision_index = 1", "gap: decision 2 comes 400000 µs after"),
        ("UPDATE decisions SET observation = x'00' WHERE decision_index = 2", "observation 2 is damaged"),
    ):
        path = tmp_path / "session.sqlite"
        path.write_bytes(recorded.read_bytes())
        change_recording(path, statement)
        with pytest.raises(UserError, match=sentence):
            open_source(f"file:{path}", CONFIG, steps=1)


# -- a live stream -------------------------------------------------------------------------------------------------

OUTLET = """
import os, sys, time
import pylsl
name, rate, unit, channels, kind, stop, spoil, skip = sys.argv[1:]
info = pylsl.StreamInfo(name, "P_beta", int(channels), float(rate), kind, name + "-id")
if unit:
    info.desc().append_child("channels").append_child("channel").append_child_value("unit", unit)
outlet = pylsl.StreamOutlet(info)
print("ready", flush=True)
start, count, sent = pylsl.local_clock(), 0, 0
while os.getppid() != 1:
    at = start + count / 50.0
    time.sleep(max(0.0, at - pylsl.local_clock()))
    if outlet.have_consumers() or sent:
        if sent == int(stop):
            time.sleep(3.0)
        value = float("nan") if sent == int(spoil) else 400.0 + sent % 7
        if sent == int(skip):
            count += 10
            at += 0.2
        outlet.push_sample([value] * int(channels), at)
        sent += 1
    count += 1
"""


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """liblsl's settings: this machine alone; read once a process, before the first stream."""
    settings = tmp_path / "lsl.cfg"
    settings.write_text("[lab]\nKnownPeers = {127.0.0.1}\n[multicast]\nResolveScope = machine\n")
    monkeypatch.setenv("LSLAPICFG", str(settings))
    return {"LSLAPICFG": str(settings)}


@contextmanager
def outlet(
    name: str,
    rate: float = 50.0,
    unit: str = "spikes²/s²",
    channels: int = 1,
    kind: str = "float32",
    stop: int = -1,
    spoil: int = -1,
    skip: int = -1,
) -> Iterator[subprocess.Popen[str]]:
    """A process that sends P_beta at 50 Hz; ``stop``: silent after so many, ``spoil``: one NaN, ``skip``: a gap."""
    arguments = [str(value) for value in (name, rate, unit, channels, kind, stop, spoil, skip)]
    with subprocess.Popen([sys.executable, "-c", OUTLET, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def live(export: Path, out: Path, name: str, steps: int = 4, *, prelude: bool = False) -> SessionPlan:
    return SessionPlan(
        out=out, policy=export, source=f"lsl:{name}", steps=steps, realtime=True, prelude=prelude, quiet=True
    )


@pytest.mark.usefixtures("local")
def test_a_stream_closes_the_loop(export: Path, tmp_path: Path) -> None:
    with outlet("beta-good"):
        summary = run_session(live(export, tmp_path / "out", "beta-good", prelude=True))
    assert summary["outcome"] == "finished"
    assert summary["decisions"] == 4
    assert summary["safety"]["violations"] == 0
    assert "lsl:beta-good" in summary["source"]
    assert "no plant was driven" in summary["source"]
    rows = table_of(tmp_path / "out", "decisions")
    values = np.concatenate([np.frombuffer(row["observation"], "<f4") for row in rows]) * 1000 - 400
    steps = np.diff(np.rint(values).astype(int)) % 7
    assert (steps == 1).all()  # every sample once, in order, none left out between decisions
    pulses = table_of(tmp_path / "out", "pulses")
    assert len(pulses) == summary["pulses"] > 0


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ({"stop": 110}, r"is silent: no sample within 0.5 s after sample \d+$"),
        ({"spoil": 110}, r"sample \d+ is nan: P_beta is finite"),
        ({"skip": 110}, r"gap: sample \d+ comes 2\d\d.\d ms after the one before it, 20 ms are expected"),
    ],
)
def test_a_stream_that_fails_stops_the_session(
    export: Path, tmp_path: Path, trouble: dict[str, int], sentence: str
) -> None:
    with outlet("beta-bad", **trouble), pytest.raises(UserError, match=sentence):  # type: ignore[arg-type]
        run_session(live(export, tmp_path / "out", "beta-bad", 20))
    session = table_of(tmp_path / "out", "session")[0]
    assert "beta-bad" in session["outcome"]
    assert "stop" in [row["kind"] for row in table_of(tmp_path / "out", "events")]
    assert 0 < len(table_of(tmp_path / "out", "decisions")) < 20


@pytest.mark.usefixtures("local")
def test_a_stream_that_ends_stops_the_session(export: Path, tmp_path: Path) -> None:
    with outlet("beta-ends") as process:
        plan = live(export, tmp_path / "out", "beta-ends", 20)
        parts = prepare(plan)
        source = source_of(parts.env)
        assert source is not None
        take, count = source.source.following, 0

        def following() -> Any:
            nonlocal count
            count += 1
            if count == 3:
                process.kill()
            return take()

        source.source.following = following  # type: ignore[method-assign]
        with pytest.raises(UserError, match=r"LSL stream 'beta-ends' (ended|is silent)"):
            run_parts(plan, parts)
    assert len(table_of(tmp_path / "out", "decisions")) >= 1


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"rate": 100.0}, "100 samples a second, the preset 'paper' takes 50"),
        ({"rate": 0.0}, "0 samples a second"),
        ({"unit": "uV"}, "the unit 'uV'"),
        ({"unit": ""}, "has no unit"),
        ({"channels": 2}, "has 2 channels"),
        ({"kind": "int16"}, "the format int16"),
    ],
)
def test_a_stream_that_does_not_fit_is_refused(made: dict[str, Any], sentence: str) -> None:
    with outlet("beta-odd", **made), pytest.raises(UserError, match=sentence):
        open_source("lsl:beta-odd", CONFIG, steps=1, realtime=True)


@pytest.mark.usefixtures("local")
def test_no_stream_and_two_streams_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware_bridge.lsl_source.RESOLVE_S", 1.0)
    with pytest.raises(UserError, match="there is no LSL stream 'beta-none'"):
        open_source("lsl:beta-none", CONFIG, steps=1, realtime=True)
    with outlet("beta-two"), outlet("beta-two"), pytest.raises(UserError, match="2 LSL streams 'beta-two'"):
        open_source("lsl:beta-two", CONFIG, steps=1, realtime=True)


def test_the_plant_is_a_source_too() -> None:
    env = open_source("plant", EnvConfig(**{**CONFIG.model_dump(), "settle_ms": 400.0}), steps=1)
    assert source_of(env) is None
    assert replace(SessionPlan(out=Path("x")), source="plant").source == "plant"
