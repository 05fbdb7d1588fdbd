"""Wrappers around the environment: reward, sensing (artefact, noise, missing samples, delay), own pulses."""

from __future__ import annotations

from envs.wrappers.artefact import SpikeArtefact
from envs.wrappers.base import Action, Env, Layer, Observation, Step
from envs.wrappers.missing import MissingSamples
from envs.wrappers.own import OwnDuties
from envs.wrappers.reward import REWARD_GAIN, BetaThresholdReward, beta_reward
from envs.wrappers.sensing import ObservationDelay, SensingNoise

__all__ = [
    "REWARD_GAIN",
    "Action",
    "BetaThresholdReward",
    "Env",
    "Layer",
    "MissingSamples",
    "Observation",
    "ObservationDelay",
    "OwnDuties",
    "SensingNoise",
    "SpikeArtefact",
    "Step",
    "beta_reward",
]
