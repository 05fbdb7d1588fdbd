"""The whole release check: all runs on two worker processes, each kept as it is done; then the verdict."""

from __future__ import annotations

import json
import math
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from envs.config import env_config
from envs.errors import UserError
from export.chain import Chain
from export.manifest import load as load_manifest
from firmware_bridge.images import build_image, check_source
from firmware_bridge.integer_policy import check_format
from firmware_bridge.limits import LIMITS_HASH
from firmware_bridge.messages import SCHEMA_HASH
from firmware_bridge.plan import check_decides, check_slots
from firmware_bridge.release import gates
from firmware_bridge.release.outcome import read_outcome
from firmware_bridge.release.plant import CONDITIONS, MEANING, SEED, cohort, settings
from firmware_bridge.release.run import UNTREATED, UNTREATED_DRIFT, Job, Work
from firmware_bridge.release.verdict import CHECKED, FORMAT
from firmware_bridge.session import git_commit
from sea_dbs.files import prepare_output_dir, read_json, sha256_json, write_json
from sea_dbs.progress import progress

WORKERS = 2
SETTINGS, RUNS, REPORT = "settings.json", "runs", "release.json"


@dataclass(frozen=True)
class Asked:
    """What a release check is asked for."""

    export: Path
    out: Path
    patients: int = gates.PATIENTS_MIN
    seconds: float = gates.SECONDS_MIN
    seed: int = SEED
    toggles_a_minute: float = gates.TOGGLES_A_MINUTE
    workers: int = WORKERS
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False
    key: Path | None = None  # the file of the key that will sign: --overwrite spares it


def check(asked: Asked) -> dict[str, Any]:
    """Run what is missing of the check into ``asked.out``, and write release.json: settings, outcomes, verdict.

    Raises:
        UserError: an export that cannot be checked, a folder in use, or a run that could not be made.
    """
    model, firmware, work = _prepare(asked)
    inputs = (asked.export, asked.key)
    prepare_output_dir(asked.out, overwrite=asked.overwrite, resume=asked.resume, inputs=inputs)
    facts = _settings(asked, model, firmware)
    _same_settings(asked.out, facts)
    write_json(asked.out / SETTINGS, facts)
    jobs = _jobs(asked.patients)
    missing = [job for job in jobs if not (asked.out / RUNS / f"{job.name}.json").is_file()]
    (asked.out / RUNS).mkdir(exist_ok=True)
    with progress("release check", len(jobs), done=len(jobs) - len(missing), quiet=asked.quiet) as bar:
        for name in _work_off(work, asked, missing):
            bar.update(1, name)
    outcomes = [read_outcome(asked.out / RUNS / f"{job.name}.json", job) for job in jobs]
    treated = [run for run in outcomes if run["condition"] in CONDITIONS]
    untreated = {(run["index"], run["condition"]): run["P_beta"] for run in outcomes if run not in treated}
    verdict = _verdict(asked, facts, treated, untreated)
    report = {
        "settings": facts,
        "verdict": verdict,
        "conditions": gates.by_condition(treated, untreated),
        "treated": treated,
        "untreated": [{"index": index, "condition": name, "P_beta": beta} for (index, name), beta in untreated.items()],
    }
    write_json(asked.out / REPORT, report)
    return report


def _prepare(asked: Asked) -> tuple[bytes, str, Work]:
    """Everything that can be wrong is looked at before a plant is simulated."""
    if asked.patients < 1 or not 0.0 < asked.seconds <= 3600.0 or not 0.0 <= asked.toggles_a_minute < math.inf:
        raise UserError(
            f"{asked.patients} patients × {asked.seconds:g} s with {asked.toggles_a_minute:g} toggles a minute were "
            "asked for: at least 1 patient, above 0 to 3600 s, and a finite rate of 0 or more are allowed"
        )
    model = Chain.of_folder(asked.export).model_hash
    manifest = load_manifest(asked.export)
    check_slots(round(manifest.slot_us))
    check_decides(env_config(manifest.preset, **manifest.environment))
    check_format(asked.export, CHECKED)
    check_source(asked.export, CHECKED)
    work = Work(asked.export, asked.patients, asked.seconds, asked.seed)
    for condition in CONDITIONS:
        settings(manifest, condition, 0, work.steps(manifest))
    return model, build_image("host", asked.export, CHECKED).sha256, work


def _settings(asked: Asked, model: bytes, firmware: str) -> dict[str, Any]:
    patients = cohort(asked.patients, asked.seed)
    return {
        "format": FORMAT,
        "model_hash": model.hex(),
        "policy_format": CHECKED,
        "board": "host board, decides itself, stepped clock",
        "firmware": firmware,
        "limits_hash": LIMITS_HASH.hex(),
        "schema_hash": SCHEMA_HASH.hex(),
        "cohort": {
            "patients": asked.patients,
            "seed": asked.seed,
            "sha256": sha256_json(patients.model_dump(mode="json")),
        },
        "plant_seeds": [asked.seed, asked.seed + asked.patients - 1],
        "conditions": MEANING,
        "seconds": asked.seconds,
        "toggles_a_minute": asked.toggles_a_minute,
        "sea_dbs_version": version("sea-dbs"),
    }


def _same_settings(out: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on with runs that were made otherwise.

    Raises:
        UserError: what differs.
    """
    path = out / SETTINGS
    if not path.is_file():
        return
    before = read_json(path)
    plain = json.loads(json.dumps(facts))
    for name in plain:
        if not isinstance(before, dict) or before.get(name) != plain[name]:
            raise UserError(
                f"the runs in {out} were made with another {name}: pass --overwrite, or choose another --out"
            )


def _jobs(patients: int) -> list[Job]:
    """All runs; those that take longest first."""
    conditions = (*CONDITIONS, UNTREATED, UNTREATED_DRIFT)
    return [Job(index, condition) for condition in conditions for index in range(patients)]


def _work_off(work: Work, asked: Asked, jobs: Sequence[Job]) -> Iterator[str]:
    """Names of runs as they are done."""
    if not jobs:
        return
    free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def one(job: Job) -> str:
        worker = free.get()
        try:
            return worker.do(job)
        finally:
            free.put(worker)

    with _workers(work, asked, min(asked.workers, len(jobs))) as workers:
        for worker in workers:
            free.put(worker)
        pool = ThreadPoolExecutor(len(workers))
        try:
            for done in as_completed([pool.submit(one, job) for job in jobs]):
                yield done.result()
        finally:
            for worker in workers:  # an interrupted check waits for no run
                worker.kill_if_busy()
            pool.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """A worker process and its pipe."""

    def __init__(self, work: Work, asked: Asked) -> None:
        values = (work.export, work.patients, work.seconds, work.seed, asked.out / RUNS)
        command = [sys.executable, "-m", "firmware_bridge.release.worker", *map(str, values)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._busy = threading.Event()

    def do(self, job: Job) -> str:
        """Run one job to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._busy.set()
        try:
            self._process.stdin.write(f"{job.name}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline().strip()
        except OSError:
            answer = ""
        self._busy.clear()
        word, _, rest = answer.partition(" ")
        if word != "done":
            raise UserError(f"the run {job.name} could not be made: {rest or 'its process died'}")
        return rest

    def kill_if_busy(self) -> None:
        """End a process whose outcome nobody waits for."""
        if self._busy.is_set():
            self._process.kill()

    def close(self) -> None:
        """No more work."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()


@contextmanager
def _workers(work: Work, asked: Asked, count: int) -> Iterator[list[_Worker]]:
    started: list[_Worker] = []
    try:
        for _ in range(count):
            started.append(_Worker(work, asked))
        yield started
    finally:
        for worker in started:
            worker.close()


def _verdict(
    asked: Asked,
    facts: dict[str, Any],
    treated: Sequence[gates.Outcome],
    untreated: dict[tuple[int, str], float],
) -> dict[str, Any]:
    judged = gates.judge(treated, untreated, asked.toggles_a_minute)
    short = gates.shortfall(asked.patients, asked.seconds, asked.seed)
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                **facts,
                "runs": len(treated),
                "outcomes_sha256": sha256_json([treated, sorted([*key, beta] for key, beta in untreated.items())]),
                "gates": [asdict(gate) for gate in judged],
                "kind": gates.kind(treated),
                "enough": short is None,
                "released": short is None and all(gate.passed for gate in judged),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "git_commit": git_commit(),
            }
        )
    )
    return plain
