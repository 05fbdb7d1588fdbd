"""``sea-dbs export``: a run folder becomes an export folder, with the evidence that both decide alike."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from envs.basal_ganglia import OBSERVATION_SCALE
from envs.errors import UserError
from envs.stimulation import PLANT_MS_PER_US, UA_CM2_PER_UA
from export import chain, graph, manifest, parity
from export.manifest import Hashes, Manifest, ModelFile, Normalisation, Tensor
from export.observations import CALIBRATION_SEEDS, gather
from export.parity import Float, LogitsOf, Row
from export.plants import EnvFactory
from export.policy import open_session
from export.precision import PRECISIONS
from export.quantise import to_int8
from sea_dbs.checkpoint import POLICY, read_policy
from sea_dbs.config import TrainConfig, config_from_mapping
from sea_dbs.controllers import TorchPolicy
from sea_dbs.files import atomic_write, atomic_write_text, prepare_output_dir, read_json, sha256_file, write_json
from sea_dbs.networks import build_actor, parameter_count
from sea_dbs.report.parity_figure import draw
from sea_dbs.train import make_env

DEFAULT = "fp16"
SECONDS = 4.0  # simulated s of each of the eight plants whose observations are compared
UNTRAINED = "untrained (size and speed only)"
UNTRAINED_SEED = 0


@dataclass(frozen=True)
class Source:
    """A run folder's policy: network, description, settings, and the hashes of the first two links of the chain."""

    actor: nn.Module
    spec: dict[str, Any]
    config: TrainConfig
    config_sha256: str
    weights_sha256: str


def read_run(run: Path) -> Source:
    """Read the policy of a run folder.

    Raises:
        UserError: missing, truncated, or not the file with which the training ended.
    """
    actor, spec = read_policy(run)
    weights = sha256_file(run / POLICY)
    if (run / "manifest.json").is_file():
        facts = read_json(run / "manifest.json")
        if facts.get("finished") and facts.get("policy_sha256") != weights:
            raise UserError(f"{run / POLICY} was changed after the training ended: its hash is not the run's")
    config = config_from_mapping(spec["config"], str(run / POLICY))
    return Source(actor, spec, config, config.sha256(), weights)


def export_run(
    run: Path,
    out: Path,
    *,
    overwrite: bool = False,
    seconds: float = SECONDS,
    quiet: bool = False,
    env_factory: EnvFactory = make_env,
) -> tuple[Manifest, list[Row]]:
    """Export a run's policy and compare it with torch; nothing is written before everything is checked.

    Raises:
        UserError: no readable policy, a folder in use, weights or logits that FP16 cannot hold.
    """
    source = read_run(run)
    if not overwrite:
        prepare_output_dir(out)
    torch.set_num_threads(1)
    models = {name: build(source, name) for name in PRECISIONS}
    policy = TorchPolicy(source.actor, source.spec)
    observations, facts = gather(source.config, policy, seconds, env_factory, quiet=quiet)
    calibration, _ = gather(
        source.config, policy, seconds, env_factory, seeds=CALIBRATION_SEEDS, name="calibration", quiet=quiet
    )
    models["int8"] = to_int8(models["fp32"], {graph.INPUT: calibration}, _metadata(source, "int8"))
    rows, latency, margins = measure(source, models, observations, calibration)
    prepare_output_dir(out, overwrite=overwrite, resume=not overwrite)
    for name, data in models.items():
        atomic_write(out / file_name(name), lambda stream, data=data: stream.write(data))  # type: ignore[misc]
    _write_npz(out / "observations.npz", {"observation": observations})
    _write_npz(out / "calibration.npz", {"observation": calibration})
    _write_npz(out / "latency.npz", {f"{policy}_{name}_us": values for (policy, name), values in latency.items()})
    write_json(out / "parity.json", parity.as_json(rows, facts))
    atomic_write_text(out / "parity.md", parity.markdown(rows))
    sizes = [(row.policy, row.precision, row.file_bytes) for row in rows if row.precision in models]
    picture = draw(margins["torch"], {name: margins[name] for name in models}, sizes)
    atomic_write(out / "parity.png", lambda stream: stream.write(picture))
    described = describe(source, models)
    manifest.save(out, described)
    chain.write(out)  # last: it names every file before it
    return described, rows


def build(source: Source, precision: str) -> bytes:
    """The ONNX bytes of a run's policy in one precision, metadata included."""
    wrapped = PRECISIONS[precision](source.actor)
    return graph.to_onnx(
        wrapped, n_obs=source.spec["n_obs"], slots=source.spec["slots"], metadata=_metadata(source, precision)
    )


def file_name(precision: str) -> str:
    """The file of a precision in an export folder."""
    return f"policy_{precision}.onnx"


def describe(source: Source, models: Mapping[str, bytes]) -> Manifest:
    """The manifest of an export."""
    files = {
        name: ModelFile(
            file=file_name(name),
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            weight_bytes=graph.weight_bytes(data),
        )
        for name, data in models.items()
    }
    config, spec = source.config, source.spec
    return Manifest(
        sea_dbs_version=version("sea-dbs"),
        preset=config.preset,
        environment=config.env_overrides(),
        actor={"name": spec["actor"], "env_steps": spec["step"]},
        parameters=parameter_count(source.actor),
        hashes=Hashes(config=source.config_sha256, weights=source.weights_sha256, onnx=files[DEFAULT].sha256),
        default=DEFAULT,
        precisions=files,
        opset=graph.OPSET,
        input=Tensor(name=graph.INPUT, shape=(graph.BATCH, spec["n_obs"]), unit="P_beta / 1000, oldest value first"),
        output=Tensor(name=graph.OUTPUT, shape=(graph.BATCH, spec["slots"], 2), unit="logits: no pulse, pulse"),
        normalisation=Normalisation(quantity="P_beta", unit="spikes²/s²", divisor=OBSERVATION_SCALE),
        slots=spec["slots"],
        slot_us=1e6 / (config.stim_hz or 1.0),
        amplitude_uA=round((config.amplitude_uA_cm2 or 0.0) / UA_CM2_PER_UA, 6),
        width_us=round((config.width_ms or 0.0) / PLANT_MS_PER_US, 6),
    )


def _metadata(source: Source, precision: str) -> dict[str, str]:
    """What stands in the ONNX file itself, so that it explains itself without the manifest."""
    config = source.config
    values = {
        "version": version("sea-dbs"),
        "preset": config.preset,
        "precision": precision,
        "actor": source.spec["actor"],
        "opset": graph.OPSET,
        "input": f"{graph.INPUT}: P_beta / {OBSERVATION_SCALE:g} (spikes²/s²), oldest value first, float32",
        "output": f"{graph.OUTPUT}: (slot, [no pulse, pulse]), float32; a tie gives no pulse",
        "slots": source.spec["slots"],
        "slot_us": 1e6 / (config.stim_hz or 1.0),
        "config_sha256": source.config_sha256,
        "weights_sha256": source.weights_sha256,
        "notice": "research use only, not for human use",
    }
    return {f"sea_dbs.{key}": str(value) for key, value in values.items()}


Measured = tuple[list[Row], dict[tuple[str, str], Float], dict[str, NDArray[np.float64]]]


def measure(source: Source, models: Mapping[str, bytes], observations: Float, calibration: Float) -> Measured:
    """All rows of the parity table, latencies by (policy, precision), and the policy's margins by precision.

    The other actor follows with weights that nobody trained, on the same observations: what the paper's head costs.
    """
    name, n_obs, slots = source.spec["actor"], source.spec["n_obs"], source.spec["slots"]
    rows, latency, margins = _measure_one(name, "trained", source.actor, models, observations)
    other = "compact" if name == "paper" else "paper"
    with torch.random.fork_rng():
        torch.manual_seed(UNTRAINED_SEED)
        actor = build_actor(other, n_obs, slots).eval()
    built = {
        precision: graph.to_onnx(wrap(actor), n_obs=n_obs, slots=slots, metadata={})
        for precision, wrap in PRECISIONS.items()
    }
    built["int8"] = to_int8(built["fp32"], {graph.INPUT: calibration}, {})
    more_rows, more_latency, _ = _measure_one(other, UNTRAINED, actor, built, observations)
    return rows + more_rows, latency | more_latency, margins


def _measure_one(
    name: str, weights: str, actor: nn.Module, models: Mapping[str, bytes], observations: Float
) -> Measured:
    run_torch = _torch_runner(actor)
    reference = run_torch(observations)
    rows, latency, margins = [], {}, {}
    state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in actor.state_dict().values())
    for precision, data in [("torch", b""), *models.items()]:
        run = _onnx_runner(data) if data else run_torch
        logits = run(observations)
        took = parity.time_calls(run, observations)
        rows.append(
            Row(
                policy=name,
                precision=precision,
                weights=weights,
                parameters=parameter_count(actor),
                file_bytes=len(data) or state_bytes,
                weight_bytes=graph.weight_bytes(data) if data else state_bytes,
                **parity.compare(reference, logits),
                **parity.percentiles(took),
            )
        )
        latency[name, precision] = took
        margins[precision] = parity.margins(logits)
    return rows, latency, margins


def _torch_runner(actor: nn.Module) -> LogitsOf:
    def run(observation: Float) -> Float:
        with torch.inference_mode():
            logits: Float = actor(torch.from_numpy(observation)).numpy()
        return logits

    return run


def _onnx_runner(data: bytes) -> LogitsOf:
    session = open_session(data)

    def run(observation: Float) -> Float:
        logits: Float = session.run([graph.OUTPUT], {graph.INPUT: observation})[0]
        return logits

    return run


def _write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic_write(path, lambda stream: stream.write(buffer.getvalue()))
