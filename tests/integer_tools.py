"""Policies with weights that decide something, as ONNX and in integers, and their C compiled for this machine."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import envs
from export import graph
from export.integer import IntegerModel, Meaning
from export.precision import wrap
from export.quantise import to_int8
from firmware_bridge.build import CORE, WARNINGS
from sea_dbs.networks import build_actor, state_size

MEANING = Meaning(slot_period_us=20000, amplitude_uA=3000, width_us=60)
COMPILERS = [(compiler, level) for compiler in ("gcc", "clang-14") for level in ("-O0", "-O3")]
RUNNER = """
#include "sea_policy.h"
void policy_run(const int8_t *observations, uint32_t n, int32_t *logits);
void policy_run(const int8_t *observations, uint32_t n, int32_t *logits)
{
    SEA_POLICY.reset();
    for (uint32_t i = 0; i < n; i++) {
        SEA_POLICY.infer(observations + (size_t)i * SEA_POLICY.n_obs, logits + (size_t)i * 2u * SEA_POLICY.slots);
    }
}
int policy_margin(const int32_t *pair);
int policy_margin(const int32_t *pair)
{
    return sea_policy_margin(&SEA_POLICY, pair);
}
""".replace('#include "sea_policy.h"', '#include <stddef.h>\n#include "sea_policy.h"')


@cache
def traces(n_obs: int) -> NDArray[np.float32]:
    """500 observations (500, n_obs) float32 of the plant, a few milliseconds apart: real ones."""
    env = envs.make_env(preset="paper")
    rng = np.random.default_rng(3)
    seen = [env.reset(seed=3)[0]]
    seen += [env.step(rng.integers(0, 2, 50).astype(np.int8))[0] for _ in range(2)]
    rows = sliding_window_view(np.concatenate(seen), n_obs)
    return np.ascontiguousarray(rows[np.linspace(0, len(rows) - 1, 500).astype(int)])


def smooth(n: int, n_obs: int, seed: int = 0) -> NDArray[np.float32]:
    """Observations like the plant's in range and smoothness, without a plant."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.standard_normal((n, n_obs)), axis=1) / np.sqrt(n_obs)
    return np.clip(0.38 + 0.05 * rng.standard_normal((n, 1)) + 0.04 * walk, 0.0, 1.0).astype(np.float32)


@cache
def files(name: str, n_obs: int, slots: int, scale: float = 2.0) -> tuple[bytes, bytes]:
    """(FP32, INT8 QDQ) ONNX bytes of an actor; its weights are ``scale`` times those of its initialisation."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        actor = build_actor(name, n_obs, slots).eval()
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(scale)
    state = state_size(actor)
    plain = graph.to_onnx(wrap(actor, "fp32"), n_obs=n_obs, slots=slots, metadata={}, state=state)
    feeds = {"observation": smooth(128, n_obs)}
    if state:
        feeds["state"] = np.random.default_rng(1).uniform(-1.0, 1.0, (128, state)).astype(np.float32)
    return plain, to_int8(plain, feeds, {})


@cache
def model(name: str, n_obs: int, slots: int, scale: float = 2.0) -> IntegerModel:
    """The same actor in integers."""
    return IntegerModel.from_onnx(files(name, n_obs, slots, scale)[1], meaning=MEANING)


class Compiled:
    """A generated source, compiled without a warning into a library of this machine."""

    def __init__(self, source: str, folder: Path, compiler: str = "gcc", *flags: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sea_policy.c").write_text(source)
        (folder / "run.c").write_text(RUNNER)
        library = folder / "policy.so"
        command = [compiler, *WARNINGS, *flags, "-ffp-contract=off", "-shared", "-fPIC", "-I", str(CORE)]
        parts = [str(folder / "sea_policy.c"), str(folder / "run.c"), str(CORE / "sea_quantise.c")]
        done = subprocess.run([*command, "-o", str(library), *parts], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:2000]
        self.library = ctypes.CDLL(str(library))

    def run(self, observation: NDArray[np.int8], slots: int) -> NDArray[np.int32]:
        """Logits (n, slots, 2) of observations (n, n_obs), in order, from reset."""
        rows = np.ascontiguousarray(observation)
        logits = np.full((len(rows), slots, 2), 77, np.int32)
        self.library.policy_run(rows.ctypes.data_as(ctypes.c_void_p), len(rows), logits.ctypes.data_as(ctypes.c_void_p))
        return logits

    def quantise(self, q16: NDArray[np.int32]) -> NDArray[np.int8]:
        """`sea_policy_quantise` of one observation."""
        policy = ctypes.c_char.in_dll(self.library, "SEA_POLICY")
        out = np.empty(q16.shape, np.int8)
        self.library.sea_policy_quantise(
            ctypes.byref(policy), q16.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p)
        )
        return out
