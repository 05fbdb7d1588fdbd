"""The same jobs on a Ray cluster. Files travel with the jobs: the machines need no common disk, only this package."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from envs.errors import UserError
from sea_dbs.benchmark.jobs import Job
from sea_dbs.benchmark.schedule import Schedule
from sea_dbs.benchmark.store import Files
from sea_dbs.benchmark.work import run_job
from sea_dbs.extras import need

RETRIES = 3  # of a task whose node or process was lost, by Ray itself


class RayEngine:
    """Args:
    address: of a running cluster ("auto": the one of this machine); None starts one here.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def __call__(self, schedule: Schedule) -> None:
        """Run everything that the schedule holds.

        Raises:
            UserError: the extra 'ray' is missing, no such cluster, or the disk is full.
        """
        need("ray", "ray")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        ours = not ray.is_initialized()
        if ours:
            try:
                ray.init(address=self.address, include_dashboard=None if self.address else False, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UserError(f"there is no Ray cluster at {self.address or 'this machine'}: {error}") from error
        try:
            _run(schedule, ray)
        finally:
            if ours:
                ray.shutdown()


def _run(schedule: Schedule, ray: Any) -> None:
    task = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)(remote_job)
    running: dict[Any, Job] = {}
    while True:
        free = int(ray.cluster_resources().get("CPU", 1)) - len(running)
        while free > 0 and (job := schedule.next()) is not None:
            running[task.remote(job, schedule.inputs(job))] = job
            free -= 1
        if not running:
            return
        ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)  # machines may join meanwhile
        for reference in ready:
            job = running.pop(reference)
            try:
                kind, value = ray.get(reference)
            except ray.exceptions.RayTaskError as error:  # before the job began: the package is not there
                schedule.failed(job, f"a machine of the cluster cannot run it: {error.cause}")
                continue
            except ray.exceptions.RayError:
                schedule.vanished(job)
                continue
            if kind == "files":
                schedule.done(job, value)
            else:
                schedule.failed(job, value)


def remote_job(job: Job, inputs: list[Files]) -> tuple[str, Any]:
    """What runs on a machine of the cluster."""
    with tempfile.TemporaryDirectory(prefix="sea-dbs-") as scratch:
        try:
            return "files", run_job(job, inputs, Path(scratch) / job.key)
        except UserError as error:
            return "failed", str(error)
        except Exception as error:  # noqa: BLE001 (a defect of ours: the other jobs go on, and it is named at the end)
            return "failed", f"{type(error).__name__}: {error}"
