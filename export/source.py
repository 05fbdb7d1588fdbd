"""What is exported: a trained run's policy, or (`export.foreign`) somebody else's ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from envs.errors import UserError
from envs.stimulation import PLANT_MS_PER_US, UA_CM2_PER_UA
from export import graph
from export.graph import Interface
from export.inputs import input_of
from export.precision import wrap
from export.runner import Runner
from sea_dbs.checkpoint import POLICY, read_policy
from sea_dbs.config import TrainConfig, config_from_mapping
from sea_dbs.controllers import TorchPolicy
from sea_dbs.files import read_json, sha256_file
from sea_dbs.networks import build_actor, parameter_count, state_size


@dataclass(frozen=True)
class Source:
    """A policy to export.

    Attributes:
        reference: what every precision is compared with, called ``reference_name`` in the tables.
        config: the plant on which it is calibrated and compared.
        config_sha256, weights_sha256: the first link of the chain; for a foreign policy its manifest and its file.
        plain: ONNX bytes in "fp32" or "fp16", without metadata; made once.
    """

    name: str
    interface: Interface
    parameters: int
    env_steps: int | None
    origin: Literal["run", "file"]
    config: TrainConfig
    config_sha256: str
    weights_sha256: str
    reference: Runner
    reference_name: str
    opset: int
    plain: Callable[[str], bytes]

    @property
    def amplitude_uA(self) -> float:
        """Amplitude of a pulse on the device (µA)."""
        return round((self.config.amplitude_uA_cm2 or 0.0) / UA_CM2_PER_UA, 6)

    @property
    def width_us(self) -> float:
        """Width of a pulse's first phase on the device (µs)."""
        return round((self.config.width_ms or 0.0) / PLANT_MS_PER_US, 6)

    def build(self, precision: str) -> bytes:
        """ONNX bytes in "fp32" or "fp16", metadata included.

        Raises:
            UserError: a weight that the precision cannot hold, or a network that cannot be written as ONNX.
        """
        return graph.stamp(self.plain(precision), self.metadata(precision))

    def metadata(self, precision: str) -> dict[str, str]:
        """What stands in the ONNX file itself, so that it explains itself without the manifest."""
        config = self.config
        seen, scale = input_of(config)
        values: dict[str, Any] = {
            "version": version("sea-dbs"),
            "preset": config.preset,
            "precision": precision,
            "actor": self.name,
            "opset": self.opset,
            "input": f"{graph.INPUT}: {seen} ({scale.unit}), oldest value first, float32",
            "divisor": f"{scale.divisor:g}",
            "output": f"{graph.OUTPUT}: (slot, [no pulse, pulse]), float32; a tie gives no pulse",
            "slots": self.interface.slots,
            "slot_us": 1e6 / (config.stim_hz or 1.0),
            "amplitude_uA": self.amplitude_uA,
            "width_us": self.width_us,
            "config_sha256": self.config_sha256,
            "weights_sha256": self.weights_sha256,
            "notice": "research use only, not for human use",
        }
        if self.interface.state:
            values["state"] = f"{graph.STATE}, {graph.NEXT_STATE}: zeros before the first decision, float32"
        return {f"sea_dbs.{key}": str(value) for key, value in values.items()}


def read_run(run: Path) -> Source:
    """The policy of a run folder.

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
    return of_actor(actor, spec, config, config.sha256(), weights)


def of_actor(actor: nn.Module, spec: dict[str, Any], config: TrainConfig, config_sha: str, weights_sha: str) -> Source:
    """A network of ours as a source; ``spec`` names actor, n_obs, slots and step."""
    interface = Interface(spec["n_obs"], spec["slots"], state_size(actor))

    @cache
    def plain(precision: str) -> bytes:
        return graph.to_onnx(
            wrap(actor, precision),
            n_obs=interface.n_obs,
            slots=interface.slots,
            state=interface.state,
            metadata={},
        )

    return Source(
        name=spec["actor"],
        interface=interface,
        parameters=parameter_count(actor),
        env_steps=spec["step"],
        origin="run",
        config=config,
        config_sha256=config_sha,
        weights_sha256=weights_sha,
        reference=TorchPolicy(actor, spec),
        reference_name="torch",
        opset=graph.OPSET,
        plain=plain,
    )


def untrained(like: Source, seed: int) -> Source:
    """The other of the two actors with weights that nobody trained: what its size costs on the same observations."""
    name = "compact" if like.name == "paper" else "paper"
    spec: dict[str, Any] = {"actor": name, "n_obs": like.interface.n_obs, "slots": like.interface.slots, "step": 0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        actor = build_actor(name, spec["n_obs"], spec["slots"]).eval()
    return of_actor(actor, spec, like.config, like.config_sha256, like.weights_sha256)
