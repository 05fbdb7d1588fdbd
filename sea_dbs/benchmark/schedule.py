"""Which job is next: shared by the engines, which only run jobs and bring back their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sea_dbs.benchmark.jobs import Job, everything
from sea_dbs.benchmark.store import Files, Store
from sea_dbs.progress import progress

ATTEMPTS = 3  # of a job whose process or machine vanished


@dataclass
class Schedule:
    """Jobs in the order of their worth; what is in the store is not run again."""

    jobs: Sequence[Job]
    store: Store
    bar: progress
    waiting: list[Job] = field(init=False)
    failures: dict[str, str] = field(default_factory=dict)  # name -> sentence
    lost: dict[str, int] = field(default_factory=dict)  # key -> how often
    _finished: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        wanted = everything(self.jobs)
        self._finished = {job.key for job in wanted if self.store.find(job) is not None}
        self.waiting = [job for job in wanted if job.key not in self._finished]

    def next(self) -> Job | None:
        """The first job that can run now; it is taken out. None: all are taken, or wait for one that runs."""
        for i, job in enumerate(self.waiting):
            if all(needed.key in self._finished for needed in job.needs):
                return self.waiting.pop(i)
        return None

    def inputs(self, job: Job) -> list[Files]:
        """The files of what a job needs."""
        return [self.store.files(needed) for needed in job.needs]

    def done(self, job: Job, files: Files) -> None:
        """Keep a job's files."""
        self.store.put(job, files)
        self._finished.add(job.key)
        self.bar.update(1, job.name)

    def failed(self, job: Job, sentence: str) -> None:
        """The job cannot be run; neither can what needs it. The others go on."""
        self.failures[job.name] = sentence
        self.bar.update(1, f"{job.name}: {sentence}")
        broken = {job.key}
        for other in list(self.waiting):
            if any(needed.key in broken for needed in other.needs):
                broken.add(other.key)
                self.waiting.remove(other)
                self.failures[other.name] = f"it needs '{job.name}', which failed"
                self.bar.update(1, other.name)

    def vanished(self, job: Job) -> None:
        """The process or machine of a running job is gone: the job is run again, before all others."""
        self.lost[job.key] = self.lost.get(job.key, 0) + 1
        if self.lost[job.key] >= ATTEMPTS:
            self.failed(job, f"its process was lost {ATTEMPTS} times")
        else:
            self.waiting.insert(0, job)


class Engine(Protocol):
    """Runs all jobs of a schedule."""

    def __call__(self, schedule: Schedule) -> None: ...
