"""Jobs in processes of this machine, one process a job: what it crashes or leaks ends with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from envs.errors import UserError
from sea_dbs.benchmark.jobs import Job
from sea_dbs.benchmark.schedule import Schedule
from sea_dbs.benchmark.store import Files
from sea_dbs.benchmark.work import run_job


class LocalEngine:
    """Args:
    workers: processes at the same time.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, schedule: Schedule) -> None:
        """Run everything that the schedule holds.

        Raises:
            UserError: the disk is full.
        """
        running: dict[Any, tuple[Any, Job]] = {}
        scratch = schedule.store.root / "work"
        try:
            while True:
                while len(running) < self.workers and (job := schedule.next()) is not None:
                    connection, process = _start(job, schedule.inputs(job), scratch)
                    running[connection] = (process, job)
                if not running:
                    return
                for ready in wait(list(running)):
                    process, job = running.pop(ready)
                    _take(schedule, job, ready)
                    process.join()
        finally:
            for process, _ in running.values():
                process.kill()
                process.join()


def _start(job: Job, inputs: list[Files], scratch: Path) -> tuple[Connection, Any]:
    context = multiprocessing.get_context("spawn")  # numba's and torch's threads do not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, job, inputs, scratch, os.getpid())
    process = context.Process(target=_work, args=arguments, name=job.name, daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return ours, process


def _take(schedule: Schedule, job: Job, connection: Any) -> None:
    try:
        kind, value = connection.recv()
    except (EOFError, OSError):
        schedule.vanished(job)
        return
    finally:
        connection.close()
    if kind == "files":
        schedule.done(job, value)
    else:
        schedule.failed(job, value)


def _work(connection: Connection, job: Job, inputs: list[Files], scratch: Path, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        connection.send(("files", run_job(job, inputs, scratch / job.key)))
    except UserError as error:
        connection.send(("failed", str(error)))
    except Exception as error:  # noqa: BLE001 (a defect of ours: the other jobs go on, and it is named at the end)
        connection.send(("failed", f"{type(error).__name__}: {error}"))


def _end_with(parent: int) -> None:
    """A killed parent leaves no work behind."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
