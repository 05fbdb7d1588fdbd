"""The policies that come with the repository: whole, small, and what docs/RESULTS.md says of them."""

from __future__ import annotations

import json
from fractions import Fraction
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
from sea_dbs.controllers import Controller, Never, TorchPolicy, build
from sea_dbs.controllers.catalogue import read_tuned
from sea_dbs.files import sha256_file
from sea_dbs.seeds import HELD_OUT
from sea_dbs.tasks import find_task

POLICIES = Path(__file__).parents[1] / "policies"
NAMES = ("timing-45", "timing-26", "timing-relative")
OF_TRAINS = "trains-memory"


def test_they_take_less_than_a_megabyte() -> None:
    assert sum(file.stat().st_size for file in POLICIES.rglob("*") if file.is_file()) < 1_000_000
    assert {folder.name for folder in POLICIES.iterdir() if folder.is_dir()} == {*NAMES, OF_TRAINS}


@pytest.mark.parametrize("name", [*NAMES, OF_TRAINS])
def test_manifest_config_and_exports_are_of_this_policy(name: str) -> None:
    run = POLICIES / name
    told = json.loads((run / "manifest.json").read_text())
    assert told["finished"]
    assert told["policy_sha256"] == sha256_file(run / "policy.pt")
    assert told["config_sha256"] == load_config(run / "config.yaml").sha256()
    Chain.of_folder(run / "export")  # whole, or it raises
    policy = TorchPolicy.load(run)
    seen = np.load(run / "export" / "calibration.npz")["observation"].astype(np.float32)
    policy.init_state(len(seen))
    for precision, most in (("fp16", 0.001), ("int8", 0.02)):
        exported = OnnxPolicy(run / "export", precision)
        exported.init_state(len(seen))
        assert (policy.act(seen) != exported.act(seen)).mean() <= most


ROWS = [("timing-45", 75.0, 45.5), ("timing-26", 84.0, 26.0), ("timing-relative", 84.0, 26.0)]
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


def test_timing_relative_goes_on_where_the_disease_is_milder() -> None:
    """Severity 0.1, where drift=disease ends: there the others take most plants for healthy ones."""
    config = _world("timing-relative", pd=0.1)
    plants = [HELD_OUT + k for k in range(6)]
    untreated, own = (
        play(config, controller, plants, config.episode_steps)
        for controller in (Never(1), TorchPolicy.load(POLICIES / "timing-relative"))
    )
    assert (_beta(own, config) / _beta(untreated, config)).mean() < 0.95
    assert own.pulses.mean() * config.stim_hz > 4.0


def test_sea_dbs_over_trains_tells_the_plants_that_answer_to_130_hz_from_the_others() -> None:
    """It tries trains for some seconds, and ends at 130 Hz or at one group of 16 pulses a second, plant by plant."""
    config = find_task("efficient-3").config(precision="float32", own_duties=8)
    plants = [HELD_OUT + k for k in range(8)]
    own = play(config, TorchPolicy.load(POLICIES / OF_TRAINS), plants, config.episode_steps)
    group = build(
        "pattern", 130, Fraction(1_000_000, 130), read_tuned(POLICIES / OF_TRAINS / "group-16.json", "pattern")
    )
    alone = play(config, group, plants, config.episode_steps)
    last = own.pulses[:, -5:]
    assert (last == 130).all(axis=1).sum() >= 2
    assert (last == 16).all(axis=1).sum() >= 2
    assert own.violations == 0
    assert own.reward.mean() > alone.reward.mean() + 0.1
