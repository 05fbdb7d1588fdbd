"""The exported policy as a controller: ONNX Runtime, one thread, repeatable; needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export import manifest as manifests
from export.manifest import Manifest
from sea_dbs.controllers import check_observation, decide
from sea_dbs.extras import need


def open_session(data: bytes) -> Any:
    """An onnxruntime session of a serialised model: one thread, sequential, deterministic.

    Raises:
        UserError: onnxruntime cannot load it.
    """
    need("export", "onnxruntime")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # fatal only: what fails is raised, and said once
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"onnxruntime cannot load the model: {reason[0]}") from error


class OnnxPolicy:
    """A policy from an export folder, behind the controllers' one interface.

    Args:
        folder: written by ``sea-dbs export``.
        precision: "fp32", "fp16"; None takes the manifest's default.

    Raises:
        UserError: the manifest or the file is missing, was changed or cut short (its SHA-256 differs from the
            manifest's), or the graph is not what the manifest says.
    """

    def __init__(self, folder: Path, precision: str | None = None) -> None:
        self.folder = folder
        self.manifest: Manifest = manifests.load(folder)
        entry = self.manifest.model(precision)
        self.precision = precision or self.manifest.default
        self.name = f"policy-onnx-{self.precision}"
        self.model_hash = entry.sha256
        self.n_obs = self.manifest.n_obs
        self.slots = self.manifest.slots
        self.n = 1
        path = folder / entry.file
        try:
            data = path.read_bytes()  # read once: what is hashed is what runs
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise UserError(
                f"{path} is not the file that its manifest describes ({len(data)} bytes, {entry.bytes} expected; "
                "changed or cut short): export the run again"
            )
        self._session = open_session(data)
        self._check_graph(path)

    def _check_graph(self, path: Path) -> None:
        m = self.manifest
        meta = self._session.get_modelmeta().custom_metadata_map
        chain = {"sea_dbs.config_sha256": m.hashes.config, "sea_dbs.weights_sha256": m.hashes.weights}
        for key, value in chain.items():
            if meta.get(key) != value:
                raise UserError(f"{path} was not made from what its manifest names: {key} differs")
        found = [(t.name, list(t.shape)) for t in (*self._session.get_inputs(), *self._session.get_outputs())]
        wanted = [(t.name, list(t.shape)) for t in (m.input, m.output)]
        if found != wanted:
            raise UserError(f"{path} has the tensors {found}, its manifest says {wanted}")

    def init_state(self, n: int = 1) -> None:
        """Set the number of environments; there is nothing to forget, the network is feed-forward."""
        self.n = n

    def logits(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, n_obs) float32 -> (n, slots, 2) float32; column 1 speaks for a pulse.

        Raises:
            UserError: wrong shape or type, a value that is not finite, or a logit that is not.
        """
        obs = check_observation(observation, n_obs=self.manifest.n_obs)
        out: NDArray[np.float32] = self._session.run([self.manifest.output.name], {self.manifest.input.name: obs})[0]
        if out.shape != (obs.shape[0], self.manifest.slots, 2):
            raise UserError(
                f"{self.name} returned logits {out.shape}, wanted ({obs.shape[0]}, {self.manifest.slots}, 2)"
            )
        if not np.isfinite(out).all():
            raise UserError(f"{self.name} returned a logit that is not finite: it overflows in {self.precision}")
        return out

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.int8]:
        """(n, n_obs) float32 -> (n, slots) int8, 1 where a slot is stimulated; a tie gives no pulse.

        Raises:
            UserError: as `logits`.
        """
        return decide(self.logits(check_observation(observation, n=self.n)))
