"""What a run of a release check leaves in its file, looked at before anything is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from envs.errors import UserError
from firmware_bridge.release.plant import ARTEFACT, CONDITIONS
from firmware_bridge.release.run import Job
from sea_dbs.files import read_json


class _Untreated(BaseModel):
    patient: str
    index: int
    condition: str
    P_beta: float


class _Treated(BaseModel):
    patient: str
    index: int
    condition: str
    seconds: float = Field(gt=0)
    slots: int = Field(gt=0)
    P_beta: float | None
    duty: float
    toggles: int
    artefact_toggles: int | None
    artefact_slots: int | None
    violations: int
    fallbacks: dict[str, int]
    refused: int
    logits_differ: int
    ended: str | None


class _Artefact(_Treated):
    artefact_toggles: int
    artefact_slots: int


def read_outcome(path: Path, job: Job) -> dict[str, Any]:
    """The outcome of a run, as it stands in its file.

    Raises:
        UserError: it cannot be read, or is none of this run.
    """
    outcome: dict[str, Any] = read_json(path)
    treated = _Artefact if job.condition == ARTEFACT else _Treated
    try:
        found = (treated if job.condition in CONDITIONS else _Untreated).model_validate(outcome)
    except ValidationError:
        found = None
    if found is None or (found.index, found.condition) != (job.index, job.condition):
        raise UserError(f"{path} is no outcome of the run {job.name}: delete it, and pass --resume")
    return outcome
