"""Cohorts: patients sampled from a seed, written and read as JSON or YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from envs.config import validated
from envs.errors import UserError
from envs.patients.patient import Patient, Scales
from envs.patients.recruitment import Recruitment
from envs.untrusted import MAX_YAML_BYTES, load_yaml, read_bounded

_FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] <= value[1]:
        raise ValueError(f"the range {value[0]:g}..{value[1]:g} must not fall")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Variation(BaseModel):
    """Ranges from which patients are drawn, both ends included."""

    model_config = _FROZEN

    severity: Range = (0.5, 1.0)  # uniform; ours: those who get an electrode are past the early stage
    # Log-uniform, each conductance of `Scales` by itself; ours, beside the U(0,1) of the model's own draws, and far
    # inside the two- to fivefold spread between neurons of one type (Marder & Goaillard 2006)
    conductance: Range = (0.8, 1.25)
    electrode_gain: Range = (0.5, 2.0)  # log-uniform; ours: contacts differ in their distance to the source
    # Uniform; at a constant voltage the current goes as 1/impedance, clinically 0.5 to 1.5 kOhm (Butson, Maks &
    # McIntyre 2006, Clin Neurophysiol 117:447): 1 stands for a low impedance. (Without
    # graded recruitment the cells follow the default pulse at all of these.)
    charge_efficacy: Range = (0.35, 1.0)
    recruitment: Recruitment | None = None  # given to every patient; thresholds differ by the patient's seed


class Cohort(BaseModel):
    """A list of patients, and where it came from."""

    model_config = _FROZEN

    version: Literal[1] = 1  # of this format
    seed: int | None = Field(None, ge=0)  # None: written by hand
    patients: tuple[Patient, ...] = Field(min_length=1, max_length=100_000)

    def dumps(self, form: Literal["json", "yaml"] = "json") -> str:
        """The cohort as text, every value written out; equal cohorts, equal text."""
        values = self.model_dump(mode="json")
        if form == "json":
            return json.dumps(values, indent=2) + "\n"
        return yaml.safe_dump(values, sort_keys=False)


def sample_cohort(n: int, seed: int, variation: Variation | None = None) -> Cohort:
    """``n`` patients; the first ones are the same for any ``n``.

    Raises:
        UserError: n below 1 or a negative seed.
    """
    if n < 1 or seed < 0:
        raise UserError(f"a cohort of {n} patients from seed {seed}: allowed are 1 or more patients, seeds from 0")
    variation = variation or Variation()
    return Cohort(seed=seed, patients=tuple(_draw(seed, i, variation) for i in range(n)))


def _draw(seed: int, index: int, variation: Variation) -> Patient:
    rng = np.random.default_rng([seed, index])

    def uniform(bounds: tuple[float, float]) -> float:
        return float(rng.uniform(*bounds))

    def log_uniform(bounds: tuple[float, float]) -> float:
        return float(np.clip(np.exp(rng.uniform(*np.log(bounds))), *bounds))  # exp(log(x)) may miss x by an ulp

    values = {
        "name": f"s{seed}-p{index:03d}",
        "seed": int(rng.integers(2**32)),
        "severity": uniform(variation.severity),
        "scales": {name: log_uniform(variation.conductance) for name in Scales.model_fields},
        "electrode_gain": log_uniform(variation.electrode_gain),
        "charge_efficacy": uniform(variation.charge_efficacy),
        "recruitment": variation.recruitment,
    }
    return validated(Patient, values, f"patient {index} of the cohort")


def loads_cohort(text: str, place: str = "the cohort") -> Cohort:
    """The cohort of a text by `Cohort.dumps` or by hand (JSON is YAML too).

    Raises:
        UserError: no YAML, an unknown key, a value out of range; ``place`` names the source.
    """
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{place} is neither JSON nor YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{place} holds a {type(values).__name__}: expected the keys version, seed and patients")
    return validated(Cohort, values, place)


def read_cohort(path: Path) -> Cohort:
    """The cohort of a file.

    Raises:
        UserError: it cannot be read, or as `loads_cohort`.
    """
    try:
        text = read_bounded(path, MAX_YAML_BYTES, "the cohort").decode()
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read the cohort {path}: {error}") from error
    return loads_cohort(text, str(path))
