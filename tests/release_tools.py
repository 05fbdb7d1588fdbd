"""What the release tests share: policies written by hand, exported as somebody else's ONNX file, with their C."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from learn_toy import ToyEnv
from onnx import TensorProto, helper, numpy_helper

from export.foreign import read_foreign
from export.run import Settings, export_source

N_OBS = 1000
SETTINGS = Settings(seconds=1.0, closed_loop_seeds=0, quiet=True, env_factory=ToyEnv, targets=("c",))
GAIN = 20.0  # logits per unit of observation


def onnx_of(n_obs: int, slots: int, thresholds: np.ndarray) -> bytes:
    """A linear policy: a slot is stimulated where the mean of the observation exceeds its threshold (P_beta/1000)."""
    weights = np.zeros((n_obs, 2 * slots), np.float32)
    weights[:, 1::2] = GAIN / n_obs
    bias = np.zeros(2 * slots, np.float32)
    bias[1::2] = -GAIN * thresholds
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["observation", "weights", "bias"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["logits"]),
        ],
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["batch", n_obs])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", slots, 2])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array([0, slots, 2], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def policy(folder: Path, thresholds: float | np.ndarray, **environment: Any) -> Path:
    """An export folder of such a policy; a threshold far below 0 stimulates always, far above never."""
    slots = environment.get("slots", 50)
    slot_us = 1e6 / environment.get("stim_hz", 50.0)
    described = {
        "format": "sea-dbs-policy-1",
        "name": "threshold",
        "preset": "paper",
        "environment": environment,
        "n_obs": N_OBS,
        "slots": slots,
        "slot_us": slot_us,
        "amplitude_uA": 3000,
        "width_us": 60,
        "divisor": 1000,
        "opset": 20,
        "state": 0,
    }
    folder.mkdir(parents=True)
    given, manifest = folder / "policy.onnx", folder / "policy.yaml"
    given.write_bytes(onnx_of(N_OBS, slots, np.broadcast_to(np.asarray(thresholds, np.float32), (slots,))))
    manifest.write_text(yaml.safe_dump(described))
    export_source(read_foreign(given, manifest), folder / "export", SETTINGS)
    return folder / "export"
