"""A search small enough for a test."""

from __future__ import annotations

from typing import Any

from sea_dbs.config import TrainConfig, load_config

SEED = 11


def small(**more: Any) -> list[str]:
    """Settings of a search of three generations of four candidates, of a plain linear policy."""
    values = {
        "actor": "linear",
        "n_obs": 480,
        "milder_plants": 0,
        "pulse_budget_hz": 45.5,
        "group_pulses": 22,
        "generations": 3,
        "population": 4,
        "candidate_plants": 2,
        "candidate_s": 3.0,
        "healthy_plants": 1,
        **more,
    }
    return [f"{key}={value}" for key, value in values.items()]


def tiny(**more: Any) -> TrainConfig:
    """The configuration of such a search."""
    return load_config("timing-relative", small(**more))
