"""The policy in single and half precision in C: against ONNX Runtime and an independent generator."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from integer_tools import COMPILERS, Compiled, files, model, smooth
from numpy.typing import NDArray

from envs.errors import UserError
from export import graph
from export.integer import adversarial, dequantise, float_c_source, quantise
from export.policy import open_session
from export.precision import wrap
from firmware_bridge.build import CORE, WARNINGS
from firmware_bridge.policy_bench import run_policy
from sea_dbs.networks import build_actor

NOT_FINITE = -(2**31)
ONE = 65536.0  # a logit of 1.0
SHAPE = ("compact", 50, 2)
WITNESS_FLAGS = ["--large-weight-threshold", "0", "--large-temp-threshold", "0", "--input-dim", "batch=1"]


def rows(n: int = 60) -> NDArray[np.int8]:
    policy = model(*SHAPE)
    return np.concatenate([quantise(policy, smooth(n, 50, 3)), adversarial(n, 50, np.random.default_rng(4))])


def reference(data: bytes, observation: NDArray[np.int8]) -> NDArray[np.float32]:
    """Logits by ONNX Runtime of the observation that the float formats see."""
    found: NDArray[np.float32] = open_session(data).run(None, {"observation": dequantise(model(*SHAPE), observation)})[
        0
    ]
    return found


@pytest.mark.parametrize(
    ("name", "slots", "compiler", "level"),
    [("paper", 1, "gcc", "-O3"), ("recurrent", 2, "clang-14", "-O3"), *(("compact", 2, *how) for how in COMPILERS)],
)
def test_single_precision_is_onnx_runtime_to_one_part_in_a_million(
    tmp_path: Path, name: str, slots: int, compiler: str, level: str
) -> None:
    plain, _ = files(name, 50, slots)
    policy = model(name, 50, slots)
    observation = adversarial(80, 50, np.random.default_rng(4))
    found = Compiled(float_c_source(plain, "fp32", policy), tmp_path, compiler, level).run(observation, slots)
    session = open_session(plain)
    state = {"state": np.zeros((1, policy.hidden), np.float32)} if policy.hidden else {}
    wanted = []
    for row in dequantise(policy, observation):
        logits, *after = session.run(None, {"observation": row[None], **state})
        state = dict(zip(state, after, strict=True))
        wanted.append(logits)
    exact = np.concatenate(wanted)
    assert np.abs(found / ONE - exact).max() <= 0.5 / ONE + 2e-6 * max(1.0, np.abs(exact).max())


@pytest.mark.parametrize("board", ["qemu-m4f", "qemu-m55"])
def test_single_precision_gives_equal_bits_here_and_on_boards(tmp_path: Path, board: str) -> None:
    source = float_c_source(files(*SHAPE)[0], "fp32", model(*SHAPE))
    here = Compiled(source, tmp_path, "gcc", "-O3").run(rows(), 2)
    found = run_policy(board, tmp_path / "sea_policy.c", rows(), quiet=True)
    assert (found.logits == here).all()


def witness(data: bytes, folder: Path, precision: str) -> NDArray[np.float32]:
    """Logits of the C that emx-onnx-cgen writes, which shares no line with ours."""
    (folder / "policy.onnx").write_bytes(data)
    program = Path(sys.executable).with_name("emx-onnx-cgen")
    command = [str(program), "compile", "policy.onnx", "witness.c", "--model-name", "witness", *WITNESS_FLAGS]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    compile_it = ["gcc", "-std=gnu11", "-O1", "-w", "-shared", "-fPIC", "-o", "witness.so", "witness.c", "-lm"]
    subprocess.run(compile_it, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "witness.so"))
    out = np.empty((len(rows()), 2, 2), np.float32)
    for row, logits in zip(dequantise(model(*SHAPE), rows()), out, strict=True):
        library.witness(row.ctypes.data_as(ctypes.c_void_p), logits.ctypes.data_as(ctypes.c_void_p))
    return out


def test_an_independent_generator_agrees_in_single_precision(tmp_path: Path) -> None:
    plain, _ = files(*SHAPE)
    ours = Compiled(float_c_source(plain, "fp32", model(*SHAPE)), tmp_path / "ours", "gcc", "-O2")
    found = np.empty((len(rows()), 2, 2), np.float32)
    for row, logits in zip(dequantise(model(*SHAPE), rows()), found, strict=True):
        ours.library.sea_policy_infer_float(row.ctypes.data_as(ctypes.c_void_p), logits.ctypes.data_as(ctypes.c_void_p))
    other = witness(plain, tmp_path, "fp32")
    assert np.abs(found - other).max() <= 2e-6 * np.abs(other).max()


def test_half_precision_on_a_cortex_m55_agrees_with_an_independent_generator(tmp_path: Path) -> None:
    plain, _ = files(*SHAPE)
    (tmp_path / "sea_policy.c").write_text(float_c_source(plain, "fp16", model(*SHAPE)))
    found = run_policy("qemu-m55", tmp_path / "sea_policy.c", rows(), quiet=True).logits / ONE
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(5)  # the actor of `files`
        actor = build_actor(*SHAPE).eval()
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(2.0)
    half = graph.to_onnx(wrap(actor, "fp16"), n_obs=50, slots=2, metadata={})
    other = witness(half, tmp_path, "fp16")
    largest = np.abs(other).max()
    assert np.abs(found - other).max() <= 0.01 * largest  # FP16 holds 11 bits; the sums run in another order
    assert np.abs(found - reference(plain, rows())).max() <= 0.01 * largest


def test_overflow_in_half_precision_is_reported_as_not_finite(tmp_path: Path) -> None:
    plain, _ = files(*SHAPE, 40.0)
    (tmp_path / "sea_policy.c").write_text(float_c_source(plain, "fp16", model(*SHAPE)))
    logits = run_policy("qemu-m55", tmp_path / "sea_policy.c", rows(20), quiet=True).logits
    lost = logits == NOT_FINITE
    assert lost.any()
    assert (lost[..., 0] == lost[..., 1]).all()  # both logits of the slot
    assert np.isfinite(reference(plain, rows(20))).all()  # in FP32 nothing is wrong


def test_single_precision_saturates_and_says_what_is_not_finite(tmp_path: Path) -> None:
    large = Compiled(float_c_source(files(*SHAPE, 40.0)[0], "fp32", model(*SHAPE)), tmp_path / "large")
    found, exact = large.run(rows(), 2), reference(files(*SHAPE, 40.0)[0], rows())
    assert (np.abs(exact) > 32768).any()
    assert (found[exact > 32768] == 2**31 - 1).all()
    assert (found[exact < -32768] == -(2**31) + 1).all()  # never the value that means "not finite"
    endless = Compiled(float_c_source(_scaled(1e12), "fp32", model(*SHAPE)), tmp_path / "endless")
    assert (endless.run(rows(), 2) == NOT_FINITE).any()


def _scaled(factor: float) -> bytes:
    """The FP32 file with every weight matrix times ``factor``: its sums leave single precision."""
    import onnx

    loaded = onnx.load_model_from_string(files(*SHAPE)[0])
    for tensor in loaded.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim > 1:
            tensor.CopyFrom(onnx.numpy_helper.from_array(value * np.float32(factor), tensor.name))
    return bytes(loaded.SerializeToString())


def test_nan_in_the_observation_reaches_the_logits(tmp_path: Path) -> None:
    """A ReLU must not turn it into a quiet zero."""
    compiled = Compiled(float_c_source(files(*SHAPE)[0], "fp32", model(*SHAPE)), tmp_path, "gcc", "-O3")
    row, logits = np.full(50, np.nan, np.float32), np.zeros(4, np.float32)
    compiled.library.sea_policy_infer_float(row.ctypes.data_as(ctypes.c_void_p), logits.ctypes.data_as(ctypes.c_void_p))
    assert np.isnan(logits).all()


@pytest.mark.parametrize(
    "command", [["gcc"], ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]]
)
def test_half_precision_elsewhere_is_a_compile_error_that_says_so(tmp_path: Path, command: list[str]) -> None:
    assert shutil.which(command[0])
    source = tmp_path / "sea_policy.c"
    source.write_text(float_c_source(files(*SHAPE)[0], "fp16", model(*SHAPE)))
    done = subprocess.run(
        [*command, *WARNINGS, "-Wfatal-errors", "-I", str(CORE), "-c", "-o", "/dev/null", str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "half-precision arithmetic needs an ARMv8.1-M core such as the Cortex-M55" in done.stderr


def test_bad_requests_are_one_sentence() -> None:
    plain, quantised = files(*SHAPE)
    with pytest.raises(UserError, match="fp32 or fp16 are allowed"):
        float_c_source(plain, "bf16", model(*SHAPE))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="maps 50 values to 2 slots, the integer policy 1000 to 50"):
        float_c_source(plain, "fp32", model("compact", 1000, 50))
    with pytest.raises(UserError, match="FP16 holds at most"):
        float_c_source(_scaled(1e6), "fp16", model(*SHAPE))
    assert float_c_source(quantised, "fp32", model(*SHAPE))  # an INT8 file's weights serve too
