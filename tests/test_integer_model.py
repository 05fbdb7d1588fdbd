"""The integer model: what the reader understands, what is refused and how, agreement with ONNX Runtime, its file."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from integer_tools import MEANING, files, model, smooth
from onnx import helper, numpy_helper

from envs.errors import UserError
from export.integer import IntegerModel, Meaning, adversarial, dequantise, quantise, run
from export.integer.layers import Dense
from export.integer.reference import forward
from export.integer.storage import MAX_BYTES, to_bytes
from export.policy import open_session

SHAPE = ("compact", 50, 2)


# -- agreement with ONNX Runtime's run of the same file --


@pytest.mark.parametrize(("name", "n_obs", "slots"), [("compact", 1000, 50), ("compact", 50, 1), ("paper", 64, 2)])
def test_logits_follow_onnx_runtime(name: str, n_obs: int, slots: int) -> None:
    """Its pools round means to int8, ours keep the sums: so logits part by some steps of the last layer's input.

    Measured: 14 steps at most, ours nearer to FP32 than its own.
    """
    policy = model(name, n_obs, slots)
    plain, quantised = files(name, n_obs, slots)
    rows = quantise(policy, smooth(200, n_obs, 9))
    ours = run(policy, rows) / 2.0**policy.logit_bits
    theirs, exact = (
        open_session(data).run(None, {"observation": dequantise(policy, rows)})[0] for data in (quantised, plain)
    )
    head = policy.layers[-1]
    assert isinstance(head, Dense)
    step = float(np.abs(head.weight.astype(float) * head.weight_scale[:, None]).max()) * policy.layers[-2].scale
    assert np.abs(ours - theirs).max() <= 20 * step
    assert np.abs(ours - exact).mean() <= 1.1 * np.abs(theirs - exact).mean()
    for other in (theirs, exact):
        assert ((ours[..., 1] > ours[..., 0]) == (other[..., 1] > other[..., 0])).mean() >= 0.98


def test_where_no_pool_stands_between_layers_equal_onnx_runtime_bit_by_bit() -> None:
    policy = model("compact", 50, 1)
    rows = quantise(policy, smooth(200, 50, 9))
    loaded = onnx.load_model_from_string(files("compact", 50, 1)[1])
    names = [n.output[0] for n in loaded.graph.node if n.op_type == "QuantizeLinear"]
    loaded.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.INT8, None) for name in names)
    found = open_session(loaded.SerializeToString()).run(names, {"observation": dequantise(policy, rows)})
    inner = dict(zip(names, (value.astype(np.int32) for value in found), strict=True))
    convolved = forward(policy, rows.astype(np.int32), policy.layers[:2]).reshape(200, 50, 16)
    assert (convolved == inner["relu_QuantizeLinear_Output"].transpose(0, 2, 1) + 128).all()
    hidden = forward(policy, inner["relu_2_QuantizeLinear_Output"] + 128, policy.layers[-2:-1])
    assert (hidden == inner["relu_3_QuantizeLinear_Output"] + 128).all()


def test_the_observation_is_quantised_to_the_nearest_step_of_the_file() -> None:
    policy = model("compact", 1000, 50)
    obs = smooth(20, 1000, 2)
    back = dequantise(policy, quantise(policy, obs))
    assert np.abs(back - obs)[np.abs(obs - policy.q_centre / 65536) < 100 * policy.obs_scale].max() <= policy.obs_scale
    inner = np.abs(quantise(policy, obs).astype(int)) < 127
    assert np.abs(back - obs)[inner].max() <= 0.5 * policy.obs_scale + 2.0**-15


def test_twenty_thousand_observations_are_a_matter_of_blocks() -> None:
    """Rows are worked on in blocks: no row may depend on its neighbours, nor on where a block ends."""
    policy = model("compact", 1000, 50)
    rows = adversarial(700, 1000, np.random.default_rng(3))
    assert (run(policy, rows)[::7] == run(policy, rows[::7])).all()


@pytest.mark.parametrize("bad", [np.zeros((1, 49), np.int8), np.zeros((1, 50), np.int16), np.zeros(50, np.int8)])
def test_an_observation_of_another_kind_is_refused(bad: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UserError, match=r"int8 \(n, 50\)"):
        run(model(*SHAPE), bad)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 40000.0])
def test_an_observation_that_is_not_finite_or_too_large_is_refused_with_its_place(value: float) -> None:
    obs = smooth(3, 50)
    obs[2, 7] = value
    with pytest.raises(UserError, match=r"at \(2, 7\): finite values below 32,768"):
        quantise(model(*SHAPE), obs)


# -- what is refused --


def edited(change: Callable[[onnx.GraphProto], None], data: bytes | None = None) -> bytes:
    loaded = onnx.load_model_from_string(data or files(*SHAPE)[1])
    change(loaded.graph)
    return bytes(loaded.SerializeToString())


def node(graph: onnx.GraphProto, op: str, which: int = 0) -> onnx.NodeProto:
    return [n for n in graph.node if n.op_type == op][which]


def other_pool(graph: onnx.GraphProto) -> None:
    node(graph, "AveragePool").op_type = "MaxPool"
    del node(graph, "MaxPool").attribute[:]
    node(graph, "MaxPool").attribute.extend(
        [helper.make_attribute("kernel_shape", [2]), helper.make_attribute("strides", [2])]
    )


def stride(graph: onnx.GraphProto) -> None:
    next(a for a in node(graph, "Conv").attribute if a.name == "strides").ints[0] = 2


def skip(graph: onnx.GraphProto) -> None:
    """A second reader of a tensor inside the chain."""
    out = node(graph, "Gemm").output[0]
    graph.node.append(helper.make_node("Identity", [out], ["elsewhere"], "branch"))


def big_bias(graph: onnx.GraphProto) -> None:
    tensor = next(t for t in graph.initializer if t.data_type == onnx.TensorProto.INT32)
    value = np.full_like(numpy_helper.to_array(tensor), 2**31 - 100)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def zero_scale(graph: onnx.GraphProto) -> None:
    name = node(graph, "QuantizeLinear").input[1]
    tensor = next(t for t in graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_pool, r"the ONNX node '.*' \(MaxPool\) is not understood: the policy in C knows .*AveragePool"),
        (stride, r"the ONNX node '.*' \(Conv\) must be a 1-D convolution of 1 channels, stride 1"),
        (skip, r"is read by .*Identity.*: one chain from observation to logits needed"),
        (big_bias, r"the sum of row \d+ may reach 2,\d{3},\d{3},\d{3}, 32 bits hold 2,147,483,647"),
        (zero_scale, r"\(QuantizeLinear\) has the scale 0: it must be above 0"),
    ],
)
def test_what_is_not_understood_is_named(change: Callable[[onnx.GraphProto], None], words: str) -> None:
    with pytest.raises(UserError, match=words):
        IntegerModel.from_onnx(edited(change), meaning=MEANING)


@pytest.mark.parametrize("data", [b"", b"not onnx", b"\x08\x0a", None])
def test_a_file_that_is_no_policy_is_one_sentence(data: bytes | None) -> None:
    cut = files(*SHAPE)[1][:20000] if data is None else data
    with pytest.raises(UserError) as caught:
        IntegerModel.from_onnx(cut, meaning=MEANING)
    assert "\n" not in str(caught.value)


def test_an_fp32_file_is_refused() -> None:
    with pytest.raises(UserError, match="an INT8 QDQ file is needed, not FP32"):
        IntegerModel.from_onnx(files(*SHAPE)[0], meaning=MEANING)


def test_the_meaning_of_a_decision_comes_from_the_file_or_the_caller() -> None:
    with pytest.raises(UserError, match=r"lacks sea_dbs\.slot_us"):
        IntegerModel.from_onnx(files(*SHAPE)[1])
    loaded = onnx.load_model_from_string(files(*SHAPE)[1])
    values = {"sea_dbs.slot_us": "7692.3", "sea_dbs.amplitude_uA": "3000.0", "sea_dbs.width_us": "60"}
    helper.set_model_props(loaded, values)
    assert IntegerModel.from_onnx(loaded.SerializeToString()).meaning == Meaning(7692, 3000, 60)
    helper.set_model_props(loaded, values | {"sea_dbs.width_us": "wide"})
    with pytest.raises(UserError, match=r"sea_dbs\.width_us is 'wide': no number"):
        IntegerModel.from_onnx(loaded.SerializeToString())
    with pytest.raises(UserError, match="width_us is 70000: from 0 to 65535"):
        Meaning(20000, 3000, 70000)


# -- integer.npz --


def test_equal_models_are_equal_bytes_in_another_process_too(tmp_path: Path) -> None:
    policy = model(*SHAPE)
    policy.save(tmp_path / "integer.npz")
    assert (tmp_path / "integer.npz").read_bytes() == to_bytes(policy)
    (tmp_path / "policy.onnx").write_bytes(files(*SHAPE)[1])
    code = (
        "from pathlib import Path; from export.integer import IntegerModel, Meaning; import time\n"
        "print(IntegerModel.from_onnx(Path('policy.onnx').read_bytes(), meaning=Meaning(20000, 3000, 60)).sha256)"
    )
    env = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == policy.sha256


@pytest.mark.parametrize("name", ["compact", "recurrent", "paper"])
def test_a_saved_model_runs_as_before(tmp_path: Path, name: str) -> None:
    policy = model(name, 64, 2)
    policy.save(tmp_path / "integer.npz")
    back = IntegerModel.load(tmp_path / "integer.npz")
    assert back.sha256 == policy.sha256
    rows = adversarial(30, 64, np.random.default_rng(0))
    assert (run(back, rows) == run(policy, rows)).all()
    with np.load(tmp_path / "integer.npz", allow_pickle=False) as arrays:
        assert "header" in arrays


def test_any_damage_is_one_sentence_or_no_change(tmp_path: Path) -> None:
    """Cut anywhere, or a bit flipped anywhere: refused in one sentence, or (in the zip's own fields) the same model."""
    data, path = to_bytes(model(*SHAPE)), tmp_path / "integer.npz"
    rng = np.random.default_rng(2)
    for k in range(120):
        spoiled = bytearray(data[: rng.integers(len(data))]) if k % 2 else bytearray(data)
        if k % 2 == 0:
            spoiled[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(spoiled))
        try:
            outcome = IntegerModel.load(path).sha256
        except UserError as error:
            outcome = str(error)
        assert outcome == model(*SHAPE).sha256 or (str(path) in outcome and "\n" not in outcome)


def test_missing_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        IntegerModel.load(tmp_path / "none.npz")
    with (tmp_path / "huge.npz").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match="an integer policy has at most"):
        IntegerModel.load(tmp_path / "huge.npz")


def test_pickles_and_compressed_entries_are_refused(tmp_path: Path) -> None:
    for compression, value in (
        (zipfile.ZIP_STORED, np.array([{}], object)),
        (zipfile.ZIP_DEFLATED, np.zeros(9, np.uint8)),
    ):
        content = io.BytesIO()
        np.save(content, value, allow_pickle=True)
        with zipfile.ZipFile(tmp_path / "bad.npz", "w", compression) as archive:
            archive.writestr("header.npy", content.getvalue())
        with pytest.raises(UserError, match="is damaged, or no integer policy"):
            IntegerModel.load(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": np.full(64, 2**31 - 1, np.int32)}, "may reach"),
        ({"shift": np.full(64, 63, np.uint8)}, "a shift is 63, from 1 to 62"),
        ({"multiplier": np.full(64, -1, np.int32)}, "a multiplier is -1"),
        ({"weight": np.zeros((64, 10), np.int8)}, "weights are"),
        ({"low": -40000}, "int16 needed"),
    ],
)
def test_a_file_whose_numbers_would_overflow_on_a_board_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    policy = model(*SHAPE)
    place = next(i for i, layer in enumerate(policy.layers) if isinstance(layer, Dense) and layer.rows == 64)
    layers = [*policy.layers]
    layers[place] = replace(layers[place], **change)
    replace(policy, layers=tuple(layers)).save(tmp_path / "integer.npz")
    with pytest.raises(UserError, match=f"holds no policy that can run: .*{words}"):
        IntegerModel.load(tmp_path / "integer.npz")
