"""The C of the integer policy gives the bits of the NumPy reference: four compilers here, three emulated cores."""

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from integer_tools import COMPILERS, Compiled, files, model, traces

from export.graph import weight_bytes as onnx_weight_bytes
from export.integer import IntegerModel, adversarial, c_source, quantise, ram_bytes, run, weight_bytes
from export.integer.layers import Dense
from firmware_bridge.build import CORE, WARNINGS
from firmware_bridge.policy_bench import run_policy

ACTORS = [(*actor, *how) for actor in (("compact", 1000, 50), ("compact", 50, 1)) for how in COMPILERS]
ACTORS += [("paper", 64, 2, "gcc", "-O3"), ("paper", 64, 2, "clang-14", "-O0")]
ACTORS += [("small", 1000, 50, "gcc", "-O3"), ("tiny", 50, 1, "clang-14", "-O3")]
ACTORS += [("trains", 1000, 130, "gcc", "-O3"), ("trains-flat", 1008, 130, "clang-14", "-O3")]


def observations(policy: IntegerModel) -> np.ndarray:  # type: ignore[type-arg]
    """500 real ones and 500 adversarial ones."""
    real = quantise(policy, traces(policy.n_obs))
    return np.concatenate([real, adversarial(500, policy.n_obs, np.random.default_rng(1))])


@pytest.mark.parametrize(("name", "n_obs", "slots", "compiler", "level"), ACTORS)
def test_host_c_gives_equal_bits(tmp_path: Path, name: str, n_obs: int, slots: int, compiler: str, level: str) -> None:
    policy = model(name, n_obs, slots)
    rows = observations(policy)[:: 10 if name == "paper" else 1]
    wanted = run(policy, rows)
    assert (wanted[..., 0] != wanted[..., 1]).any()
    assert len(np.unique(wanted)) > 100  # the policy does look at what it sees
    assert (Compiled(c_source(policy), tmp_path, compiler, level).run(rows, slots) == wanted).all()


@pytest.mark.parametrize("board", ["qemu-m4f", "qemu-m7", "qemu-m55"])
@pytest.mark.parametrize(("name", "n_obs", "slots"), [("compact", 1000, 50), ("recurrent", 50, 1)])
def test_boards_give_equal_bits_within_the_budget(
    tmp_path: Path, name: str, n_obs: int, slots: int, board: str
) -> None:
    policy = model(name, n_obs, slots)
    rows = observations(policy)[::10]
    (tmp_path / "sea_policy.c").write_text(c_source(policy))
    found = run_policy(board, tmp_path / "sea_policy.c", rows, quiet=True)
    assert (found.logits == run(policy, rows)).all()
    assert found.instructions is not None
    assert found.instructions <= 400_000  # the bounds for the compact policy on a Cortex-M4F
    assert found.stack_bytes <= 2048
    assert ram_bytes(policy) <= 16_384
    assert weight_bytes(policy) <= 65_536


def test_ram_and_constants_are_what_the_object_file_holds(tmp_path: Path) -> None:
    for name in ("compact", "recurrent"):
        policy = model(name, 50, 1)
        (tmp_path / "sea_policy.c").write_text(c_source(policy))
        command = ["gcc", *WARNINGS, "-O2", "-I", str(CORE), "-c", "-o", str(tmp_path / "p.o")]
        subprocess.run([*command, str(tmp_path / "sea_policy.c")], check=True)
        sections = subprocess.run(["size", "-A", str(tmp_path / "p.o")], capture_output=True, text=True, check=True)
        sizes = {line.split()[0]: int(line.split()[1]) for line in sections.stdout.splitlines() if line.startswith(".")}
        assert sizes[".data"] == 0
        assert 0 <= sizes[".bss"] - ram_bytes(policy) <= 64  # alignment
        assert sizes[".rodata"] >= weight_bytes(policy)


def test_int8_constants_stay_below_their_share_of_fp32() -> None:
    plain, _ = files("compact", 1000, 50)
    assert weight_bytes(model("compact", 1000, 50)) <= 0.27 * onnx_weight_bytes(plain)


@pytest.mark.parametrize("name", ["compact", "recurrent"])
def test_no_undefined_behaviour_at_the_extremes(tmp_path: Path, name: str) -> None:
    policy = model(name, 50, 3)
    rows = adversarial(200, 50, np.random.default_rng(8))
    trap = ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-O1"]
    assert (Compiled(c_source(policy), tmp_path, "gcc", *trap).run(rows, 3) == run(policy, rows)).all()


def test_weights_at_their_extremes_reach_the_bound_without_overflow(tmp_path: Path) -> None:
    """Every weight -128 or 127, biases as large as the proof allows: the worst case that can be written down."""
    policy = model("compact", 50, 3)
    rng = np.random.default_rng(4)
    layers = []
    low, high = policy.layers[0].low, policy.layers[0].high  # type: ignore[union-attr]
    for layer in policy.layers:
        if isinstance(layer, Dense):
            weight = rng.choice(np.array([-128, 127], np.int8), layer.weight.shape)
            room = 2**31 - 1 - np.abs(weight.astype(np.int64)).sum(axis=1) * max(-low, high)
            bias = np.where(rng.random(layer.rows) < 0.5, room, -room).astype(np.int32)
            shift = layer.shift + np.uint8(10) if layer.mean else layer.shift
            layer = replace(layer, weight=weight, bias=bias, shift=shift)
        layers.append(layer)
        low, high = getattr(layer, "low", -32768), getattr(layer, "high", 32767)
    extreme = replace(policy, layers=tuple(layers))
    rows = adversarial(300, 50, rng)
    trap = ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-O1"]
    assert (Compiled(c_source(extreme), tmp_path, "gcc", *trap).run(rows, 3) == run(extreme, rows)).all()


def test_the_boards_quantise_like_the_host(tmp_path: Path) -> None:
    policy = model("compact", 1000, 50)
    compiled = Compiled(c_source(policy), tmp_path)
    rng = np.random.default_rng(5)
    rows = np.concatenate([traces(1000)[::50], rng.uniform(-2, 3, (5, 1000)).astype(np.float32)])
    steps = np.arange(1000) - 500.0  # on the ties between two int8 values, and just beside
    rows = np.concatenate([rows, [(policy.q_centre + (steps + 0.5) * policy.obs_scale * 65536) / 65536]])
    for row in rows.astype(np.float32):
        q16 = np.rint(row.astype(np.float64) * 65536).astype(np.int32)
        assert (compiled.quantise(q16) == quantise(policy, row[None])[0]).all()
    extremes = np.resize(np.array([-(2**31), 2**31 - 1, 0, policy.q_centre], np.int32), 1000)
    assert compiled.quantise(extremes)[:4].tolist() == [-128, 127, compiled.quantise(extremes)[2], policy.q_zero]


def test_a_margin_is_the_shifted_difference_saturated(tmp_path: Path) -> None:
    policy = model("compact", 50, 1)
    compiled = Compiled(c_source(policy), tmp_path)
    rng = np.random.default_rng(6)
    pairs = np.concatenate([rng.integers(-(2**31), 2**31, (50, 2)), [[-(2**31), 2**31 - 1], [2**31 - 1, -(2**31)]]])
    for pair in pairs.astype(np.int32):
        wanted = (int(pair[1]) - int(pair[0])) >> policy.margin_shift
        assert compiled.library.policy_margin(pair.ctypes.data_as(ctypes.c_void_p)) == max(-32768, min(32767, wanted))


def test_equal_models_give_equal_text_without_float_or_library() -> None:
    policy = model("compact", 1000, 50)
    text = c_source(policy)
    assert text == c_source(IntegerModel.from_onnx(files("compact", 1000, 50)[1], meaning=policy.meaning))
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    assert not re.search(r"\b(float|double|malloc|printf)\b", code)
    assert set(re.findall(r"#include [<\"](.*?)[>\"]", code)) == {"sea_policy.h", "arm_acle.h"}
    assert max(map(len, text.splitlines())) <= 120


def test_a_name_from_a_strange_file_cannot_leave_its_comment(tmp_path: Path) -> None:
    policy = model("compact", 50, 1)
    strange = replace(policy.layers[1], name='x */ int evil = "\n'), *policy.layers[2:]
    text = c_source(replace(policy, layers=(policy.layers[0], *strange)))
    assert "*/ int evil" not in text
    Compiled(text, tmp_path)
