"""Which learner a run is, in one word: a set of switches, so that an ablation differs from SEA-DBS in them alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envs.errors import UserError
from sea_dbs.pulse_trains import BANKS

# GS is exploration by Gumbel-Softmax; PM the predictive reward model, whose form (printed or mean) the preset chooses.
VARIANTS: dict[str, dict[str, str | int]] = {
    "sea-dbs": {"exploration": "gumbel"},
    "gs-only": {"exploration": "gumbel", "critic_target": "none"},
    "pm-only": {"exploration": "epsilon"},
    "ddpg": {"exploration": "epsilon", "critic_target": "none"},
    "recurrent": {"actor": "recurrent"},
    "trains": {"actor": "trains", "actor_gradient": "expected"},
    "trains-memory": {"actor": "trains-flat", "actor_gradient": "expected", "own_duties": 8},  # of 1 s each
    "trains-flat": {"actor": "trains-flat", "actor_gradient": "expected", "own_duties": 0},
    "trains-st": {"actor": "trains", "actor_gradient": "straight-through"},
    "trains-slots": {"actor": "compact", "actor_gradient": "straight-through"},  # of their file: slot by slot
    "ppo": {"learner": "ppo"},
    "dqn": {"learner": "dqn"},
    "qr-dqn": {"learner": "qr-dqn"},
    "evolution": {"learner": "evolution", "actor": "linear"},
}
NEED_MODEL = ("sea-dbs", "pm-only")


def expand_variant(values: dict[str, Any], beside: Iterable[str]) -> dict[str, Any]:
    """Replace ``variant`` by its switches; ``beside`` are the keys that were given together with it.

    Raises:
        UserError: an unknown variant, or a switch that is given twice.
    """
    if "variant" not in values:
        return values
    word = values["variant"]
    rest = {key: value for key, value in values.items() if key != "variant"}
    if word not in VARIANTS:
        raise UserError(f"unknown variant '{word}': variants are {', '.join(VARIANTS)}")
    if twice := sorted(set(VARIANTS[word]) & set(beside)):
        raise UserError(f"variant={word} sets {twice[0]} itself: give one of the two")
    if word in NEED_MODEL and rest.get("critic_target") == "none":
        raise UserError(f"variant={word} has a reward model: critic_target must be printed or mean, not none")
    return {**rest, **VARIANTS[word]}


def variant_of(
    learner: str, actor: str, exploration: str, critic_target: str, actor_gradient: str, own_duties: int
) -> str:
    """The word for these switches; ``recurrent ddpg``, ``trains gs-only`` and the like for ablations of those."""
    if learner != "sea-dbs":
        return learner
    word = {
        ("gumbel", True): "sea-dbs",
        ("gumbel", False): "gs-only",
        ("epsilon", True): "pm-only",
        ("epsilon", False): "ddpg",
    }[exploration, critic_target != "none"]
    if actor not in ("recurrent", *BANKS):
        return word
    kind = "trains-st" if actor == "trains" and actor_gradient == "straight-through" else actor
    kind = "trains-memory" if own_duties else kind
    return kind if word == "sea-dbs" else f"{kind} {word}"
