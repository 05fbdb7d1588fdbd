"""Export: equal bytes everywhere, parity with torch, and files that are not what they claim are refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learn_toy import ToyEnv, toy_vector

from envs.errors import UserError
from export import graph, manifest, parity
from export.policy import OnnxPolicy, open_session
from export.precision import PRECISIONS, Half
from export.run import export_run
from sea_dbs.config import load_config
from sea_dbs.controllers import Policy, TorchPolicy
from sea_dbs.files import sha256_file
from sea_dbs.networks import build_actor
from sea_dbs.train import train

ROOT = Path(__file__).parents[1]
SETTINGS = ("episodes=4", "n_envs=2", "episode_steps=8", "warmup_steps=8")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained for real, on the small environment."""
    folder = tmp_path_factory.mktemp("run") / "run"
    train(load_config("paper", SETTINGS), folder, quiet=True, env_factory=toy_vector)
    return folder


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "export"
    export_run(run, folder, seconds=4.0, quiet=True, env_factory=ToyEnv)
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """An export folder that a test may damage."""
    shutil.copytree(exported, tmp_path / "copy")
    return tmp_path / "copy"


def edit_manifest(folder: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    path = folder / manifest.MANIFEST
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# -- the trained policy --------------------------------------------------------------------------------------------


def test_exported_policy_decides_as_torch(run: Path, exported: Path) -> None:
    reference = TorchPolicy.load(run)
    observations = np.load(exported / "observations.npz")["observation"]
    reference.init_state(len(observations))
    wanted, decisions = reference.logits(observations), reference.act(observations)
    for precision, tolerance in (("fp32", 1e-5), ("fp16", 2e-2), ("int8", 1.0)):
        policy = OnnxPolicy(exported, precision)
        assert isinstance(policy, Policy)
        policy.init_state(len(observations))
        logits = policy.logits(observations)
        assert logits.dtype == np.float32
        assert np.abs(logits - wanted).max() < tolerance
        decided = policy.act(observations)
        clear = np.abs(wanted[..., 1] - wanted[..., 0]) > 2 * np.abs(logits - wanted).max()
        assert clear.any()
        assert (decided == decisions)[clear].all()
        one_by_one = np.concatenate([policy.logits(observations[i : i + 1]) for i in range(8)])
        assert np.abs(one_by_one - logits[:8]).max() < 1e-5


def test_the_chain_of_hashes_leads_from_config_to_onnx(run: Path, exported: Path) -> None:
    described = manifest.load(exported)
    trained = json.loads((run / "manifest.json").read_text())
    assert described.hashes.config == trained["config_sha256"]
    assert described.hashes.weights == trained["policy_sha256"] == sha256_file(run / "policy.pt")
    assert described.hashes.onnx == sha256_file(exported / "policy_fp16.onnx") == OnnxPolicy(exported).model_hash
    assert (described.slots, described.slot_us, described.amplitude_uA, described.width_us) == (50, 20000, 3000, 60)
    model = onnx.load(exported / "policy_fp16.onnx")
    meta = {entry.key: entry.value for entry in model.metadata_props}
    assert meta["sea_dbs.weights_sha256"] == described.hashes.weights
    assert meta["sea_dbs.preset"] == "paper"
    assert model.opset_import[0].version == described.opset


def test_parity_table_counts_every_decision_and_compares_sizes(exported: Path) -> None:
    rows = json.loads((exported / "parity.json").read_text())["rows"]
    by = {(row["policy"], row["precision"]): row for row in rows}
    assert set(by) == {(actor, name) for actor in ("compact", "paper") for name in ("torch", "fp32", "fp16", "int8")}
    assert by["compact", "fp16"]["decisions"] == 32 * 50
    assert by["compact", "torch"]["agreement"] == 1.0
    for actor in ("compact", "paper"):
        assert by[actor, "fp16"]["weight_bytes"] <= 0.51 * by[actor, "fp32"]["weight_bytes"]
        assert by[actor, "int8"]["weight_bytes"] <= 0.27 * by[actor, "fp32"]["weight_bytes"]
    assert 64.5 < by["paper", "fp32"]["file_bytes"] / 2**20 < 65.5  # the paper's 65 MB
    assert "untrained" in by["paper", "fp16"]["weights"]
    assert (exported / "policy_fp16.onnx").stat().st_size == by["compact", "fp16"]["file_bytes"]
    raw = np.load(exported / "latency.npz")["compact_fp16_us"]
    assert np.percentile(raw, 99) == pytest.approx(by["compact", "fp16"]["latency_p99_us"])
    assert "1,600" in (exported / "parity.md").read_text()


EXPORT_BYTES = """
import sys
from pathlib import Path
import numpy as np
from export.run import PRECISIONS, build
from export.source import read_run
calibration = np.load(sys.argv[3])["observation"]
for name, data in build(read_run(Path(sys.argv[1])), PRECISIONS, calibration, 4).items():
    Path(sys.argv[2], name).write_bytes(data)
"""


def test_another_process_in_another_folder_writes_equal_bytes(run: Path, exported: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "a copy elsewhere"
    for package in ("envs", "sea_dbs", "export"):
        shutil.copytree(ROOT / package, elsewhere / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(run, elsewhere / "run")
    command = [
        sys.executable,
        "-c",
        EXPORT_BYTES,
        str(elsewhere / "run"),
        str(elsewhere),
        str(exported / "calibration.npz"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(elsewhere), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=elsewhere, env=environment)
    for name in ("fp32", "fp16", "int8"):
        data = (elsewhere / name).read_bytes()
        assert data == (exported / f"policy_{name}.onnx").read_bytes()
        for trace in (str(ROOT), str(tmp_path), "site-packages", ".py"):
            assert trace.encode() not in data


# -- networks ------------------------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 3.0), sizes=st.sampled_from([(1000, 50), (50, 1), (64, 7)]))
def test_random_networks_agree_in_fp32_at_any_batch(seed: int, scale: float, sizes: tuple[int, int]) -> None:
    n_obs, slots = sizes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        actor = build_actor("compact", n_obs, slots)
        for parameter in actor.parameters():
            parameter.data.mul_(scale)
    data = graph.to_onnx(PRECISIONS["fp32"](actor), n_obs=n_obs, slots=slots, metadata={})
    session = open_session(data)
    observations = np.random.default_rng(seed).uniform(0.1, 0.8, (7, n_obs)).astype(np.float32)
    wanted = actor(torch.from_numpy(observations)).detach().numpy()
    for batch in (1, 2, 7):
        got = session.run([graph.OUTPUT], {graph.INPUT: observations[:batch]})[0]
        assert got.shape == (batch, slots, 2)
        np.testing.assert_allclose(got, wanted[:batch], rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


class Bare(torch.nn.Module):
    """A policy whose axes the interface does not allow, or whose batch cannot vary."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = torch.nn.Linear(10, 8)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        out = self.layer(observation)
        return out.reshape(2, 4, 2) if self.kind == "fixed batch" else out.reshape(-1, 2, 4)


@pytest.mark.parametrize("kind", ["fixed batch", "wrong axes"])
def test_a_graph_with_other_axes_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="ONNX"):
        graph.to_onnx(PRECISIONS["fp32"](Bare(kind)), n_obs=10, slots=4, metadata={})


@pytest.mark.parametrize("bad", [65505.0, float("inf"), float("nan")])
def test_weights_that_fp16_cannot_hold_are_refused(bad: float) -> None:
    actor = build_actor("compact", 50, 1)
    next(actor.parameters()).data.view(-1)[0] = bad
    with pytest.raises(UserError, match="65504"):
        Half(actor)


def test_half_leaves_the_trained_network_as_it_was() -> None:
    actor = build_actor("compact", 50, 1)
    before = {name: tensor.clone() for name, tensor in actor.state_dict().items()}
    Half(actor)
    assert all(torch.equal(tensor, before[name]) for name, tensor in actor.state_dict().items())


# -- parity --------------------------------------------------------------------------------------------------------


def test_parity_finds_a_changed_decision_and_its_margin() -> None:
    reference = np.zeros((2, 3, 2), np.float32)
    reference[..., 1] = [[1, -1, 0.25], [2, -2, 3]]
    other = reference.copy()
    other[0, 2, 1] = -0.5
    found = parity.compare(reference, other)
    assert (found["changed"], found["decisions"], found["observations"]) == (1, 6, 2)
    assert found["agreement"] == pytest.approx(5 / 6)
    assert found["largest_changed_margin"] == pytest.approx(0.25)
    assert found["max_logit_difference"] == pytest.approx(0.75)
    assert parity.compare(reference, reference)["largest_changed_margin"] is None


def test_parity_counts_a_tie_as_no_pulse() -> None:
    tie, pulse = np.zeros((1, 1, 2), np.float32), np.array([[[0, 1e-6]]], np.float32)
    assert parity.compare(tie, pulse)["changed"] == 1
    assert parity.compare(tie, -pulse)["changed"] == 0


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_parity_refuses_logits_that_are_not_finite(bad: float) -> None:
    reference = np.zeros((1, 1, 2), np.float32)
    with pytest.raises(UserError, match="not finite"):
        parity.compare(reference, np.full_like(reference, bad))


# -- wrong input ---------------------------------------------------------------------------------------------------


def assert_refused(folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        OnnxPolicy(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("keep", [0, 1, 1000, -1])
def test_a_truncated_onnx_is_refused(copy: Path, keep: int) -> None:
    path = copy / "policy_fp16.onnx"
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(copy, "policy_fp16.onnx", "cut short")


def test_a_changed_byte_is_refused(copy: Path) -> None:
    path = copy / "policy_fp16.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert_refused(copy, "policy_fp16.onnx", "changed")


def test_a_truncated_onnx_with_a_matching_hash_is_refused(copy: Path) -> None:
    path = copy / "policy_fp16.onnx"
    path.write_bytes(path.read_bytes()[:5000])

    def follow(data: dict) -> None:  # type: ignore[type-arg]
        data["precisions"]["fp16"] |= {"sha256": sha256_file(path), "bytes": 5000}
        data["hashes"]["onnx"] = sha256_file(path)

    edit_manifest(copy, follow)
    assert_refused(copy, "is no ONNX file, or one cut short")


def test_another_runs_hashes_in_the_manifest_are_refused(copy: Path) -> None:
    edit_manifest(copy, lambda data: data["hashes"].update(weights="0" * 64))
    assert_refused(copy, "weights_sha256")


def test_another_size_in_the_manifest_is_refused(copy: Path) -> None:
    edit_manifest(copy, lambda data: data["input"].update(shape=["batch", 50]))
    assert_refused(copy, "tensors")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "sea-dbs-export-1"}', '{"kind": "run"}'])
def test_a_damaged_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / manifest.MANIFEST).write_text(text)
    assert_refused(copy, "manifest.json")


def test_a_missing_file_or_folder_is_refused(copy: Path) -> None:
    (copy / "policy_fp16.onnx").unlink()
    assert_refused(copy, "cannot read", "policy_fp16.onnx")
    assert_refused(copy / "nowhere", "no export folder")
    with pytest.raises(UserError, match="int4"):
        OnnxPolicy(copy, "int4")


@pytest.mark.parametrize(
    "observation",
    [
        np.zeros(1000, np.float32),
        np.zeros((1, 999), np.float32),
        np.zeros((1, 1000), np.int64),
        np.full((1, 1000), np.nan, np.float32),
        np.full((1, 1000), np.inf, np.float32),
        np.zeros((2, 1000), np.float32),
    ],
)
def test_a_wrong_observation_gets_no_decision(exported: Path, observation: np.ndarray) -> None:  # type: ignore[type-arg]
    policy = OnnxPolicy(exported)
    policy.init_state(1)
    with pytest.raises(UserError):
        policy.act(observation)


def test_a_policy_changed_after_training_is_not_exported(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    actor = build_actor("compact", 1000, 50)
    from sea_dbs.checkpoint import read_policy, save_policy

    save_policy(tmp_path / "run", actor, read_policy(run)[1])
    with pytest.raises(UserError, match="changed after the training"):
        export_run(tmp_path / "run", tmp_path / "out", quiet=True, env_factory=ToyEnv)
