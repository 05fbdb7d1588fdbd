"""Where finished jobs lie: a folder each, whole or absent, so that a benchmark can be killed at any time."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import UserError
from sea_dbs.benchmark.jobs import Job
from sea_dbs.files import read_json, writing

RESULT = "result.json"
SERIES = "series.npz"

Files = dict[str, bytes]


class Store:
    """The finished jobs in ``root/jobs``.

    Args:
        root: the benchmark's folder.
        any_version: take results of other versions of the code too (they say of which).
    """

    def __init__(self, root: Path, *, any_version: bool = False) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self.any_version = any_version

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other benchmarks out of the folder; half-written and half-run jobs of a killed one are removed.

        Raises:
            UserError: another one is running there, or the place cannot be written.
        """
        with writing(self.root):
            self.jobs.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("a")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"another benchmark is running in {self.root}: wait for it, or choose another --out"
                ) from None
            for leftover in self.jobs.glob(".*.tmp"):
                shutil.rmtree(leftover)
            yield

    def find(self, job: Job) -> Path | None:
        """The folder of a finished job."""
        exact = self.jobs / job.key
        if (exact / RESULT).is_file():
            return exact
        if self.any_version:
            for other in sorted(self.jobs.glob(f"{job.config_hash}-*")):
                if (other / RESULT).is_file():
                    return other
        return None

    def put(self, job: Job, files: Mapping[str, bytes]) -> Path:
        """Write a finished job's files, all of them or none; the first result of a job stays.

        Raises:
            UserError: the disk is full or the place cannot be written.
        """
        place = self.jobs / job.key
        with writing(place):
            self.jobs.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{job.key}.", suffix=".tmp", dir=self.jobs))
            try:
                for name, content in files.items():
                    with (draft / name).open("wb") as stream:
                        stream.write(content)
                        stream.flush()
                        os.fsync(stream.fileno())
                draft.chmod(0o755)
                if not (place / RESULT).is_file():
                    draft.rename(place)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return place

    def files(self, job: Job) -> Files:
        """What a finished job wrote.

        Raises:
            UserError: it is not there.
        """
        return {file.name: file.read_bytes() for file in self._found(job).iterdir()}

    def result(self, job: Job) -> dict[str, Any]:
        """A finished job's result.json.

        Raises:
            UserError: it is not there, or unreadable.
        """
        found: dict[str, Any] = read_json(self._found(job) / RESULT)
        return found

    def series(self, job: Job) -> dict[str, Any]:
        """A finished job's arrays."""
        with np.load(io.BytesIO((self._found(job) / SERIES).read_bytes())) as arrays:
            return dict(arrays)

    def _found(self, job: Job) -> Path:
        place = self.find(job)
        if place is None:
            raise UserError(f"the job '{job.name}' has not been run in {self.root}")
        return place
