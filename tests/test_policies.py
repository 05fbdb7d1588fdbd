"""The policies that come with the repository: whole, small, and what docs/RESULTS.md says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from export.chain import Chain
from export.policy import OnnxPolicy
from sea_dbs.config import load_config
from sea_dbs.controllers import TorchPolicy
from sea_dbs.evaluate import evaluate
from sea_dbs.evaluation_plan import Plan
from sea_dbs.files import sha256_file

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


SECONDS_5 = {"timing-45": 1950, "timing-26": 1850}  # decisions
ROWS = [("timing-45", 75.0, 45.5), ("timing-26", 84.0, 26.0)]


@pytest.mark.parametrize(("name", "most_percent", "hz"), ROWS)
def test_they_lower_beta_within_their_budget(name: str, most_percent: float, hz: float, tmp_path: Path) -> None:
    """In small what docs/RESULTS.md has from 20 plants: a regular train of 26 Hz raises beta to about 130 %."""
    plan = Plan(("never", "replayed", "policy"), 4, SECONDS_5[name])
    rows = {row["detail"]: row for row in evaluate(POLICIES / name, tmp_path / "out", plan, quiet=True)["rows"]}
    assert rows["policy"]["percent_of_untreated"] < most_percent
    assert rows["policy"]["pulse_hz"] < 1.08 * hz
    assert rows["policy"]["percent_of_untreated"] < rows["replayed policy"]["percent_of_untreated"]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_silent_on_healthy_plants(name: str, tmp_path: Path) -> None:
    plan = Plan(("policy",), 4, SECONDS_5[name], world=("pd=0",))
    row = evaluate(POLICIES / name, tmp_path / "out", plan, quiet=True)["rows"][0]
    assert row["pulse_hz"] < 6.5  # 5 % of 130 Hz
