"""Somebody else's ONNX file: taken the same way, or refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from learn_toy import ToyEnv
from onnx import TensorProto, helper, numpy_helper, version_converter

from envs.errors import UserError
from export import chain, graph, integer, manifest
from export.foreign import OPSETS, read_foreign
from export.plants import EnvFactory
from export.policy import OnnxPolicy
from export.precision import wrap
from export.run import Settings, build, export_source
from export.runner import OnnxRunner
from export.targets import c_sources
from sea_dbs.cli.export import EXAMPLE
from sea_dbs.controllers import decide
from sea_dbs.networks import build_actor, state_size

SLOTS, N_OBS = 50, 1000
YAML = "\n".join(line[2:] for line in EXAMPLE.splitlines() if line.startswith("  "))  # as --help shows it


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files as another toolkit leaves them: no metadata of ours, the free axis named otherwise."""
    made = {}
    for name in ("compact", "recurrent"):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            actor = build_actor(name, N_OBS, SLOTS)
        data = graph.to_onnx(wrap(actor, "fp32"), n_obs=N_OBS, slots=SLOTS, state=state_size(actor), metadata={})
        model = onnx.load_model_from_string(data)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "N"
        made[name] = model.SerializeToString()
    return made


def given(folder: Path, data: bytes, text: str = YAML) -> tuple[Path, Path]:
    (folder / "policy.onnx").write_bytes(data)
    (folder / "policy.yaml").write_text(text)
    return folder / "policy.onnx", folder / "policy.yaml"


SETTINGS = Settings(closed_loop_seeds=3, quiet=True, env_factory=ToyEnv, targets=("c",))


@pytest.mark.parametrize("name", ["compact", "recurrent"])
def test_their_policy_becomes_an_export_like_ours(theirs: dict[str, bytes], name: str, tmp_path: Path) -> None:
    text = YAML if name == "compact" else YAML.replace("state: 0", "state: 32")
    source = read_foreign(*given(tmp_path, theirs[name], text))
    described, rows = export_source(source, tmp_path / "out", SETTINGS)
    assert (described.origin, described.actor["name"], described.default) == ("file", "threshold", "fp16")
    assert [row.precision for row in rows] == ["fp32", "fp16", "int8"]
    assert rows[0].max_logit_difference < 1e-6  # FP32 is the given file
    assert rows[1].weight_bytes <= 0.51 * rows[0].weight_bytes
    assert rows[2].agreement > 0.9
    assert chain.Chain.of_folder(tmp_path / "out").link("training").note == chain.GIVEN
    assert (tmp_path / "out" / "c" / "int8" / "sea_policy.c").is_file()
    seen = np.load(tmp_path / "out" / "observations.npz")["observation"][:2]
    theirs_alone = OnnxRunner(theirs[name])
    theirs_alone.init_state(2)
    for precision, tolerance in (("fp32", 1e-6), ("fp16", 2e-3), ("int8", 0.1)):
        policy = OnnxPolicy(tmp_path / "out", precision)
        policy.init_state(2)
        theirs_alone.init_state(2)
        for _ in range(3):  # a recurrent policy's state goes along
            assert np.abs(policy.logits(seen) - theirs_alone.logits(seen)).max() < tolerance
    again = read_foreign(*given(tmp_path, theirs[name], text))
    export_source(again, tmp_path / "again", SETTINGS)
    for file in ("policy_fp32.onnx", "policy_fp16.onnx", "policy_int8.onnx", "manifest.json", "chain.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


@pytest.mark.parametrize("opset", [opset for opset in OPSETS if opset != graph.OPSET])
def test_every_opset_that_is_taken_works(theirs: dict[str, bytes], opset: int, tmp_path: Path) -> None:
    model = version_converter.convert_version(onnx.load_model_from_string(theirs["compact"]), opset)
    source = read_foreign(*given(tmp_path, model.SerializeToString(), YAML.replace("opset: 20", f"opset: {opset}")))
    seen = np.random.default_rng(0).uniform(0.2, 0.5, (8, N_OBS)).astype(np.float32)
    wanted = OnnxRunner(theirs["compact"]).logits(seen)
    for name, data in build(source, ("fp32", "fp16", "int8"), seen, 1).items():
        assert np.abs(OnnxRunner(data).logits(seen) - wanted).max() < 0.05, name
        found = onnx.load_model_from_string(data)
        assert found.opset_import[0].version == opset
        assert {p.key: p.value for p in found.metadata_props}["sea_dbs.opset"] == str(opset)


# -- linear layers as other toolkits write them ------------------------------------------------------------------------

HIDDEN = 32


def weights(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)


def written(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> bytes:
    """A file of these nodes, from 'observation' to 'y', which becomes 'logits'."""
    constants["shape"] = np.array([0, SLOTS, 2])
    last = helper.make_node("Reshape", ["y", "shape"], ["logits"])
    graph_ = helper.make_graph(
        [*nodes, last],
        "theirs",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["N", N_OBS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", SLOTS, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph_, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


W0, B0 = weights(0, N_OBS, HIDDEN), weights(1, HIDDEN)
W1, B1 = weights(2, HIDDEN, 2 * SLOTS), weights(3, 2 * SLOTS)
SQUARE = weights(4, HIDDEN, HIDDEN)
RELU = helper.make_node("Relu", ["h"], ["r"], "relu")


def gemm_columns() -> bytes:
    """Gemm as its definition has it: transB 0; a bias of one row, and one of one number."""
    nodes = [
        helper.make_node("Gemm", ["observation", "W0", "b0"], ["h"], "first"),
        RELU,
        helper.make_node("Gemm", ["r", "W1", "b1"], ["y"], "head"),
    ]
    return written(nodes, W0=W0, b0=B0[None], W1=W1, b1=np.float32([0.25]))


def products_and_sums() -> bytes:
    """As tf2onnx and skl2onnx write it, the constant on either side of Add."""
    nodes = [
        helper.make_node("MatMul", ["observation", "W0"], ["m0"], "first"),
        helper.make_node("Add", ["m0", "b0"], ["h"], "sum"),
        RELU,
        helper.make_node("MatMul", ["r", "W1"], ["m1"], "head"),
        helper.make_node("Add", ["b1", "m1"], ["y"]),
    ]
    return written(nodes, W0=W0, b0=B0, W1=W1, b1=B1[None])


def products_alone() -> bytes:
    nodes = [
        helper.make_node("MatMul", ["observation", "W0"], ["h"], "first"),
        RELU,
        helper.make_node("MatMul", ["r", "W1"], ["y"], "head"),
    ]
    return written(nodes, W0=W0, W1=W1)


def constants_as_nodes() -> bytes:
    """Weights in Constant nodes, one of them transposed by a node, after a centring."""
    nodes = [
        helper.make_node("Constant", [], ["W0T"], value=numpy_helper.from_array(np.ascontiguousarray(W0.T))),
        helper.make_node("Constant", [], ["b0"], value=numpy_helper.from_array(B0)),
        helper.make_node("Sub", ["observation", "centre"], ["c"]),
        helper.make_node("Transpose", ["W0T"], ["W0"], perm=[1, 0]),
        helper.make_node("MatMul", ["c", "W0"], ["m0"], "first"),
        helper.make_node("Add", ["m0", "b0"], ["h"]),
        RELU,
        helper.make_node("Gemm", ["r", "W1", "b1"], ["y"], "head"),
    ]
    return written(nodes, W1=W1, b1=B1, centre=np.float32(0.35))


def shared_weights() -> bytes:
    """One constant read three times: by columns twice, by rows once."""
    nodes = [
        helper.make_node("MatMul", ["observation", "W0"], ["h"], "first"),
        RELU,
        helper.make_node("MatMul", ["r", "S"], ["s"]),
        helper.make_node("Gemm", ["s", "S"], ["t"], transB=1),
        helper.make_node("Gemm", ["t", "S"], ["u"]),
        helper.make_node("MatMul", ["u", "W1"], ["y"], "head"),
    ]
    return written(nodes, W0=W0, S=SQUARE, W1=W1)


FORMS = [gemm_columns, products_and_sums, products_alone, constants_as_nodes, shared_weights]


@pytest.mark.parametrize("form", FORMS)
def test_linear_layers_as_others_write_them_become_c(form: Callable[[], bytes], tmp_path: Path) -> None:
    data = form()
    source = read_foreign(*given(tmp_path, data))
    assert source.parameters >= W0.size + W1.size
    seen = np.random.default_rng(9).uniform(0, 1, (64, N_OBS)).astype(np.float32)
    wanted = OnnxRunner(data).logits(seen)
    models = build(source, ("fp32", "fp16", "int8"), seen[:48], 1)
    for precision, tolerance in (("fp32", 1e-6), ("fp16", 4e-3), ("int8", 0.1)):  # FP32: float rounding
        logits = OnnxRunner(models[precision]).logits(seen)
        assert np.abs(logits - wanted).max() < tolerance * np.abs(wanted).max(), precision
    found = onnx.load_model_from_string(models["fp32"]).graph
    assert {node.op_type for node in found.node} <= {"Gemm", "Relu", "Reshape", "Sub"}
    assert {"first", "relu", "head"} <= {node.name for node in found.node}
    _, sources = c_sources(models, models["fp32"])  # as `sea-dbs trace --rebuild` makes them, from the exported files
    assert set(sources) == {"fp32", "fp16", "int8"}
    model = integer.IntegerModel.from_onnx(models["int8"])
    decided = decide(integer.run(model, integer.quantise(model, seen)).astype(np.float32))
    assert np.mean(decided == decide(wanted)) > 0.9


def test_the_metadata_hold_the_divisor(theirs: dict[str, bytes], tmp_path: Path) -> None:
    source = read_foreign(*given(tmp_path, theirs["compact"]))
    noted = {p.key: p.value for p in onnx.load_model_from_string(source.build("fp32")).metadata_props}
    assert float(noted["sea_dbs.divisor"]) == described_divisor(YAML)


def described_divisor(text: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith("divisor:")).split()[1])


def tanh_between() -> bytes:
    nodes = [
        helper.make_node("MatMul", ["observation", "W0"], ["m0"]),
        helper.make_node("Add", ["m0", "b0"], ["h"]),
        helper.make_node("Tanh", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "W1"], ["y"]),
    ]
    return written(nodes, W0=W0, b0=B0, W1=W1)


def product_of_three_axes() -> bytes:
    nodes = [
        helper.make_node("Unsqueeze", ["observation", "axes"], ["x"]),
        helper.make_node("MatMul", ["x", "W0"], ["h"], "first"),
        RELU,
        helper.make_node("Squeeze", ["r", "axes"], ["s"]),
        helper.make_node("MatMul", ["s", "W1"], ["y"]),
    ]
    return written(nodes, W0=W0, W1=W1, axes=np.array([1]))


def sum_read_twice() -> bytes:
    nodes = [
        helper.make_node("MatMul", ["observation", "W0"], ["m0"], "first"),
        helper.make_node("Add", ["m0", "b0"], ["a"]),
        helper.make_node("Add", ["m0", "a"], ["r"], "both"),
        helper.make_node("MatMul", ["r", "W1"], ["y"]),
    ]
    return written(nodes, W0=W0, b0=B0, W1=W1)


def scaled() -> bytes:
    nodes = [
        helper.make_node("Gemm", ["observation", "W0", "b0"], ["r"], alpha=0.5),
        helper.make_node("Gemm", ["r", "W1", "b1"], ["y"]),
    ]
    return written(nodes, W0=W0, b0=B0, W1=W1, b1=B1)


class NoPlant:
    """An environment that must not be made."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise AssertionError("a plant was simulated before the graph was read")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (tanh_between, "the ONNX node #3 (Tanh, without a name) is not understood"),
        (product_of_three_axes, "the ONNX node 'first' (MatMul) is not understood"),
        (sum_read_twice, "'m0' is read by the ONNX node #2 (Add, without a name), the ONNX node 'both' (Add)"),
        (scaled, "the ONNX node #1 (Gemm, without a name) must have alpha 1"),
    ],
)
def test_what_cannot_become_c_is_said_before_a_plant_is_simulated(
    form: Callable[[], bytes], words: str, tmp_path: Path
) -> None:
    data, no_plant = form(), cast(EnvFactory, NoPlant)
    source = read_foreign(*given(tmp_path, data))
    seen = np.random.default_rng(9).uniform(0, 1, (4, N_OBS)).astype(np.float32)
    wanted = OnnxRunner(data).logits(seen)
    assert np.abs(OnnxRunner(source.plain("fp32")).logits(seen) - wanted).max() < 1e-6 * np.abs(wanted).max()
    with pytest.raises(UserError) as caught:
        export_source(source, tmp_path / "out", Settings(quiet=True, env_factory=no_plant, targets=("c",)))
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


# -- refused -----------------------------------------------------------------------------------------------------------


def refused(folder: Path, data: bytes, *words: str, text: str = YAML) -> None:
    with pytest.raises(UserError) as caught:
        read_foreign(*given(folder, data, text))
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("n_obs: 1000", "", "the key 'n_obs' is missing"),
        ("format: sea-dbs-policy-1", "", "the key 'format' is missing"),
        ("format: sea-dbs-policy-1", "format: other", "'format'"),
        ("state: 0", "stat: 0", "did you mean 'state'"),
        ("n_obs: 1000", "n_obs: 50", "n_obs 50, the plant 'paper' has 1000"),
        ("slot_us: 20000", "slot_us: 10000", "slot_us 10000"),
        ("amplitude_uA: 3000", "amplitude_uA: .nan", "amplitude_uA"),
        ("width_us: 60", "width_us: 90", "width_us 90"),
        ("divisor: 1000", "divisor: 1", "divisor 1"),
        ("preset: paper", "preset: human", "preset"),
        ("environment: {}", "environment: {pd: 2}", "pd"),
        ("environment: {}", "environment: {gpu: 1}", "gpu"),
        ("opset: 20", "opset: 19", "has the opset 20, its manifest says 19"),
        ("state: 0", "state: 8", "state float32 (batch, 8)"),
    ],
)
def test_a_manifest_that_does_not_fit(theirs: dict[str, bytes], old: str, new: str, words: str, tmp_path: Path) -> None:
    assert old in YAML
    refused(tmp_path, theirs["compact"], words, text=YAML.replace(old, new))


@pytest.mark.parametrize("text", ["", "- a list", "n_obs: [", "\x00"])
def test_a_manifest_that_is_none(theirs: dict[str, bytes], text: str, tmp_path: Path) -> None:
    refused(tmp_path, theirs["compact"], "policy.yaml", text=text)


def test_json_will_do(theirs: dict[str, bytes], tmp_path: Path) -> None:
    import yaml

    source = read_foreign(*given(tmp_path, theirs["compact"], json.dumps(yaml.safe_load(YAML))))
    assert source.interface == graph.Interface(N_OBS, SLOTS)


@pytest.mark.parametrize("keep", [0, 1, 100, 20_000, -1])
def test_a_file_cut_short(theirs: dict[str, bytes], keep: int, tmp_path: Path) -> None:
    refused(tmp_path, theirs["compact"][:keep], "policy.onnx", "cut short" if keep != -1 else "")


def edited(data: bytes, change: Callable[[onnx.ModelProto], Any]) -> bytes:
    model = onnx.load_model_from_string(data)
    change(model)
    return bytes(model.SerializeToString())


def other_width(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 960


def other_name(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "obs" if name == "observation" else name
    model.graph.input[0].name = "obs"


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 12


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def own_function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function(
            "", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], model.opset_import
        )
    )


def outside_weights(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def not_finite(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def double_weights(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def contradicts(model: onnx.ModelProto) -> None:
    helper.set_model_props(model, {"sea_dbs.slots": "25"})


def no_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_width, "960"),
        (other_name, "obs float32"),
        (fixed_batch, "fixes the batch axis of 'observation' at 1"),
        (other_opset, "has the opset 12: from 17 to 21"),
        (custom_operator, "the domain 'com.microsoft'"),
        (own_function, "Twice"),
        (outside_weights, "in another file"),
        (not_finite, "not finite"),
        (double_weights, "DOUBLE"),
        (contradicts, "slots 25, its manifest says 50"),
        (no_nodes, "holds no graph"),
    ],
)
def test_a_graph_that_is_not_taken(
    theirs: dict[str, bytes], change: Callable[[onnx.ModelProto], None], words: str, tmp_path: Path
) -> None:
    refused(tmp_path, edited(theirs["compact"], change), words)


def test_too_large_and_missing_files(theirs: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, described = given(tmp_path, theirs["compact"])
    with pytest.raises(UserError, match="cannot read"):
        read_foreign(tmp_path / "nowhere.onnx", described)
    with pytest.raises(UserError, match="cannot read the manifest"):
        read_foreign(path, tmp_path / "nowhere.yaml")
    monkeypatch.setattr("export.foreign.MAX_BYTES", 1000)
    refused(tmp_path, theirs["compact"], "larger than the 1,000 bytes")


def test_an_export_without_metadata_is_no_policy(theirs: dict[str, bytes], tmp_path: Path) -> None:
    """Its file's metadata was stripped and the hash put right: nothing says what it was made from."""
    import hashlib

    source = read_foreign(*given(tmp_path, theirs["compact"]))
    out = tmp_path / "out"
    export_source(source, out, Settings(closed_loop_seeds=0, quiet=True, env_factory=ToyEnv, precisions=("fp32",)))
    path = out / "policy_fp32.onnx"
    bare = edited(path.read_bytes(), lambda model: model.ClearField("metadata_props"))
    path.write_bytes(bare)
    facts = json.loads((out / manifest.MANIFEST).read_text())
    digest = hashlib.sha256(bare).hexdigest()
    facts["precisions"]["fp32"] |= {"sha256": digest, "bytes": len(bare)}
    facts["hashes"]["onnx"] = digest
    (out / manifest.MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"holds no metadata 'sea_dbs\.config_sha256'"):
        OnnxPolicy(out)
