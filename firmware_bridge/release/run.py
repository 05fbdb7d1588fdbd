"""One run of a release check: a held-out patient under one condition, the policy deciding on a real host board.

The board's program holds the exported C, decides itself, and keeps a stepped clock; its electrode drives the plant.
The trace of that electrode is judged by the independent checker of the fault catalogue.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.stimulation import Pulse
from export.chain import Chain
from export.manifest import Manifest
from export.manifest import load as load_manifest
from firmware_bridge.bench import Bench
from firmware_bridge.boards import start_board
from firmware_bridge.client import BoardClient
from firmware_bridge.deciding import DecidingBoard
from firmware_bridge.electrode import Electrode, shake_hands
from firmware_bridge.faults.checker import Checker
from firmware_bridge.integer_policy import IntegerPolicy
from firmware_bridge.links import SerialLink
from firmware_bridge.permit import Permit
from firmware_bridge.recorder import DecisionRow, PulseRow, Recorder
from firmware_bridge.release.plant import (
    ARTEFACT,
    DELAY,
    DRIFT,
    WatchedPlant,
    cohort,
    late_order_us,
    make,
    settings,
    without_artefact,
)
from firmware_bridge.release.switches import Switch, toggles
from firmware_bridge.release.verdict import CHECKED
from sea_dbs.controllers import Action, Observation
from sea_dbs.rollout import Env, begin, rollout

UNTREATED, UNTREATED_DRIFT = "untreated", "untreated-drift"  # never stimulated: what a treated run is compared with
SHOWN = 5  # findings of a run that are kept in words


@dataclass(frozen=True)
class Job:
    """One run: ``condition`` may also be one of the untreated ones."""

    index: int  # of the patient in its cohort
    condition: str

    @property
    def name(self) -> str:
        """Of its file."""
        return f"p{self.index:03d}-{self.condition}"

    @classmethod
    def named(cls, name: str) -> Job:
        """The job of a name."""
        index, _, condition = name.partition("-")
        return cls(int(index.removeprefix("p")), condition)


@dataclass(frozen=True)
class Work:
    """What all runs of a check share."""

    export: Path
    patients: int
    seconds: float
    seed: int

    def steps(self, manifest: Manifest) -> int:
        """Decisions of a run."""
        return max(1, round(self.seconds * 1e6 / (manifest.slots * manifest.slot_us)))


def run(work: Work, job: Job) -> dict[str, Any]:
    """The outcome of one run, as plain values.

    Raises:
        UserError: the environment or the board could not be made; what ends a run later is part of its outcome.
    """
    manifest = load_manifest(work.export)
    steps = work.steps(manifest)
    patient = cohort(work.patients, work.seed).patients[job.index]
    treated = job.condition not in (UNTREATED, UNTREATED_DRIFT)
    condition = DRIFT if job.condition == UNTREATED_DRIFT else job.condition
    config = settings(manifest, condition, job.index, steps)
    env, plant = make(config, patient)
    began = time.perf_counter()
    facts: dict[str, Any] = {
        "patient": patient.name,
        "index": job.index,
        "condition": job.condition,
        "seed": work.seed + job.index,
        "drift": config.drift,
        "severity": patient.severity,
        "decisions": steps,
        "slots": steps * config.slots,
        "seconds": steps * config.decision_ms / 1000.0,
    }
    try:
        if treated:
            facts |= _treated(work, manifest, env, plant, job, steps)
        else:
            facts |= _untreated(env, plant, facts["seed"], steps)
    finally:
        env.close()
    return {**facts, "wall_s": round(time.perf_counter() - began, 3)}


def _untreated(env: Env, plant: WatchedPlant, seed: int, steps: int) -> dict[str, Any]:
    env.reset(seed=seed)
    never = np.zeros(plant.config.slots, np.int8)
    beta = [env.step(never)[4]["P_beta"] for _ in range(steps)]
    return {"P_beta": float(np.mean(beta))}


class Unrecorded(Recorder):
    """A check keeps its outcomes and the electrode's trace, no session file."""

    def __init__(self) -> None:
        self.listeners = []

    def decision(self, row: DecisionRow) -> None:
        """Not kept."""

    def pulses(self, rows: Sequence[PulseRow]) -> None:
        """Not kept."""

    def event(
        self, device_us: int, kind: str, text: str, *, decision_id: int | None = None, code: int | None = None
    ) -> None:
        """Not kept."""

    def tick(self) -> None:
        """Nothing to commit."""


class _Ahead:
    """The board's electrode as the plant's source of pulses; the board lives to a decision's last slot in one go.

    On a stepped clock nothing that the plant does within a decision reaches the board, so the pulses are the same.
    """

    def __init__(self, electrode: Electrode) -> None:
        self.electrode = electrode
        self.given: list[Pulse] = []
        self.last_us = 0

    def begin(self, action: NDArray[np.int8], start_us: int, slot_us: tuple[int, ...]) -> None:
        """See `envs.stimulation.PulseSource.begin`."""
        self.last_us = slot_us[-1]
        self.electrode.begin(action, start_us, slot_us)

    def until(self, t_us: int) -> list[Pulse]:
        """See `envs.stimulation.PulseSource.until`."""
        if t_us > self.electrode.plant_us:
            self.given += self.electrode.until(max(t_us, self.last_us))
        due = [pulse for pulse in self.given if pulse.t_us < t_us]
        self.given = self.given[len(due) :]
        return due


class _Asked:
    """The board as the rollout's controller; where there is artefact, it is told what it would decide without."""

    def __init__(self, board: DecidingBoard, switch: Switch, clean: Any) -> None:
        self.name, self.board, self.switch, self.clean = board.name, board, switch, clean
        self.driven = self.changed = self.refused = self.differ = 0

    def init_state(self, n: int = 1) -> None:
        self.board.init_state(n)

    def act(self, observation: Observation) -> Action:
        clean = None if self.clean is None else self.board.inner.what_if(self.clean()[None])[0].tolist()
        action = self.board.act(observation)
        order = self.board.last
        assert order is not None
        self.refused += order.nack is not None
        if order.decided is not None and self.board.inner.last is not None:
            self.differ += int(np.count_nonzero(order.decided.logits != self.board.inner.last[1][0]))
        if clean is not None and order.decided is not None:
            self.changed += sum(a != b for a, b in zip(order.mask, clean, strict=True))
            self.driven += self.switch.driven(order.mask, clean)
        self.switch.feed(action[0].tolist())
        return action


def _treated(work: Work, manifest: Manifest, env: Env, plant: WatchedPlant, job: Job, steps: int) -> dict[str, Any]:
    model = Chain.of_folder(work.export).model_hash
    patient = cohort(work.patients, work.seed).patients[job.index]
    slot_us, config = round(manifest.slot_us), plant.config
    beta: list[float] = []
    ended = None
    with tempfile.TemporaryDirectory(prefix="sea-release-") as name:
        log = Path(name, "electrode.jsonl")
        with (
            start_board("host", policy_dir=work.export, format=CHECKED, electrode_log=log) as board,
            Bench(board.electrode) as bench,
            BoardClient(SerialLink(board.port)) as client,
        ):
            recorder = Unrecorded()
            ack = shake_hands(client, bench, model)
            electrode = Electrode(
                client,
                bench,
                recorder,
                slot_us=slot_us,
                amplitude_uA=round(manifest.amplitude_uA),
                width_us=round(manifest.width_us),
                latency_us=late_order_us(config) if job.condition == DELAY else 0,
                slots=config.slots,
                permit=Permit(model_hash=model),
            )
            deciding = DecidingBoard(
                IntegerPolicy.of_export(work.export),
                electrode,
                recorder,
                slots=config.slots,
                n_obs=config.n_obs,
                new_samples=config.new_samples,
            )
            clean = (lambda: without_artefact(plant, patient)) if job.condition == ARTEFACT else None
            asked = _Asked(deciding, Switch(slot_us), clean)
            try:
                start = begin([env], [work.seed + job.index])
                asked.init_state(1)
                plant.pulse_source = _Ahead(electrode)
                electrode.arm()
                electrode.prelude()
                electrode.synchronise()
                beta = [step.infos[0]["P_beta"] for step in rollout([env], asked, steps, start=start)]
                electrode.stop()
            except UserError as error:
                ended = str(error).replace(board.port, "PORT")
                client.stop()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    checker = Checker()
    checker.feed(lines)
    pulses = [int(line["t_us"]) for line in lines if "pulse" in line]
    return {
        "P_beta": float(np.mean(beta)) if beta else None,
        "firmware": ack.firmware_build.hex(),
        "pulses": len(pulses),
        "duty": len(pulses) / (config.slots * steps),
        "toggles": toggles(pulses, slot_us),
        "artefact_toggles": asked.driven if clean is not None else None,
        "artefact_slots": asked.changed if clean is not None else None,
        "violations": len(checker.findings),
        "violation_list": [finding.text for finding in checker.findings[:SHOWN]],
        "fallbacks": dict(Counter(str(line["cause"]) for line in lines if line.get("state") == "FALLBACK")),
        "refused": asked.refused,
        "logits_differ": asked.differ,
        "ended": ended,
    }
