"""What the session's tests share: a policy file written by hand, a short environment, a board and what it logged."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export import chain, manifest
from export.manifest import Hashes, Manifest, ModelFile, Normalisation, Tensor
from firmware_bridge.bench import Bench
from firmware_bridge.board import HostBoard
from firmware_bridge.client import BoardClient
from firmware_bridge.electrode import Electrode, shake_hands
from firmware_bridge.links import SerialLink
from firmware_bridge.recorder import Recorder
from sea_dbs.files import sha256_file, sha256_json
from sea_dbs.report.session_data import read_session
from tests.board_tools import no_ramp

SHORT: dict[str, Any] = {  # a decision of 0.2 s, a reset of 0.4 s
    "slots": 10,
    "window_ms": 200.0,
    "stride_ms": 20.0,
    "n_obs": 10,
    "settle_ms": 400.0,
    "episode_steps": 5,
}
LONG: dict[str, Any] = {**SHORT, "slots": 50, "n_obs": 50, "settle_ms": 1_400.0, "episode_steps": 30}  # of 1 s
SESSION_COLUMNS = {
    "mode": "test",
    "host_started": "2026-01-01T00:00:00",
    "seed": 0,
    "preset": "paper",
    "controller": "test",
    "clock": "lockstep",
    "steps": 1,
    "n_obs": 10,
    "slots": 10,
    "slot_us": 20_000,
    "amplitude_uA": 3000,
    "width_us": 60,
    "lease_ms": 300,
    "latency_us": 0,
    "board": "host board",
    "env_config": "{}",
    "hashes": "{}",
    "sea_dbs_version": "0",
    "host_machine": "{}",
}


def make_export(folder: Path, environment: dict[str, Any] = SHORT, seed: int = 0) -> Path:
    """An export folder whose policy is a random linear map: it reads its observation, and some slots are set."""
    n_obs, slots = environment["n_obs"] + environment.get("own_duties", 0), environment["slots"]
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(n_obs, slots * 2)).astype(np.float32)
    hashes = {"config": sha256_json(environment), "weights": sha256_json(weights.tolist())}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["observation", "weights"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["logits"]),
        ],
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["batch", n_obs])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", slots, 2])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([-1, slots, 2], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(model, {f"sea_dbs.{key}_sha256": value for key, value in hashes.items()})
    onnx.checker.check_model(model, full_check=True)
    folder.mkdir(parents=True)
    path = folder / "policy_fp16.onnx"
    path.write_bytes(model.SerializeToString())
    file = ModelFile(file=path.name, sha256=sha256_file(path), bytes=path.stat().st_size, weight_bytes=weights.nbytes)
    manifest.save(
        folder,
        Manifest(
            sea_dbs_version="0.1.0",
            preset="paper",
            environment=environment,
            actor={"name": "linear"},
            parameters=weights.size,
            hashes=Hashes(**hashes, onnx=file.sha256),
            default="fp16",
            precisions={"fp16": file},
            opset=20,
            input=Tensor(name="observation", shape=("batch", n_obs), unit="P_beta / 1000"),
            output=Tensor(name="logits", shape=("batch", slots, 2), unit="logits"),
            normalisation=Normalisation(quantity="P_beta", unit="spikes²/s²", divisor=1000.0),
            slots=slots,
            slot_us=20_000.0,
            amplitude_uA=3000.0,
            width_us=60.0,
        ),
    )
    chain.write(folder)
    return folder


class Rig(NamedTuple):
    """An electrode on a real host board, with everything behind it."""

    board: HostBoard
    bench: Bench
    client: BoardClient
    recorder: Recorder
    electrode: Electrode


@contextmanager
def rig(folder: Path, **limits: Any) -> Iterator[Rig]:
    """A board armed in lockstep, its clock at 0, recording into ``folder``."""
    with (
        HostBoard(electrode_log=folder / "electrode.log", image=no_ramp(), **limits) as board,
        Bench(board.electrode) as bench,
        BoardClient(SerialLink(board.port)) as client,
        Recorder(folder / "session.sqlite", SESSION_COLUMNS) as recorder,
    ):
        shake_hands(client, bench)
        electrode = Electrode(client, bench, recorder)
        electrode.arm()
        electrode.synchronise()
        yield Rig(board, bench, client, recorder, electrode)


def command(*arguments: str | Path) -> list[str]:
    """``sea-dbs session`` with arguments, as a process of its own."""
    return [sys.executable, "-c", "from sea_dbs.cli import main; main()", "session", *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``sea-dbs session``, to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)


def electrode_log(path: Path) -> list[dict[str, Any]]:
    """What the board logged; a line that is being written is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def table_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of ``session``, ``decisions``, ``pulses`` or ``events`` of a session folder."""
    data = read_session(folder / "session.sqlite")
    rows = {"session": [data.session], "decisions": data.decisions, "pulses": data.pulses, "events": data.events}
    return rows[name]


def change_recording(path: Path, *statements: str) -> None:
    """Alter a recording, as somebody might with any SQLite tool."""
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def repeatable(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Everything a recording holds but wall-clock times and what the machine was doing."""
    return {
        table: [
            {name: value for name, value in row.items() if not name.startswith("host_") and name != "git_commit"}
            for row in table_of(folder, table)
        ]
        for table in ("session", "decisions", "pulses", "events")
    }
