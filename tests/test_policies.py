"""The policies that come with the repository: whole, small, and what docs/RESULTS.md says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from envs.config import EnvConfig, env_config
from export.chain import Chain
from export.policy import OnnxPolicy
from sea_dbs.benchmark.world import Play, play, settled_steps
from sea_dbs.closed_loop import Played
from sea_dbs.config import load_config
from sea_dbs.controllers import Controller, Never, TorchPolicy
from sea_dbs.files import sha256_file
from sea_dbs.seeds import HELD_OUT

POLICIES = Path(__file__).parents[1] / "policies"
NAMES = ("timing-45", "timing-26")


def test_they_take_less_than_a_megabyte() -> None:
    assert sum(file.stat().st_size for file in POLICIES.rglob("*") if file.is_file()) < 1_000_000
    assert {folder.name for folder in POLICIES.iterdir() if folder.is_dir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_manifest_config_and_exports_are_of_this_policy(name: str) -> None:
    run = POLICIES / name
    told = json.loads((run / "manifest.json").read_text())
    assert told["finished"]
    assert told["policy_sha256"] == sha256_file(run / "policy.pt")
    assert told["config_sha256"] == load_config(run / "config.yaml").sha256()
    Chain.of_folder(run / "export")  # whole, or it raises
    policy = TorchPolicy.load(run)
    seen = np.load(run / "export" / "observations.npz")["observation"].astype(np.float32)
    policy.init_state(len(seen))
    for precision, most in (("fp16", 0.001), ("int8", 0.02)):
        exported = OnnxPolicy(run / "export", precision)
        exported.init_state(len(seen))
        assert (policy.act(seen) != exported.act(seen)).mean() <= most


ROWS = [("timing-45", 75.0, 45.5), ("timing-26", 84.0, 26.0)]
PLANTS = [HELD_OUT + k for k in range(4)]


def _world(name: str, **values: Any) -> EnvConfig:
    """Where the policy was searched, with episodes of 5 s."""
    config = load_config(POLICIES / name / "config.yaml").world(precision="float32")
    return env_config(**{**config.model_dump(), "episode_steps": round(5000.0 / config.slot_ms), **values})


def _beta(run: Play, config: EnvConfig) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = run.P_beta[:, settled_steps(config) + 1 :].mean(axis=1)
    return mean


@pytest.mark.parametrize(("name", "most_percent", "hz"), ROWS)
def test_they_lower_beta_within_their_budget(name: str, most_percent: float, hz: float) -> None:
    """In small what docs/RESULTS.md has from 20 plants: a regular train of 26 Hz raises beta to about 130 %."""
    config = _world(name)

    def run(controller: Controller) -> Play:
        return play(config, controller, PLANTS, config.episode_steps)

    untreated, own = run(Never(1)), run(TorchPolicy.load(POLICIES / name))
    others = run(Played("another plant's decisions", np.roll(own.decisions, -1, axis=0)))
    percent = 100.0 * _beta(own, config) / _beta(untreated, config)
    assert percent.mean() < most_percent
    assert own.pulses.mean() * config.stim_hz < 1.08 * hz
    assert _beta(own, config).mean() < _beta(others, config).mean()


@pytest.mark.parametrize("name", NAMES)
def test_they_are_silent_on_healthy_plants(name: str) -> None:
    config = _world(name, pd=0.0)
    run = play(config, TorchPolicy.load(POLICIES / name), PLANTS, config.episode_steps)
    assert run.pulses.mean() * config.stim_hz < 6.5  # 5 % of 130 Hz
