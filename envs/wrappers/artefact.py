"""Stimulation artefact: what a pulse does to the recorded GPi spikes, and its blanking."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import OBSERVATION_SCALE, PULSE_MEMORY_MS, BasalGangliaEnv
from envs.biomarkers.multitaper import beta_trace
from envs.errors import UserError
from envs.plant.common import N_CELLS
from envs.wrappers.base import Env, Layer, Observation, Step

ARTEFACT_MS = 2.0  # ms for which a pulse hides the spikes; ours, about the recovery of a recording amplifier


def recorded_spikes(
    spikes: NDArray[np.int64], pulses: NDArray[np.int64], hidden: int, spurious: bool
) -> NDArray[np.int64]:
    """The spikes that a recorder finds near stimulation, sorted by sample, shape (m, 2).

    Args:
        spikes: true spikes sorted by sample, shape (n, 2): sample, cell.
        pulses: samples at which pulses begin, sorted.
        hidden: samples from each pulse's start in which no spike can be seen.
        spurious: True (no blanking) takes each pulse for a spike of every cell.
    """
    sample = spikes[:, 0]
    lost = np.searchsorted(pulses, sample, "right") > np.searchsorted(pulses, sample - hidden, "right")
    kept = spikes[~lost]
    if spurious and len(pulses):
        false = np.stack([np.repeat(pulses, N_CELLS), np.tile(np.arange(N_CELLS), len(pulses))], axis=1)
        kept = np.concatenate([kept, false])
        kept = kept[np.lexsort((kept[:, 1], kept[:, 0]))]
    return kept


class SpikeArtefact(Layer):
    """The observation as a recorder beside the stimulator measures it; reward and info stay true.

    For ``artefact_ms`` from each pulse's start GPi spikes are not seen. ``kind="raw"``: the artefact itself is taken
    for one spike of every cell. ``kind="blanked"``: detection pauses meanwhile, spikes are lost and none is added.

    The observation is computed anew from the base environment's spikes: put this wrapper inside those that add noise,
    gain, losses or delay.

    Raises:
        UserError: artefact_ms out of range, or another base environment.
    """

    def __init__(self, env: Env, kind: Literal["raw", "blanked"], artefact_ms: float = ARTEFACT_MS) -> None:
        if not 0.0 < artefact_ms <= PULSE_MEMORY_MS:
            raise UserError(f"the artefact lasts {artefact_ms} ms: allowed are above 0 to {PULSE_MEMORY_MS:g}")
        super().__init__(env)
        base = env.unwrapped
        if not isinstance(base, BasalGangliaEnv):
            raise UserError(f"the artefact needs the spikes of a BasalGangliaEnv, not of {type(base).__name__}")
        self._base = base
        self._spurious = kind == "raw"
        self._hidden = round(artefact_ms / base.config.dt_ms)

    def after_step(self, step: Step) -> Step:
        """See `Layer.after_step`."""
        observation, reward, terminated, truncated, info = step
        base = self._base
        if len(base.pulse_samples):
            observation = self._measured()
        return observation, reward, terminated, truncated, info

    def _measured(self) -> Observation:
        base, c = self._base, self._base.config
        found = recorded_spikes(base.spikes, base.pulse_samples, self._hidden, self._spurious)
        if c.view != "trace":
            return base.slots_seen(found)
        window, stride = round(c.window_ms / c.dt_ms), round(c.stride_ms / c.dt_ms)
        starts = base.ready().sample - window - np.arange(c.n_obs - 1, -1, -1) * stride
        trace = beta_trace(found, starts, window, c.dt_ms, fixed_grid=c.spectral_grid == "fixed")
        return (trace / OBSERVATION_SCALE).astype(np.float32)
