"""Somebody else's policy: an ONNX file and a small manifest that says what its numbers mean."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import yaml
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from pydantic import BaseModel, ConfigDict, Field

from envs.basal_ganglia import OBSERVATION_SCALE
from envs.config import validated
from envs.errors import UserError
from envs.stimulation import PLANT_MS_PER_US, UA_CM2_PER_UA
from envs.untrusted import MAX_YAML_BYTES, load_yaml, read_bounded
from export.graph import BATCH, Interface, check_interface, strip_build_traces
from export.manifest import MAX_BYTES
from export.precision import to_half
from export.rewrite import house_form
from export.runner import OnnxRunner
from export.source import Source
from sea_dbs.config import config_from_mapping

OPSETS = range(17, 22)  # onnx operator sets that FP16, INT8 and C were made from in the tests


class PolicyManifest(BaseModel):
    """What the owner of an ONNX file says about it; YAML or JSON; ``sea-dbs export --help`` shows one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["sea-dbs-policy-1"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")
    preset: str
    environment: dict[str, Any] = {}
    n_obs: int = Field(ge=1, le=5000)
    slots: int = Field(ge=1, le=256)
    slot_us: float = Field(gt=0)
    amplitude_uA: float = Field(gt=0)
    width_us: float = Field(gt=0)
    divisor: float = Field(gt=0)
    opset: int
    state: int = Field(0, ge=0, le=4096)


def read_foreign(onnx_path: Path, manifest_path: Path) -> Source:
    """Somebody else's policy, checked.

    Raises:
        UserError: one sentence about the first thing that does not fit: either file missing, cut short or too large,
            the manifest's keys, the plant it names, another opset, operators of another domain, weights in other files
            or not finite, or tensors with other names, types or axes than the manifest's.
    """
    described, manifest_sha = _read_manifest(manifest_path)
    if own := described.environment.get("own_duties"):
        raise UserError(
            f"the manifest {manifest_path} has own_duties={own} in its environment: a policy of your own is shown what "
            "was sensed alone, allowed is 0"
        )
    config = config_from_mapping({"preset": described.preset, **described.environment}, str(manifest_path))
    _fits(
        described,
        {
            "n_obs": config.n_obs,
            "slots": config.slots,
            "slot_us": 1e6 / (config.stim_hz or 1.0),
            "amplitude_uA": (config.amplitude_uA_cm2 or 0.0) / UA_CM2_PER_UA,
            "width_us": (config.width_ms or 0.0) / PLANT_MS_PER_US,
            "divisor": OBSERVATION_SCALE,
        },
        manifest_path,
    )
    interface = Interface(described.n_obs, described.slots, described.state)
    data = read_bounded(onnx_path, MAX_BYTES, "the policy")
    model = _checked(data, onnx_path, described, interface)
    house_form(model)
    onnx.checker.check_model(model, full_check=True)
    plain = model.SerializeToString(deterministic=True)

    @cache
    def made(precision: str) -> bytes:
        return to_half(model).SerializeToString(deterministic=True) if precision == "fp16" else plain  # type: ignore[no-any-return]

    return Source(
        name=described.name,
        interface=interface,
        parameters=sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT),
        env_steps=None,
        origin="file",
        config=config,
        config_sha256=manifest_sha,
        weights_sha256=hashlib.sha256(data).hexdigest(),
        reference=OnnxRunner(data, "given file"),
        reference_name="given",
        opset=described.opset,
        plain=made,
    )


def _read_manifest(path: Path) -> tuple[PolicyManifest, str]:
    data = read_bounded(path, MAX_YAML_BYTES, "the manifest")
    try:
        values = load_yaml(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the manifest {path} is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"the manifest {path} must hold KEY: VALUE lines, as sea-dbs export --help shows")
    return validated(PolicyManifest, values, f"the manifest {path}"), hashlib.sha256(data).hexdigest()


def _fits(described: PolicyManifest, plant: dict[str, Any], path: Path) -> None:
    for key, there in plant.items():
        said = getattr(described, key)
        if abs(said - there) > 1e-6 * abs(there):
            raise UserError(
                f"the manifest {path} says {key} {said:g}, the plant '{described.preset}' has {there:g}: name the "
                "plant that the policy was made for, or its settings under 'environment'"
            )


def _checked(data: bytes, path: Path, described: PolicyManifest, interface: Interface) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path} is no ONNX file, or one cut short ({len(data):,} bytes)") from error
    if not model.graph.node or not model.graph.output:
        raise UserError(f"{path} is no ONNX file, or one cut short: it holds no graph")
    _check_operators(model, path, described)
    _check_weights(model, path)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"{path} is not valid ONNX: {' '.join(str(error).split())[:200]}") from error
    _free_batch(model, path)
    check_interface(model, interface)
    noted = {entry.key: entry.value for entry in model.metadata_props}
    said = {"preset": described.preset, "slots": str(described.slots), "slot_us": str(described.slot_us)}
    for key, value in said.items():
        if noted.get(f"sea_dbs.{key}", value) != value:
            raise UserError(f"{path} says of itself {key} {noted[f'sea_dbs.{key}']}, its manifest says {value}")
    strip_build_traces(model)
    del model.metadata_props[:]
    return model


def _check_operators(model: onnx.ModelProto, path: Path, described: PolicyManifest) -> None:
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise UserError(
                f"{path} uses the operator {node.op_type} of the domain '{node.domain}': only ONNX's own are taken"
            )
    if model.functions:
        raise UserError(f"{path} defines a function of its own, {model.functions[0].name}: inline it first")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        raise UserError(f"{path} has the opset {opset}: from {OPSETS[0]} to {OPSETS[-1]} are taken")
    if opset != described.opset:
        raise UserError(f"{path} has the opset {opset}, its manifest says {described.opset}")


def _check_weights(model: onnx.ModelProto, path: Path) -> None:
    inner = [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    for tensor in (*model.graph.initializer, *inner):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise UserError(f"{path} keeps the weights '{tensor.name}' in another file: save it as a single file")
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16):
            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            raise UserError(f"{path} holds the weights '{tensor.name}' as {kind}: FP32 is needed")
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
            if not np.isfinite(largest):
                raise UserError(f"{path} holds a weight that is not finite, in '{tensor.name}'")


def _free_batch(model: onnx.ModelProto, path: Path) -> None:
    """Name the free first axis of inputs and outputs ``batch``."""
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        if len(axes) and axes[0].HasField("dim_value"):
            raise UserError(
                f"{path} fixes the batch axis of '{value.name}' at {axes[0].dim_value}: export it with a free one"
            )
        if len(axes):
            axes[0].dim_param = BATCH
