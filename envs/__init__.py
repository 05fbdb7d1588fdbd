"""The world: plant, sensing, stimulation, Gymnasium environments.

Importing this package registers ``sea_dbs/BasalGanglia-v0`` with Gymnasium; the heavy parts load when one is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from envs.patients import Patient
    from envs.wrappers import Env

ENV_ID = "sea_dbs/BasalGanglia-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        id=ENV_ID,
        entry_point="envs.registration:make_env",
        vector_entry_point="envs.vector:BasalGangliaVectorEnv",
    )


def make_env(preset: str = "paper", *, patient: Patient | None = None, **overrides: Any) -> Env:
    """See `envs.registration.make_env`."""
    from envs.registration import make_env as make

    return make(preset, patient=patient, **overrides)
