"""The streams of a session, heard by real inlets of another process on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_tools import SHORT, make_export, table_of

from envs import make_env
from envs.registration import base_env
from firmware_bridge.streams import observed

NAMES = ("lfp", "P_beta", "policy_obs", "stim_cmd", "stim_applied", "pulses", "faults", "clock_offset")

LISTENER = """
import json, sys, time
import pylsl
names, found, inlets = sys.argv[1].split(","), {}, {}
print("ready", flush=True)
end = time.monotonic() + 60
while len(inlets) < len(names) and time.monotonic() < end:
    for name in set(names) - set(inlets):
        for info in pylsl.resolve_byprop("name", name, 1, 2.0):
            inlets[name] = pylsl.StreamInlet(info, max_buflen=600, recover=False)
            inlets[name].open_stream(5)
heard = {name: [] for name in inlets}
about = {}
for name, inlet in inlets.items():
    info = inlet.info(5)
    channel, listed = info.desc().child("channels").child("channel"), []
    while not channel.empty():
        listed.append([channel.child_value("label"), channel.child_value("unit")])
        channel = channel.next_sibling("channel")
    session = info.desc().child("session")
    about[name] = {
        "rate": info.nominal_srate(), "id": info.source_id(), "channels": listed, "count": info.channel_count(),
        "what": info.desc().child_value("description"), "type": info.type(),
        "mode": session.child_value("mode"), "controller": session.child_value("controller"),
    }
print("open", flush=True)
stopped, quiet = False, time.monotonic()
while time.monotonic() < end and not (stopped and time.monotonic() - quiet > 0.5):
    for name, inlet in inlets.items():
        samples, stamps = inlet.pull_chunk(0.01, 4096)
        heard[name] += [[stamp, *values] for stamp, values in zip(stamps, samples)]
        if samples:
            quiet = time.monotonic()
            stopped |= name == "faults" and any(sample[0] == "stop" for sample in samples)
for inlet in inlets.values():
    inlet.close_stream()
print(json.dumps({"about": about, "heard": heard, "stopped": stopped}), flush=True)
"""

# The session waits until every stream has its listener: nothing is missed.
SESSION = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from firmware_bridge import streams
from firmware_bridge.plan import SessionPlan
from firmware_bridge.session import run_session

class Patient(streams.LslStreams):
    def __enter__(self):
        end = time.monotonic() + 60
        while not all(outlet.have_consumers() for outlet in self._outlets.values()) and time.monotonic() < end:
            time.sleep(0.01)
        return self
    def close(self):
        time.sleep(1.5)  # inlets close first
        super().close()

import firmware_bridge.session
firmware_bridge.session.LslStreams = Patient
plan = SessionPlan(
    out=Path({out!r}), policy=Path({policy!r}), steps=4, seed=4, quiet=True, lsl=True, realtime={realtime}
)
run_session(plan)
"""


@contextmanager
def python(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def streamed(folder: Path, *, realtime: bool, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a session and hear all of its streams."""
    settings = folder / "lsl.cfg"
    # A session id of its own: other streams on this machine are not seen.
    lab = f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = {folder.name}\n"
    settings.write_text(f"{lab}[multicast]\nResolveScope = machine\n[ports]\nIPv6 = disable\n")
    monkeypatch.setenv("LSLAPICFG", str(settings))
    policy = make_export(folder / "export")
    script = SESSION.format(
        tests=str(Path(__file__).parent), out=str(folder / "out"), policy=str(policy), realtime=realtime
    )
    with python(LISTENER, ",".join(NAMES)) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        said = listener.communicate(timeout=60)[0].splitlines()
    assert said[0] == "open"
    return {**json.loads(said[1]), "began": began, "ended": time.monotonic()}


@pytest.mark.parametrize("realtime", [False, True], ids=["lockstep", "realtime"])
def test_all_that_is_recorded_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, realtime: bool) -> None:
    got = streamed(tmp_path, realtime=realtime, monkeypatch=monkeypatch)
    heard, about = got["heard"], got["about"]
    decisions, pulses = table_of(tmp_path / "out", "decisions"), table_of(tmp_path / "out", "pulses")
    events = table_of(tmp_path / "out", "events")

    assert got["stopped"]
    assert about["P_beta"] | {"mode": ""} == {
        "what": "",
        "type": "P_beta",
        "rate": 50.0,
        "id": "sea-dbs-paper-4-P_beta",
        "channels": [["P_beta", "spikes^2/s^2"]],
        "count": 1,
        "mode": "",
        "controller": "policy-onnx-fp16",
    }
    assert all("bench mode" in one["mode"] for one in about.values())
    assert len({one["id"] for one in about.values()}) == len(NAMES)
    assert all(len(one["channels"]) == one["count"] for one in about.values())
    assert about["policy_obs"]["channels"][0] == ["P_beta_-180_ms", "spikes^2/s^2 / 1000"]
    assert about["stim_applied"]["count"] == 7 + 10

    assert len(heard["policy_obs"]) == len(decisions) == 4
    for sample, row in zip(heard["policy_obs"], decisions, strict=True):
        assert np.array_equal(np.float32(sample[1:]), np.frombuffer(row["observation"], "<f4"))
    windows = np.concatenate([np.frombuffer(row["observation"], "<f4") for row in decisions])
    assert np.allclose([value for _, value in heard["P_beta"]], windows * 1000.0)
    assert np.allclose(np.diff([stamp for stamp, _ in heard["P_beta"]]), 0.02, atol=2e-3)

    for sample, row in zip(heard["stim_cmd"], decisions, strict=True):
        assert sample[1:6] == [row["decision_id"], row["start_us"], row["slot_period_us"], 3000.0, 60.0]
        assert "".join(str(int(bit)) for bit in sample[6:]) == row["mask"]
    for sample, row in zip(heard["stim_applied"], decisions, strict=True):
        assert sample[4:8] == [row["applied_amplitude_uA"], row["applied_width_us"], row["clamp"], -1.0]
        assert "".join(str(int(bit)) for bit in sample[8:]) == row["applied_mask"]
    assert [sample[2] for sample in heard["pulses"]] == [row["device_us"] for row in pulses]
    assert {tuple(sample[3:]) for sample in heard["pulses"]} == {(-3000.0, 60.0, 3000.0, 60.0, 0.0)}
    assert [sample[3] for sample in heard["faults"]] == [row["text"] for row in events if row["kind"] != "renew"]

    lfp = np.array(heard["lfp"])
    assert (about["lfp"]["rate"], about["lfp"]["type"]) == (1000.0, "LFP")
    assert about["lfp"]["channels"] == [["stn", "microamperes/cm^2"]]
    assert about["lfp"]["what"].startswith("SIMULATED")
    assert np.allclose(np.diff(lfp[:, 0]), 1e-3, atol=2e-4 if not realtime else 2e-3)
    seen = heard["policy_obs"][1][0]  # the newest sample of the second decision: 0.2 s of LFP lie before it
    assert abs(np.count_nonzero(lfp[:, 0] < seen) - 200) <= 2
    if not realtime:
        assert np.allclose(lfp[:, 1], plant_lfp([row["applied_mask"] for row in decisions]), rtol=1e-6)

    gaps = np.diff([sample[0] for sample in heard["pulses"]])
    assert np.allclose(gaps, np.diff([row["device_us"] for row in pulses]) * 1e-6, atol=2e-3)
    if not realtime:
        assert heard["clock_offset"] == []
        return
    clocks = table_of_clock(tmp_path / "out")
    assert [sample[1:4] for sample in heard["clock_offset"]] == clocks
    assert len(clocks) >= 8
    for name in NAMES:  # wall-clock times of this session, on the clock that LSL shares with the host
        assert all(got["began"] < sample[0] < got["ended"] for sample in heard[name])


def plant_lfp(masks: list[str]) -> Any:
    """The LFP proxy of the same plant, which the same masks drive without a board."""
    env = make_env("paper", **SHORT)
    values: list[float] = []
    env.reset(seed=4)
    base_env(env).lfp_listener = lambda _, new: values.extend(new)
    for mask in masks:
        env.step(np.array([int(bit) for bit in mask], np.int8))
    assert len(values) == 200 * len(masks)
    return np.array(values, np.float32)


@pytest.mark.parametrize("obs", ["gpi", "lfp"])
@pytest.mark.parametrize("view", ["trace", "slots"])
def test_an_observation_says_what_it_holds(obs: str, view: str) -> None:
    channels = observed({"obs": obs, "view": view}, 4, 20.0)
    assert len(channels) == 4
    unit = {"gpi": "spikes^2/s^2 / 1000", "lfp": "(microamperes/cm^2)^2 / 160"}[obs]
    newest = {"gpi": "P_beta", "lfp": "lfp_beta"}[obs]
    assert channels[-1] == (newest if view == "slots" else f"{newest}_0_ms", unit, "power")
    if view == "slots":
        assert [channel[0] for channel in channels[:-1]] == [
            f"{'rate' if obs == 'gpi' else 'lfp'}_slot_{age}" for age in (-3, -2, -1)
        ]


def table_of_clock(folder: Path) -> list[list[float]]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(folder / "session.sqlite")) as db:
        return [list(row) for row in db.execute("SELECT offset_us, offset_low_us, offset_high_us FROM clock")]
