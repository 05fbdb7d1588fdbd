"""Virtual patients: cohorts sampled from a seed, how they become networks, and how they drift."""

from __future__ import annotations

from envs.patients.cohort import Cohort, Variation, loads_cohort, read_cohort, sample_cohort
from envs.patients.drift import DRIFTS, Circadian, Disease, Drift, Impedance
from envs.patients.patient import Patient, Scales, severity_of, with_severity
from envs.patients.recruitment import Recruitment, recruited
from envs.patients.wrapper import PatientWrapper

__all__ = [
    "DRIFTS",
    "Circadian",
    "Cohort",
    "Disease",
    "Drift",
    "Impedance",
    "Patient",
    "PatientWrapper",
    "Recruitment",
    "Scales",
    "Variation",
    "loads_cohort",
    "read_cohort",
    "recruited",
    "sample_cohort",
    "severity_of",
    "with_severity",
]
