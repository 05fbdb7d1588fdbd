"""Making environments: by Gymnasium's id or directly; saving and restoring them with all their wrappers."""

from __future__ import annotations

from typing import Any, cast

import gymnasium

from envs import ENV_ID
from envs.basal_ganglia import BasalGangliaEnv
from envs.config import env_config
from envs.errors import UserError
from envs.patients import DRIFTS, Patient, PatientWrapper
from envs.wrappers import (
    BetaThresholdReward,
    Env,
    MissingSamples,
    ObservationDelay,
    OwnDuties,
    SensingNoise,
    SpikeArtefact,
)


def make_env(preset: str = "paper", *, patient: Patient | None = None, **overrides: Any) -> Env:
    """The environment of a preset, with reward, patient and sensing as configured.

    Args:
        preset: one of `envs.config.PRESETS`.
        patient: who is treated in every episode; None draws a network at each reset.
        overrides: values of `envs.config.EnvConfig`.

    Raises:
        UserError: unknown preset or key, or a value out of range.
    """
    return with_layers(BasalGangliaEnv(env_config(preset, **overrides)), patient)


def with_layers(base: BasalGangliaEnv, patient: Patient | None = None) -> Env:
    """An environment with reward, patient and sensing as its configuration says, all of them `envs.wrappers.Layer`."""
    c = base.config
    env: Env = BetaThresholdReward(base, c.beta_threshold, c.reward_signal, c.energy_price, c.decision_ms)
    if c.artefact != "none" and c.obs == "gpi":  # the LFP is blanked where it is recorded
        env = SpikeArtefact(env, c.artefact, c.artefact_ms)
    env = PatientWrapper(env, patient, DRIFTS[c.drift])
    if c.noise_sd > 0.0:
        env = SensingNoise(env, c.noise_sd)
    if c.missing_share > 0.0:
        new_values = min(round(c.decision_ms / c.stride_ms), c.n_obs)
        env = MissingSamples(env, c.missing_share, new_values, c.missing_run, c.missing_fill)
    if c.delay_steps > 0:
        env = ObservationDelay(env, c.delay_steps)
    if c.own_duties:
        env = OwnDuties(env, c.own_duties)
    return env


def base_env(env: Env) -> BasalGangliaEnv:
    """The environment inside all wrappers.

    Raises:
        UserError: it is another environment.
    """
    inner = env.unwrapped
    if not isinstance(inner, BasalGangliaEnv):
        raise UserError(f"expected {ENV_ID}, got {type(inner).__name__}")
    return inner


def _layers(env: Env) -> list[Any]:
    """The environment and those of its wrappers that hold state, outermost first."""
    layers, layer = [], env
    while True:
        if hasattr(type(layer), "get_state"):  # gymnasium.Wrapper has none of its own
            layers.append(layer)
        if not isinstance(layer, gymnasium.Wrapper):
            return layers
        layer = cast(Env, layer.env)


def get_env_state(env: Env) -> list[dict[str, Any]]:
    """State of the environment and of its wrappers, outermost first."""
    return [layer.get_state() for layer in _layers(env)]


def set_env_state(env: Env, values: list[dict[str, Any]]) -> None:
    """Continue from `get_env_state`, bit for bit.

    Raises:
        UserError: other wrappers or another configuration.
    """
    layers = _layers(env)
    if len(layers) != len(values):
        raise UserError(f"the saved environment has {len(values)} stateful layers, this one {len(layers)}")
    for layer, value in zip(layers, values, strict=True):
        layer.set_state(value)
