"""Which values of a training run do not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sea_dbs.pulse_trains import BANKS
from sea_dbs.seeds import BLOCK

if TYPE_CHECKING:
    from sea_dbs.config import TrainConfig

SEARCHED = ("linear", "gated", "relative")  # actors of learner=evolution


def check_together(config: TrainConfig) -> None:
    """Raise ValueError, one sentence, for the first pair of values that do not fit each other.

    Each alone is in its range; what the environment's values have to do with each other is `envs.config.EnvConfig`'s.
    """
    if config.batch_size > config.buffer_size:
        raise ValueError(f"batch_size={config.batch_size} must not exceed buffer_size={config.buffer_size}")
    if config.tau_min > config.tau_0:
        raise ValueError(f"tau_min={config.tau_min} must not exceed tau_0={config.tau_0}")
    if config.epsilon_min > config.epsilon_0:
        raise ValueError(f"epsilon_min={config.epsilon_min} must not exceed epsilon_0={config.epsilon_0}")
    if config.actor == "recurrent" and (config.n_step > 1 or config.priority > 0.0):
        raise ValueError("actor=recurrent learns from sequences: it needs n_step=1 and priority=0")
    if config.actor_gradient == "expected" and config.actor not in BANKS:
        raise ValueError(
            f"actor_gradient=expected sums over the trains of actor=trains and trains-flat: with "
            f"actor={config.actor} it has to be straight-through"
        )
    if config.actor in BANKS and (config.exploration != "gumbel" or config.warmup_actions != "uniform-duty"):
        raise ValueError(
            f"actor={config.actor} draws trains: it needs exploration=gumbel and warmup_actions=uniform-duty"
        )
    if config.own_duties and (config.gap_slots or 1) > 1:
        raise ValueError(
            f"own_duties={config.own_duties} with gap_slots={config.gap_slots}: a blind policy is told what it asked "
            "for, which must be what is given, so gap_slots=1 is allowed"
        )
    if config.own_duties and config.actor != "trains-flat":
        raise ValueError(
            f"own_duties={config.own_duties} needs actor=trains-flat: actor={config.actor} reads beta alone"
        )
    if config.learner == "evolution" and (config.actor not in SEARCHED or config.preset != "timing"):
        raise ValueError(
            f"learner=evolution searches actor={', '.join(SEARCHED[:-1])} or {SEARCHED[-1]} of preset=timing, not "
            f"{config.actor} of {config.preset}"
        )
    if config.learner == "evolution" and config.actor == "relative" and config.healthy_plants:
        raise ValueError(
            f"actor=relative is searched with its gate open: healthy_plants={config.healthy_plants} would be charged "
            "for pulses that the gate stops, so it needs healthy_plants=0"
        )
    plants = config.candidate_plants + config.milder_plants + config.healthy_plants
    if config.learner == "evolution" and config.generations * plants > BLOCK:
        raise ValueError(
            f"generations={config.generations} of {plants} plants (candidate_plants, milder_plants and healthy_plants) "
            f"would meet plants twice: at most {BLOCK} plants are there"
        )
    if config.learner not in ("sea-dbs", "evolution") and config.actor != "compact":
        raise ValueError(f"learner={config.learner} has the network of actor=compact, not of actor={config.actor}")
