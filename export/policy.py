"""The exported policy as a controller: ONNX Runtime, one thread, repeatable; needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.untrusted import read_bounded
from export import manifest as manifests
from export.manifest import MAX_BYTES, Manifest
from export.runner import OnnxRunner, open_session
from sea_dbs.controllers import check_observation, decide
from sea_dbs.extras import need

__all__ = ["OnnxPolicy", "open_session"]


class OnnxPolicy:
    """A policy from an export folder, behind the controllers' one interface.

    Args:
        folder: written by ``sea-dbs export``.
        precision: "fp32", "fp16", "int8"; None takes the manifest's default.

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
        data = read_bounded(path, MAX_BYTES, "the policy")  # read once: what is hashed is what runs
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise UserError(
                f"{path} is not the file that its manifest describes ({len(data)} bytes, {entry.bytes} expected; "
                "changed or cut short): export the run again"
            )
        need("export", "onnx", "onnxruntime")
        from export.untrusted import check_onnx

        check_onnx(data, str(path))  # the manifest with the hash may come from the same hand as the file
        self._runner = OnnxRunner(data, self.name)
        self._check_graph(path)

    def _check_graph(self, path: Path) -> None:
        m, session = self.manifest, self._runner.session
        meta = session.get_modelmeta().custom_metadata_map
        chain = {"sea_dbs.config_sha256": m.hashes.config, "sea_dbs.weights_sha256": m.hashes.weights}
        for key, value in chain.items():
            if key not in meta:
                raise UserError(f"{path} holds no metadata '{key}', so that nothing says what it was made from")
            if meta[key] != value:
                raise UserError(f"{path} was not made from what its manifest names: {key} differs")
        if (opset := meta.get("sea_dbs.opset", str(m.opset))) != str(m.opset):
            raise UserError(f"{path} has the opset {opset}, its manifest says {m.opset}")
        found = [(t.name, list(t.shape)) for t in (*session.get_inputs(), *session.get_outputs())]
        wanted = [(t.name, list(t.shape)) for t in m.tensors]
        if found != wanted:
            raise UserError(f"{path} has the tensors {found}, its manifest says {wanted}")

    def init_state(self, n: int = 1) -> None:
        """Set the number of environments; a recurrent policy forgets what it saw."""
        self.n = n
        self._runner.init_state(n)

    def logits(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, n_obs) float32 -> (n, slots, 2) float32; column 1 speaks for a pulse.

        One call is one decision: a recurrent policy's state advances.

        Raises:
            UserError: wrong shape or type, a value that is not finite, or a logit that is not.
        """
        recurrent = self.manifest.state_in is not None
        obs = check_observation(observation, n=self.n if recurrent else None, n_obs=self.manifest.n_obs)
        out = self._runner.logits(obs)
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
