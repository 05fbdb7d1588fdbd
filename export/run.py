"""``sea-dbs export``: a policy becomes an export folder, with the evidence that every precision decides alike."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.errors import UserError
from export import chain, closed_loop, cost, graph, manifest, parity, targets
from export.inputs import input_of
from export.manifest import Hashes, Manifest, ModelFile, Tensor
from export.observations import CALIBRATION_SEEDS, gather
from export.parity import Float, Row
from export.plants import EnvFactory
from export.quantise import to_int8
from export.runner import OnnxRunner, along
from export.source import Source, read_run, untrained
from sea_dbs.files import atomic_write_bytes, atomic_write_text, prepare_output_dir, write_json
from sea_dbs.report.parity_figure import draw
from sea_dbs.train import make_env

PRECISIONS = ("fp32", "fp16", "int8")
DEFAULT = "fp16"  # of an export that holds it; else the first one asked for
SECONDS = 4.0  # simulated s of each of the eight plants whose observations are compared
MADE_UP = 4  # observations, uniform from 0 to 1 as real ones are (P_beta / 1000): enough to see what a graph becomes
UNTRAINED = "untrained (size and speed only)"
UNTRAINED_SEED = 0


@dataclass(frozen=True)
class Settings:
    """How a policy is exported; the defaults are the command's."""

    precisions: Sequence[str] = PRECISIONS
    targets: Sequence[str] = ()  # C sources; the boards are compiled by who calls
    seconds: float = SECONDS
    closed_loop_seeds: int = closed_loop.SEEDS  # 0: none is run
    compare_other: bool = True  # the other actor too, untrained: what its size costs
    overwrite: bool = False
    quiet: bool = False
    env_factory: EnvFactory = make_env

    def check(self) -> None:
        """Raise UserError for an unknown or repeated precision, or a number out of range."""
        for name in self.precisions:
            if name not in PRECISIONS:
                raise UserError(f"unknown precision '{name}': choose from {', '.join(PRECISIONS)}")
        if not self.precisions or len(set(self.precisions)) != len(self.precisions):
            raise UserError(f"--precisions names none, or one twice: choose from {', '.join(PRECISIONS)}")
        targets.check(self.targets, self.precisions)
        closed_loop.check_seeds(self.closed_loop_seeds)


@dataclass
class Evidence:
    """What the comparison found: rows of the table, latencies by (policy, precision), margins by precision."""

    rows: list[Row] = field(default_factory=list)
    latency: dict[tuple[str, str], Float] = field(default_factory=dict)
    margins: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def export_run(run: Path, out: Path, **settings: Any) -> tuple[Manifest, list[Row]]:
    """Export a run's policy; ``settings`` are those of `Settings`. See `export_source`.

    Raises:
        UserError: no readable policy, or as `export_source`.
    """
    return export_source(read_run(run), out, Settings(**settings))


def export_source(source: Source, out: Path, settings: Settings) -> tuple[Manifest, list[Row]]:
    """Make the files, compare them, and write everything; nothing is written before all of it is checked.

    Raises:
        UserError: a wrong setting, a folder in use, weights that FP16 cannot hold, calibration values or logits that
            are not finite, a graph that cannot be quantised or, with targets, become C.
    """
    settings.check()
    torch.set_num_threads(1)
    if settings.targets and source.origin == "file":  # networks of ours are known to become C
        _check_in_c(source)
    if not settings.overwrite:
        prepare_output_dir(out)
    policy = OnnxRunner(source.plain("fp32"), "policy")
    config, quiet, factory = source.config, settings.quiet, settings.env_factory
    observations, facts = gather(config, policy, settings.seconds, factory, quiet=quiet)
    calibration, _ = gather(
        config, policy, settings.seconds, factory, seeds=CALIBRATION_SEEDS, name="calibration", quiet=quiet
    )
    steps = facts["steps"]
    models = build(source, settings.precisions, calibration, steps)
    in_c = targets.c_sources(models, source.plain("fp32")) if settings.targets else None
    evidence = measure(source, models, observations, steps)
    if settings.compare_other and source.origin == "run" and not source.interface.state:
        other = untrained(source, UNTRAINED_SEED)
        more = measure(other, build(other, settings.precisions, calibration, steps), observations, steps, UNTRAINED)
        evidence.rows += more.rows
        evidence.latency |= more.latency
    outcome = (
        closed_loop.run(config, models, factory, seeds=settings.closed_loop_seeds, quiet=quiet)
        if settings.closed_loop_seeds
        else None
    )
    prepare_output_dir(out, overwrite=settings.overwrite, resume=not settings.overwrite)
    _write_models(out, source, models)
    if in_c is not None:
        targets.write(out, *in_c)
    _write_npz(out / "observations.npz", {"observation": observations})
    _write_npz(out / "calibration.npz", {"observation": calibration})
    _write_evidence(out, source, evidence, facts, outcome)
    described = describe(source, models)
    manifest.save(out, described)
    chain.write(out)
    return described, evidence.rows


def _check_in_c(source: Source) -> None:
    """Whether the policy can become C, before any plant is simulated: quantised on made-up observations, and read.

    Raises:
        UserError: a node that the policy in C does not know (named), or a graph that cannot be quantised.
    """
    from export.integer import IntegerModel
    from export.integer.reader import read_chain

    read_chain(source.plain("fp32"))  # first: its nodes are the owner's
    made_up = np.random.default_rng(0).random((MADE_UP, source.interface.n_obs), np.float32)
    IntegerModel.from_onnx(build(source, ("int8",), made_up, MADE_UP)["int8"])


def build(source: Source, precisions: Sequence[str], calibration: Float, steps: int) -> dict[str, bytes]:
    """The ONNX bytes of a policy in each precision, metadata included.

    Args:
        calibration: (n, n_obs), plant after plant, ``steps`` decisions each (a recurrent policy's states follow them).

    Raises:
        UserError: as `export_source`.
    """
    models = {}
    for name in precisions:
        if name != "int8":
            models[name] = source.build(name)
            continue
        single = source.plain("fp32")
        feeds = {graph.INPUT: calibration}
        if source.interface.state:
            states: list[Float] = []
            along(OnnxRunner(single), calibration, steps, states)
            feeds[graph.STATE] = states[0]
        models[name] = to_int8(single, feeds, source.metadata(name))
    return models


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
    config, what = source.config, source.interface
    seen, normalisation = input_of(config)
    default = DEFAULT if DEFAULT in models else next(iter(models))
    state = {
        key: Tensor(name=name, shape=(graph.BATCH, what.state), unit="state of the policy, zeros before the first step")
        for key, name in (("state_in", graph.STATE), ("state_out", graph.NEXT_STATE))
        if what.state
    }
    return Manifest(
        sea_dbs_version=version("sea-dbs"),
        preset=config.preset,
        environment=config.env_overrides(),
        actor={"name": source.name, "env_steps": source.env_steps},
        parameters=source.parameters,
        hashes=Hashes(config=source.config_sha256, weights=source.weights_sha256, onnx=files[default].sha256),
        default=default,
        precisions=files,
        opset=source.opset,
        input=Tensor(name=graph.INPUT, shape=(graph.BATCH, what.n_obs), unit=f"{seen}, oldest value first"),
        output=Tensor(name=graph.OUTPUT, shape=(graph.BATCH, what.slots, 2), unit="logits: no pulse, pulse"),
        **state,
        origin=source.origin,
        normalisation=normalisation,
        slots=what.slots,
        slot_us=1e6 / (config.stim_hz or 1.0),
        amplitude_uA=source.amplitude_uA,
        width_us=source.width_us,
    )


def measure(
    source: Source, models: Mapping[str, bytes], observations: Float, steps: int, weights: str = ""
) -> Evidence:
    """Compare a policy's files with its reference over the same observations, and time each in a process of its own."""
    found = Evidence()
    name = source.name
    facts: dict[str, Any] = {
        "policy": name,
        "parameters": source.parameters,
        "weights": weights or ("trained" if source.origin == "run" else "given by its owner"),
    }
    reference = along(source.reference, observations, steps)
    single = source.plain("fp32")
    full, work = graph.weight_bytes(single), graph.multiplications(single)
    if source.reference_name == "torch":
        took = parity.time_calls(source.reference, observations)
        found.latency[name, "torch"] = took
        facts |= {"file_bytes": full, "weight_bytes": full}
        found.rows.append(
            Row(precision="torch", **facts, **parity.compare(reference, reference), **parity.percentiles(took))
        )
    found.margins[source.reference_name] = parity.margins(reference)
    for precision, data in models.items():
        logits = along(OnnxRunner(data), observations, steps)
        took, timing = cost.measure(data, observations, work)
        held = graph.weight_bytes(data)
        facts |= {"file_bytes": len(data), "weight_bytes": held, "weight_ratio": held / full}
        found.rows.append(Row(precision=precision, **facts, **parity.compare(reference, logits), **timing))
        found.latency[name, precision] = took
        found.margins[precision] = parity.margins(logits)
    return found


def _write_models(out: Path, source: Source, models: Mapping[str, bytes]) -> None:
    files = {file_name(name): data for name, data in models.items()}
    if source.interface.state and "fp32" in models:  # generators of C take no free axis
        files["policy_fp32_batch1.onnx"] = graph.batch_of_one(models["fp32"], source.metadata("fp32"))
    for name, data in files.items():
        atomic_write_bytes(out / name, data)


def _write_evidence(
    out: Path, source: Source, evidence: Evidence, facts: dict[str, Any], outcome: dict[str, Any] | None
) -> None:
    _write_npz(out / "latency.npz", {f"{policy}_{name}_us": took for (policy, name), took in evidence.latency.items()})
    write_json(out / "parity.json", parity.as_json(evidence.rows, facts, outcome))
    atomic_write_text(out / "parity.md", parity.markdown(evidence.rows, outcome))
    sizes = [(row.policy, row.precision, row.file_bytes) for row in evidence.rows if row.precision in PRECISIONS]
    candidates = {name: values for name, values in evidence.margins.items() if name in PRECISIONS}
    picture = draw(evidence.margins[source.reference_name], candidates, sizes)
    atomic_write_bytes(out / "parity.png", picture)


def _write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic_write_bytes(path, buffer.getvalue())
