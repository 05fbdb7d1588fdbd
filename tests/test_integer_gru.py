"""The GRU cell in fixed point: tables against exact functions, many steps with a state, PyTorch's cell."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from integer_tools import COMPILERS, MEANING, Compiled, files, model, smooth

from envs.errors import UserError
from export.integer import IntegerModel, adversarial, c_source, dequantise, quantise, run, step
from export.integer.tables import (
    SIGMOID_STEP_BITS,
    TANH_STEP_BITS,
    look_up,
    sigmoid_table,
    tanh_table,
)
from export.policy import open_session

ARGUMENTS = np.arange(-(2**21), 2**21, dtype=np.int32)  # Q16: -32 to 32, beyond both tables


def test_tables_are_within_their_stated_error_of_the_functions() -> None:
    x = ARGUMENTS / 65536.0
    sigmoid = look_up(sigmoid_table(), SIGMOID_STEP_BITS, ARGUMENTS) / 32768.0
    tanh = look_up(tanh_table(), TANH_STEP_BITS, ARGUMENTS) / 32768.0
    assert np.abs(sigmoid - 1.0 / (1.0 + np.exp(-x))).max() <= 7e-5
    assert np.abs(tanh - np.tanh(x)).max() <= 1.3e-4


def test_tables_never_fall_and_hold_at_their_ends() -> None:
    for table, bits in ((sigmoid_table(), SIGMOID_STEP_BITS), (tanh_table(), TANH_STEP_BITS)):
        values = look_up(table, bits, ARGUMENTS)
        assert (np.diff(values) >= 0).all()
        ends = look_up(table, bits, np.array([-(2**31), 2**31 - 1], np.int32))
        assert ends.tolist() == [table[0], table[-1]]


@pytest.mark.parametrize(("compiler", "level"), COMPILERS)
def test_three_hundred_steps_with_a_state_give_equal_bits(tmp_path: Path, compiler: str, level: str) -> None:
    policy = model("recurrent", 50, 3)
    rows = np.concatenate([adversarial(150, 50, np.random.default_rng(2)), quantise(policy, smooth(150, 50, 4))])
    compiled = Compiled(c_source(policy), tmp_path, compiler, level)
    wanted = run(policy, rows)
    assert (compiled.run(rows, 3) == wanted).all()
    assert (compiled.run(rows, 3) == wanted).all()  # reset returns it to rest
    assert (run(policy, rows[:1]) != wanted[-1]).any()


def test_a_batch_of_environments_steps_like_each_alone() -> None:
    policy = model("recurrent", 50, 3)
    rows = adversarial(40, 50, np.random.default_rng(6)).reshape(8, 5, 50)  # 8 steps of 5 environments
    state, together = None, []
    for row in rows:
        logits, state = step(policy, row, state)
        together.append(logits)
    alone = [run(policy, rows[:, k]) for k in range(5)]
    assert (np.stack(together, axis=1) == np.stack(alone)).all()
    assert state is not None
    assert state.dtype == np.int16


def test_the_state_follows_onnx_over_many_steps() -> None:
    """Against FP32, our int16 state stays closer than the file's own int8 state does."""
    plain, quantised = files("recurrent", 50, 3)
    policy = IntegerModel.from_onnx(quantised, meaning=MEANING)
    rows = quantise(policy, smooth(200, 50, 7))
    ours = run(policy, rows) / 2.0**policy.logit_bits
    errors = {}
    exact = _roll(plain, dequantise(policy, rows))
    errors["file"] = np.abs(_roll(quantised, dequantise(policy, rows)) - exact).max()
    errors["ours"] = np.abs(ours - exact).max()
    assert errors["ours"] <= 0.05 * np.abs(exact).max()
    assert errors["ours"] <= errors["file"]


def _roll(data: bytes, observation: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    session = open_session(data)
    (first, second), outputs = session.get_inputs(), [value.name for value in session.get_outputs()]
    state, logits = np.zeros((1, second.shape[1]), np.float32), []
    for row in observation:
        found, state = session.run(outputs, {first.name: row[None], second.name: state})
        logits.append(found)
    return np.concatenate(logits)


def test_a_cell_that_is_no_gru_is_refused() -> None:
    graph = onnx.load_model_from_string(files("recurrent", 50, 3)[1])
    tanh = next(node for node in graph.graph.node if node.op_type == "Tanh")
    tanh.op_type = "Sigmoid"
    with pytest.raises(UserError, match=r"Gemm.*is not a GRU cell"):
        IntegerModel.from_onnx(graph.SerializeToString(), meaning=MEANING)


def test_the_exact_functions_at_the_points() -> None:
    for table, bits, function in (
        (sigmoid_table(), SIGMOID_STEP_BITS, lambda x: 1 / (1 + math.exp(-x))),
        (tanh_table(), TANH_STEP_BITS, math.tanh),
    ):
        for i in (0, 100, 256, 257, 400, 512):
            x = (i - 256) * 2**bits / 65536
            assert abs(int(table[i]) - min(32767.0, function(x) * 32768)) <= 0.5 + 1e-9 + (i in (0, 512)) * 1.0
