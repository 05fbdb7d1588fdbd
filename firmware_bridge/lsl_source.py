"""Samples of P_beta from a Lab Streaming Layer outlet, checked as they come.

The stream: one channel of float32 or double64, its unit (desc/channels/channel/unit) "spikes²/s²" or "spikes^2/s^2",
its nominal rate one sample each ``stride_ms`` of the preset. Its time stamps are brought to this host's clock once, at
the start, by LSL's own comparison of the clocks.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import OBSERVATION_SCALE
from envs.config import EnvConfig
from envs.errors import UserError
from firmware_bridge.source_values import UNIT, Observation, check_rate, check_values
from sea_dbs.extras import need

RESOLVE_S = 5.0  # s of host time within which a stream must be found
SECOND_S = 1.5  # s in which a second stream of the same name would have answered
ANSWER_S = 2.0  # s within which it must describe itself
TIMEOUT_S = 0.5  # s beyond its period within which the next sample must have come: more than the longest lease
SLICE_S = 0.05  # s of one wait inside liblsl, which Ctrl-C cannot interrupt
GAP_PERIODS, GAP_S = 3.0, 0.05  # a jump of the time stamps by more than the larger of the two is a gap
DRIFT_S = 0.1  # s that the time stamps may be off the nominal rate, counted from the first sample
UNITS = frozenset({UNIT, "spikes^2/s^2"})


class LslSource:
    """A `Source` that reads a stream by its name.

    Raises:
        UserError: the extra is missing, no stream or several of this name, or one that is not as the module says.
    """

    def __init__(self, name: str, config: EnvConfig) -> None:
        need("lsl", "pylsl")
        import pylsl

        self._lsl: Any = pylsl
        self._config = config
        self._period_s = config.stride_ms * 1e-3
        found = pylsl.resolve_byprop("name", name, minimum=1, timeout=RESOLVE_S)
        if not found:
            raise UserError(f"there is no LSL stream '{name}' (looked for {RESOLVE_S:g} s)")
        if found:  # a resolver answers with the first that it hears of: another one may follow
            found = pylsl.resolve_byprop("name", name, minimum=2, timeout=SECOND_S) or found
        if len(found) > 1:
            hosts = ", ".join(sorted(info.hostname() for info in found))
            raise UserError(f"there are {len(found)} LSL streams '{name}' (on {hosts}): which one is not clear")
        self.stream = f"the LSL stream '{name}'"
        self._inlet: Any = pylsl.StreamInlet(found[0], max_buflen=60, recover=False)
        try:
            info = self._described()
            self._check(info)
            self.name = (
                f"lsl:{name} (source id '{info.source_id()}', {info.nominal_srate():g} Hz, on {info.hostname()})"
            )
            self._correction_s = self._opened()
        except BaseException:
            self.close()
            raise
        self._values: NDArray[np.float64] = np.zeros(0)
        self._count = 0  # samples taken since `first`
        self._start_s = self._newest_s = 0.0  # LSL time of this host at which the first and the newest were taken

    def _described(self) -> Any:
        try:
            return self._inlet.info(ANSWER_S)
        except RuntimeError as error:
            raise UserError(f"{self.stream} does not describe itself within {ANSWER_S:g} s ({error})") from None

    def _check(self, info: Any) -> None:
        formats = {self._lsl.cf_float32: "float32", self._lsl.cf_double64: "double64"}
        if info.channel_count() != 1:
            raise UserError(f"{self.stream} has {info.channel_count()} channels: 1, P_beta, is expected")
        if info.channel_format() not in formats:
            code = info.channel_format()
            known = {value: name.removeprefix("cf_") for name, value in vars(self._lsl).items() if name[:3] == "cf_"}
            raise UserError(f"{self.stream} has the format {known.get(code, code)}: float32 or double64 is expected")
        unit = info.desc().child("channels").child("channel").child_value("unit")
        if unit not in UNITS:
            said = f"the unit '{unit}'" if unit else "no unit"
            raise UserError(f"{self.stream} has {said} (desc/channels/channel/unit): '{UNIT}' is expected")
        check_rate(info.nominal_srate(), self.stream, self._config)

    def _opened(self) -> float:
        try:
            self._inlet.open_stream(ANSWER_S)
            return float(self._inlet.time_correction(ANSWER_S))
        except RuntimeError as error:
            raise UserError(f"{self.stream} cannot be opened within {ANSWER_S:g} s ({error})") from None

    def first(self) -> Observation:
        """See `Source.first`: what waits in the buffer is old; ``n_obs`` new samples are waited for."""
        self._inlet.flush()
        self._count, self._values = 0, np.zeros(0)
        self._values = self._take(self._config.n_obs)
        return self._values.astype(np.float32)

    def following(self) -> Observation:
        """See `Source.following`."""
        new = self._take(self._config.new_samples)
        self._values = np.concatenate([self._values, new])[-self._config.n_obs :]
        return self._values.astype(np.float32)

    def age_us(self) -> int:
        """See `Source.age_us`."""
        return max(0, round((float(self._lsl.local_clock()) - self._newest_s) * 1e6))

    def close(self) -> None:
        """See `Source.close`."""
        self._inlet.close_stream()

    def _take(self, wanted: int) -> NDArray[np.float64]:
        """The next samples, P_beta/1000."""
        taken: list[float] = []
        end = time.monotonic() + self._period_s + TIMEOUT_S
        while len(taken) < wanted:
            try:
                chunk, stamps = self._inlet.pull_chunk(SLICE_S, min(wanted - len(taken), 1024))
            except RuntimeError as error:
                raise UserError(f"{self.stream} ended after sample {self._count - 1} ({error})") from None
            for (value,), stamp in zip(chunk, stamps, strict=True):
                self._check_time(stamp + self._correction_s)
                check_values(np.array([value / OBSERVATION_SCALE]), self.stream, self._count)
                taken.append(value / OBSERVATION_SCALE)
                self._count += 1
            if chunk:
                end = time.monotonic() + self._period_s + TIMEOUT_S
            elif time.monotonic() > end:
                raise UserError(
                    f"{self.stream} is silent: no sample within {TIMEOUT_S:g} s after sample {self._count - 1}"
                )
        return np.array(taken)

    def _check_time(self, at_s: float) -> None:
        if self._count == 0:
            self._start_s = at_s
        else:
            step = at_s - self._newest_s
            if step <= 0.0 or step > max(GAP_PERIODS * self._period_s, GAP_S):
                where = f"sample {self._count} comes {step * 1e3:.1f} ms after the one before it"
                raise UserError(f"{self.stream} has a gap: {where}, {self._period_s * 1e3:g} ms are expected")
            drift = at_s - self._start_s - self._count * self._period_s
            if abs(drift) > DRIFT_S:
                raise UserError(
                    f"{self.stream} does not keep its rate: at sample {self._count} it is {drift * 1e3:+.0f} ms off "
                    f"the {1.0 / self._period_s:g} Hz that it states"
                )
        self._newest_s = at_s
