"""Hostile ONNX files: custom operators, weights elsewhere, endless loops and bombs get one sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from envs.errors import UserError
from export.integer import IntegerModel
from export.policy import OnnxPolicy
from export.untrusted import check_onnx
from tests.session_tools import make_export

FLOAT = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto], *, weights: tuple[onnx.TensorProto, ...] = (), domain: str | None = None
) -> onnx.ModelProto:
    """From "obs" (batch, 4) to "logits"."""
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("obs", FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("logits", FLOAT, None)],
        list(weights),
    )
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def external(location: str) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def add(right: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Add", ["obs", right], ["logits"])]


def loop() -> list[onnx.NodeProto]:
    keep = helper.make_tensor_value_info("keep_out", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["keep"], ["keep_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
        ],
        [keep],
    )
    true = helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.array(True)))
    return [
        true,
        helper.make_node("Loop", ["", "true"], [], body=body),
        helper.make_node("Identity", ["obs"], ["logits"]),
    ]


def sparse() -> onnx.ModelProto:
    made = model(add("w"))
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, ints("at", 0), [10**12]))
    return made


def with_function() -> onnx.ModelProto:
    made = model([helper.make_node("F", ["obs"], ["logits"], domain="own")], domain="own")
    inner = helper.make_node("Identity", ["x"], ["y"])
    made.functions.append(helper.make_function("own", "F", ["x"], ["y"], [inner], made.opset_import[:1]))
    return made


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], value=tensor)


def of_shape(*shape: int) -> onnx.ModelProto:
    return model([helper.make_node("ConstantOfShape", ["n"], ["w"]), *add("w")], weights=(ints("n", *shape),))


HOSTILE = {
    "a custom operator": (
        model([helper.make_node("Own", ["obs"], ["logits"], domain="com.example")], domain="com.example"),
        "com.example",
    ),
    "an operator of the runtime": (
        model([helper.make_node("FusedMatMul", ["obs", "obs"], ["logits"], domain="com.microsoft")],
              domain="com.microsoft"),
        "com.microsoft",
    ),
    "a function": (with_function(), "function of its own"),
    "weights outside": (model(add("w"), weights=(external("../../../../etc/passwd"),)), "another file"),
    "weights in a device": (model(add("w"), weights=(external("/dev/zero"),)), "another file"),
    "a constant outside": (model([constant(external("secret")), *add("w")]), "another file"),
    "a loop": (model(loop()), "Loop"),
    "a huge constant": (of_shape(10**6, 10**6), "at most"),
    "a huge tile": (
        model([helper.make_node("Tile", ["obs", "n"], ["w"]), helper.make_node("Identity", ["w"], ["logits"])],
              weights=(ints("n", 10**5, 10**5),)),
        "at most",
    ),
    "a sparse bomb": (sparse(), "sparse"),
    "no operator": (model([]), "0 operators"),
    "many operators": (model(add("obs") * 10_001), "10001 operators"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models_are_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(16))
    made, word = HOSTILE[name]
    data = made.SerializeToString()
    with pytest.raises(UserError, match=word) as error:
        check_onnx(data, "policy.onnx")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError) as error:
        IntegerModel.from_onnx(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_export_folder_whose_hashes_fit_does_not_help(name: str, tmp_path: Path) -> None:
    """The manifest comes from the same hand as the file."""
    folder = make_export(tmp_path / "export")
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["precisions"][manifest["default"]]
    made, word = HOSTILE[name]
    data = made.SerializeToString()
    (folder / entry["file"]).write_bytes(data)
    entry |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest["hashes"]["onnx"] = entry["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=word):
        OnnxPolicy(folder)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    folder = make_export(tmp_path / "export")
    name = json.loads((folder / "manifest.json").read_text())["precisions"]["fp16"]["file"]
    with (folder / name).open("wb") as stream:
        stream.truncate((256 << 20) + 1)
    with pytest.raises(UserError, match="larger than"):
        OnnxPolicy(folder)


def test_a_plain_policy_is_taken(tmp_path: Path) -> None:
    folder = make_export(tmp_path / "export")
    assert OnnxPolicy(folder).logits(np.zeros((1, OnnxPolicy(folder).n_obs), np.float32)).shape[0] == 1
