"""What a policy's input is made of, for whoever builds it from a manifest."""

from __future__ import annotations

from envs.basal_ganglia import OBSERVATION_SCALE
from envs.signals import RATE_SCALE_HZ
from export.manifest import Normalisation
from sea_dbs.config import TrainConfig


def input_of(config: TrainConfig) -> tuple[str, Normalisation]:
    """In words, and how a measured quantity becomes the input: input = quantity / divisor."""
    world = config.world()
    if world.view == "timing" and world.obs == "gpi":
        slots = world.slots_observed
        words = f"GPi rate / {RATE_SCALE_HZ:g} in each of the last {slots} slots, then 1 or 0 for a pulse in each"
        return words, Normalisation(quantity="mean rate of a GPi cell in a slot", unit="Hz", divisor=RATE_SCALE_HZ)
    own = ""
    if world.own_duties:
        own = f"share of slots with a pulse in each of the last {world.own_duties} decisions, then "
    return f"{own}P_beta / 1000", Normalisation(quantity="P_beta", unit="spikes²/s²", divisor=OBSERVATION_SCALE)
