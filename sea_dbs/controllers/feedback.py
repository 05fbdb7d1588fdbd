"""Controllers that answer to beta: on-off, dual-threshold, proportional, PI on stimulation frequency or amplitude.

Each reads the newest value of the observation (P_beta/1000). The plant answers all or nothing to a pulse's amplitude,
so what others modulate by amplitude is modulated here by the rate of pulses; PI on the amplitude is for patients with
graded recruitment. Rates become pulses by a phase that each environment keeps across decisions: a pulse falls where
the phase passes a whole number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.stimulation import CONTINUOUS_HZ, DEVICE_AMPLITUDE_UA, PULSE_AMPLITUDE, UA_CM2_PER_UA
from sea_dbs.controllers.base import Action, Observation, check_observation

Rates = NDArray[np.float64]


class OnOff:
    """The classical adaptive controller: on above ``high``, off below ``low``, as it was between (hysteresis).

    It reads the newest value of the observation (P_beta/1000).

    Raises:
        UserError: thresholds that are not 0 <= low <= high.
    """

    def __init__(self, slots: int, low: float = 0.33, high: float = 0.40) -> None:
        if not 0.0 <= low <= high or not math.isfinite(high):
            raise UserError(f"on-off thresholds low={low}, high={high} were given: 0 <= low <= high is needed")
        self.name = "on-off" if (low, high) == (0.33, 0.40) else f"on-off {low:.3g}-{high:.3g}"
        self.slots = slots
        self.low = low
        self.high = high
        self.on = np.zeros(1, np.bool_)

    def init_state(self, n: int = 1) -> None:
        self.on = np.zeros(n, np.bool_)

    def act(self, observation: Observation) -> Action:
        newest = check_observation(observation, n=len(self.on))[:, -1]
        self.on = np.where(newest > self.high, True, np.where(newest < self.low, False, self.on))
        return np.repeat(self.on[:, None], self.slots, axis=1).astype(np.int8)


class _RateController(ABC):
    """Shared by the controllers that set a rate each decision.

    Args:
        name: of the controller, with its parameters.
        slots: slots of a decision.
        slot_us: length of a slot in µs.
        most_hz: largest rate (Hz); None, or more than a pulse a slot: a pulse a slot.
    """

    def __init__(self, name: str, slots: int, slot_us: int | Fraction, most_hz: float | None) -> None:
        slot_hz = 1e6 / float(slot_us)
        _positive(name, most_hz=slot_hz if most_hz is None else most_hz)
        self.name = name
        self.slots = slots
        self.slot_s = float(slot_us) / 1e6
        self.decision_s = slots * self.slot_s
        self.most_hz = slot_hz if most_hz is None else min(most_hz, slot_hz)
        self.phase: Rates = np.zeros(1)

    def init_state(self, n: int = 1) -> None:
        self.phase = np.zeros(n)

    def act(self, observation: Observation) -> Action:
        newest = check_observation(observation, n=len(self.phase))[:, -1].astype(np.float64)
        rates = np.clip(self._rates(newest), 0.0, self.most_hz)
        # The 1e-9 keeps a full rate of exactly one pulse a slot from losing one to rounding.
        passed = np.floor(self.phase[:, None] + rates[:, None] * self.slot_s * np.arange(self.slots + 1) + 1e-9)
        self.phase = (self.phase + rates * self.decision_s) % 1.0
        return np.diff(passed, axis=1).clip(0, 1).astype(np.int8)

    @abstractmethod
    def _rates(self, beta: Rates) -> Rates:
        """(n,) of P_beta/1000 -> (n,) of Hz, not yet bounded."""


class DualThreshold(_RateController):
    """Stimulation ramps up above ``high``, down below ``low``, and stays as it is between.

    Args:
        slots: slots of a decision.
        slot_us: length of a slot in µs.
        low: lower threshold (P_beta/1000).
        high: upper threshold (P_beta/1000).
        ramp_s: seconds from nothing to the largest rate.
        most_hz: largest rate (Hz).

    Raises:
        UserError: thresholds that are not 0 <= low <= high, or a ramp or rate that is not above 0.
    """

    def __init__(
        self, slots: int, slot_us: int | Fraction, low: float, high: float, ramp_s: float, most_hz: float | None = None
    ) -> None:
        if not 0.0 <= low <= high or not math.isfinite(high):
            raise UserError(f"dual thresholds low={low}, high={high} were given: 0 <= low <= high is needed")
        name = f"dual-threshold {low:.3g}-{high:.3g}, {ramp_s:.3g} s"
        _positive("dual-threshold", ramp_s=ramp_s)
        super().__init__(name + ("" if most_hz is None else f", {most_hz:.4g} Hz"), slots, slot_us, most_hz)
        self.low, self.high, self.ramp_s = low, high, ramp_s
        self.level: Rates = np.zeros(1)  # share of the largest rate

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        self.level = np.zeros(n)

    def _rates(self, beta: Rates) -> Rates:
        change = np.where(beta > self.high, 1.0, np.where(beta < self.low, -1.0, 0.0))
        self.level = np.clip(self.level + change * self.decision_s / self.ramp_s, 0.0, 1.0)
        return self.level * self.most_hz


class Proportional(_RateController):
    """The rate is proportional to the error (beta - target)/target; below the target there is no pulse.

    Args:
        slots: slots of a decision.
        slot_us: length of a slot in µs.
        target: beta that is aimed at (P_beta/1000).
        kp: gain (Hz per unit of error).
        most_hz: largest rate (Hz).

    Raises:
        UserError: a target, gain or rate that is not above 0.
    """

    def __init__(
        self, slots: int, slot_us: int | Fraction, target: float, kp: float, most_hz: float | None = None
    ) -> None:
        _positive("proportional", target=target, kp=kp)
        super().__init__(f"proportional {kp:.4g} Hz, target {target:.3g}", slots, slot_us, most_hz)
        self.target, self.kp = target, kp

    def _rates(self, beta: Rates) -> Rates:
        return self.kp * (beta - self.target) / self.target


class _PIController(_RateController):
    """kp (e + 1/ti ∫ e dt), e = (beta - target)/target (Fleming 2020); where that is below 0 or above its bound, the
    integral stands still (their anti-windup).

    The sampling time is the decision's length: 20 ms in ``realtime`` as in Fleming 2020, 1 s in ``paper``.

    Args:
        what: "PI" and so on, with the unit of its output.
        slots: slots of a decision.
        slot_us: length of a slot in µs.
        target: beta that is aimed at (P_beta/1000).
        kp: gain (in that unit per unit of error).
        ti: integral time (s).
        most_hz: largest rate (Hz).
        most: bound of the output; None: the largest rate.
    """

    def __init__(
        self,
        what: tuple[str, str],
        slots: int,
        slot_us: int | Fraction,
        target: float,
        kp: float,
        ti: float,
        most_hz: float | None,
        most: float | None = None,
    ) -> None:
        name, unit = what
        _positive(name.lower().replace(" ", "-"), target=target, kp=kp, ti=ti)
        super().__init__(f"{name} {kp:.4g} {unit}, {ti:.3g} s, target {target:.3g}", slots, slot_us, most_hz)
        self.target, self.kp, self.ti = target, kp, ti
        self.most = self.most_hz if most is None else most
        self.integral: Rates = np.zeros(1)  # s

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        self.integral = np.zeros(n)

    def _output(self, beta: Rates) -> Rates:
        error = (beta - self.target) / self.target
        integral = self.integral + error * self.decision_s
        output: Rates = self.kp * (error + integral / self.ti)
        bounded = (output > self.most) | (output < 0.0)
        self.integral = np.where(bounded, self.integral, integral)
        return output


class PIFrequency(_PIController):
    """Fleming 2020: the rate is the law's output (`_PIController`).

    Args:
        slots: slots of a decision.
        slot_us: length of a slot in µs.
        target: beta that is aimed at (P_beta/1000).
        kp: gain (Hz per unit of error).
        ti: integral time (s).
        most_hz: largest rate (Hz).

    Raises:
        UserError: a target, gain, time or rate that is not above 0.
    """

    def __init__(
        self, slots: int, slot_us: int | Fraction, target: float, kp: float, ti: float, most_hz: float | None = None
    ) -> None:
        super().__init__(("PI", "Hz"), slots, slot_us, target, kp, ti, most_hz)

    def _rates(self, beta: Rates) -> Rates:
        return self._output(beta)


class PIAmplitude(_PIController):
    """Fleming 2020: a regular train whose amplitude is the law's output (`_PIController`); at 0 mA or below it there is
    no pulse, and 3 mA is the most.

    Board and plant have one scale: 3 mA are 300 µA/cm².

    Args:
        slots: slots of a decision.
        slot_us: length of a slot in µs.
        target: beta that is aimed at (P_beta/1000).
        kp: gain (mA per unit of error).
        ti: integral time (s).
        most_hz: rate of the train (Hz). At most a pulse a slot.

    Raises:
        UserError: a target, gain, time or rate that is not above 0.
    """

    def __init__(
        self, slots: int, slot_us: int | Fraction, target: float, kp: float, ti: float, most_hz: float = CONTINUOUS_HZ
    ) -> None:
        what = ("PI amplitude", "mA")
        super().__init__(what, slots, slot_us, target, kp, ti, most_hz, most=DEVICE_AMPLITUDE_UA / 1000.0)
        self.amplitude_uA_cm2: Rates = np.full(1, PULSE_AMPLITUDE)

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        self.amplitude_uA_cm2 = np.full(n, PULSE_AMPLITUDE)

    def _rates(self, beta: Rates) -> Rates:
        mA = np.minimum(self._output(beta), self.most)
        on = mA > 0.0
        self.amplitude_uA_cm2 = np.where(on, mA * 1000.0 * UA_CM2_PER_UA, PULSE_AMPLITUDE)  # without pulses: any
        return np.where(on, self.most_hz, 0.0)


def _positive(name: str, **values: float) -> None:
    for key, value in values.items():
        if not (math.isfinite(value) and value > 0.0):
            raise UserError(f"{name} with {key} = {value} was asked for: a number above 0 is needed")
