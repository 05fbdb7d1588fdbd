"""manifest.json: what an export folder holds, in which units, and the hash chain config -> weights -> ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs.errors import UserError
from sea_dbs.files import read_json, write_json

MANIFEST = "manifest.json"
MAX_BYTES = 256 << 20  # of an ONNX file, four times the paper's actor: no policy for a board is larger


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelFile(_Part):
    """One precision: the file beside the manifest, its hash and size."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    weight_bytes: int = Field(gt=0)


class Tensor(_Part):
    """Name, type, axes ("batch" is free) and unit of an input or output."""

    name: str
    dtype: Literal["float32"] = "float32"
    shape: tuple[str | int, ...]
    unit: str


class Normalisation(_Part):
    """How a measured quantity becomes the network's input: input = quantity / divisor."""

    quantity: str
    unit: str
    divisor: float = Field(gt=0)


class Hashes(_Part):
    """The chain, hex SHA-256. ``onnx`` is the default precision's file: the model hash a board checks."""

    config: str
    weights: str
    onnx: str


class Release(_Part):
    """Whoever holds a device key let this policy drive that key's boards, on this verdict (`firmware_bridge.release`).

    It is no part of the hash chain: the chain's head, the model hash, stands in the verdict, and the tag signs both.
    """

    verdict: dict[str, Any]
    verdict_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the verdict's canonical JSON
    tag: str = Field(pattern=r"^[0-9a-f]{64}$")  # HMAC of model hash and verdict_sha256 by the device key
    key: str = Field(pattern=r"^[0-9a-f]{8}$")  # fingerprint of that key


class Manifest(_Part):
    """The whole file; see the fields' own types for units."""

    format: Literal["sea-dbs-export-1"] = "sea-dbs-export-1"
    sea_dbs_version: str
    preset: str
    environment: dict[str, Any]  # overrides of the preset: envs.make_env(preset, **environment) is the plant it knows
    actor: dict[str, Any]
    parameters: int = Field(gt=0)
    hashes: Hashes
    default: str
    precisions: dict[str, ModelFile]
    opset: int
    input: Tensor
    output: Tensor
    state_in: Tensor | None = None  # of a recurrent policy: zeros before the first decision
    state_out: Tensor | None = None
    origin: Literal["run", "file"] = "run"  # "file": given by its owner; hashes.config is then that of their manifest
    normalisation: Normalisation
    decision: str = "a slot is stimulated where logits[..., 1] > logits[..., 0]; a tie gives no pulse"
    slots: int = Field(gt=0)
    slot_us: float = Field(gt=0)
    amplitude_uA: float = Field(gt=0)
    width_us: float = Field(gt=0)
    release: Release | None = None  # written by sea-dbs release; absent: the policy was never released

    @property
    def tensors(self) -> list[Tensor]:
        """Inputs, then outputs, in the graph's order."""
        return [t for t in (self.input, self.state_in, self.output, self.state_out) if t is not None]

    @property
    def n_obs(self) -> int:
        """Values in one observation."""
        return int(self.input.shape[1])

    def model(self, precision: str | None = None) -> ModelFile:
        """The file of a precision (None: the default).

        Raises:
            UserError: this export does not hold it.
        """
        name = precision or self.default
        if name not in self.precisions:
            raise UserError(f"this export holds no precision '{name}': it has {', '.join(sorted(self.precisions))}")
        return self.precisions[name]


def save(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json atomically. It holds no time and no path: equal exports are equal files."""
    values = manifest.model_dump(mode="json")
    write_json(folder / MANIFEST, values if manifest.release is not None else unreleased(values))


def unreleased(values: dict[str, Any]) -> dict[str, Any]:
    """The manifest's values without its release: what the hash chain stands on."""
    return {key: value for key, value in values.items() if key != "release"}


def load(folder: Path) -> Manifest:
    """Read and check an export folder's manifest.

    Raises:
        UserError: it is missing, no JSON, of another format, or a field is missing or out of range.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is no export folder (no {MANIFEST}): make one with sea-dbs export RUN_DIR --out DIR")
    data = read_json(folder / MANIFEST)
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{folder / MANIFEST} is damaged or of another version: {where}: {first['msg']}") from error
    if manifest.hashes.onnx != manifest.model().sha256:
        raise UserError(
            f"{folder / MANIFEST} contradicts itself: hashes.onnx is not that of its {manifest.default} file"
        )
    if len(manifest.input.shape) != 2 or not isinstance(manifest.input.shape[1], int):
        raise UserError(f"{folder / MANIFEST} is damaged: input.shape must be ('batch', number of values)")
    return manifest
