"""Where a session's observations come from: ``--source plant | file:RECORDING | lsl:NAME``.

``plant`` is the simulated one. The other two drive no plant: pulses go to the board and are recorded, and nothing that
is decided changes what is observed next. Either is an environment to the one rollout loop, as the plant is.

- ``file:session.sqlite`` replays the observations of a recorded session, byte for byte.
- ``file:NAME.npz`` (arrays ``P_beta`` (n,) and ``time_s`` (n,), or ``rate_hz`` in its place) and ``file:NAME.csv``
  (header ``time_s,P_beta``): samples of P_beta in spikes²/s², times in s, evenly spaced, one each ``stride_ms`` of the
  preset.
- ``lsl:NAME`` reads such samples, as they come, from a Lab Streaming Layer outlet (`firmware_bridge.lsl_source`).

A value that is not finite or out of range, a gap, another rate and an end are named, and stop the session: STOP is
sent, and nothing is filled in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import OBSERVATION_SCALE, BasalGangliaEnv
from envs.config import EnvConfig
from envs.errors import UserError
from envs.registration import with_layers
from envs.wrappers import BetaThresholdReward, OwnDuties
from firmware_bridge.source_values import Observation
from sea_dbs.rollout import Env

PLANT = "plant"
NO_PLANT = "no plant was driven: what was decided changed nothing that was observed"


class Source(Protocol):
    """What observations are read from; float32 (n_obs,) of P_beta/1000, oldest first."""

    name: str  # for people and for the record

    def first(self) -> Observation:
        """Start anew: the newest observation (a stream), or the first one (a file).

        Raises:
            UserError: what cannot be decided on: too little, a gap, a value out of range.
        """

    def following(self) -> Observation:
        """The observation a decision later.

        Raises:
            UserError: as `first`; a file or stream that has ended.
        """

    def age_us(self) -> int:
        """Time since the newest sample of the last observation was taken (µs); 0: the source has no clock."""

    def close(self) -> None:
        """Let go of it."""


class SourceEnv(BasalGangliaEnv):
    """The environment of a source: paced by whoever delivers the pulses, which drive nothing.

    Its clock is the source's sample count, in µs since the newest sample of the first observation.
    """

    def __init__(self, config: EnvConfig, source: Source) -> None:
        super().__init__(config)
        self.source = source

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Take the first observation; there is nothing to draw, so that the seed has no effect."""
        del seed, options
        self._step_count = self._pulses = 0
        self._charge = self._duty = 0.0
        observation = self.source.first()
        return observation, self._facts(observation, 0, 0.0)

    def step(self, action: NDArray[np.int8]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Give one decision to the board, wait for its end, and take the next observation."""
        mask, c, n = self.mask(action), self.config, self._step_count
        edges = [round((n * c.slots + slot) * c.slot_ms * 1000.0) for slot in range(c.slots + 1)]
        given = []
        if self.pulse_source is not None:
            self.pulse_source.begin(mask, edges[0], tuple(edges[:-1]))
            for edge in edges[1:]:
                given += self.pulse_source.until(edge)
        observation = self.source.following()
        charge = sum(pulse.charge_nC_cm2 for pulse in given)
        self._step_count += 1
        self._pulses += len(given)
        self._charge += charge
        self._duty += (len(given) / c.slots - self._duty) / self._step_count
        truncated = self._step_count >= c.episode_steps
        facts = self._facts(observation, len(given), charge)
        return observation, -float(np.mean(observation)), False, truncated, facts

    def age_us(self) -> int:
        """See `Source.age_us`."""
        return self.source.age_us()

    @property
    def time_ms(self) -> float:
        """Time since the first observation (ms)."""
        return self._step_count * self.config.decision_ms

    def _facts(self, observation: Observation, pulses: int, charge: float) -> dict[str, Any]:
        self.trace = observation.astype(np.float64) * OBSERVATION_SCALE
        return self._info(pulses, charge, pulses / self.config.slots)

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()


def open_source(spec: str, config: EnvConfig, *, steps: int, realtime: bool = False) -> Env:
    """The environment that ``--source`` names.

    Args:
        spec: "plant", "file:PATH" or "lsl:NAME".
        config: the preset's configuration: rates, lengths, reward.
        steps: decisions of the session; a file must hold as many.
        realtime: whether the session keeps real time, as a stream must.

    Raises:
        UserError: an unknown source, one that does not fit the preset or cannot give what it observes, or too few
            samples for ``steps``.
    """
    kind, _, rest = spec.partition(":")
    if spec == PLANT:
        return with_layers(BasalGangliaEnv(config))
    if kind not in ("file", "lsl") or not rest:
        raise UserError(f"--source is '{spec}': plant, file:RECORDING or lsl:NAME is expected")
    if (config.obs, config.view) != ("gpi", "trace"):
        seen = "the STN's LFP" if config.obs == "lfp" else "the GPi"
        how = "" if config.view == "trace" else " in single slots"
        raise UserError(
            f"--source {spec} gives P_beta of sliding windows, but {seen}{how} is observed: plant alone gives it"
        )
    source: Source
    if kind == "file":
        from firmware_bridge.source_files import open_file

        source = open_file(Path(rest), config, steps)
    else:
        if not realtime:
            raise UserError(f"--source {spec} is live: pass --realtime, the stream's clock cannot be stepped")
        from firmware_bridge.lsl_source import LslSource

        source = LslSource(rest, config)
    env: Env = SourceEnv(config, source)
    env = BetaThresholdReward(env, config.beta_threshold, config.reward_signal)
    return OwnDuties(env, config.own_duties) if config.own_duties else env


def source_of(env: Env) -> SourceEnv | None:
    """The source's environment inside all wrappers; None: a plant's."""
    inner = env.unwrapped
    return inner if isinstance(inner, SourceEnv) else None
