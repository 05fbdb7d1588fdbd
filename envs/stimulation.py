"""Stimulation: pulses, who delivers them, and the current they become in the plant.

The plant takes one monophasic depolarising phase, 300 µA/cm² × 0.3 ms by default (Kumaravelu 2016, released code),
into all STN cells alike. Charge is Σ|I|·PW of that phase (nC/cm²).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError

PULSE_AMPLITUDE = 300.0  # µA/cm², Kumaravelu 2016 (released code)
PULSE_WIDTH_MS = 0.3  # ms, Kumaravelu 2016 (released code)
CONTINUOUS_HZ = 130.0  # Hz, continuous stimulation as in the clinic: what pulses and charge are compared with

DEVICE_AMPLITUDE_UA = 3000.0  # µA, the board's default pulse, which maps to PULSE_AMPLITUDE
DEVICE_WIDTH_US = 60.0  # µs a phase, the board's default pulse, which maps to PULSE_WIDTH_MS
UA_CM2_PER_UA = PULSE_AMPLITUDE / DEVICE_AMPLITUDE_UA  # linear in amplitude
PLANT_MS_PER_US = PULSE_WIDTH_MS / DEVICE_WIDTH_US  # ×5 in width


class Pulse(NamedTuple):
    """One delivered pulse, its depolarising phase."""

    t_us: int  # µs since the end of the reset, on the plant's clock
    amplitude_uA_cm2: float
    width_ms: float

    @classmethod
    def from_device(cls, t_us: int, amplitude_uA: float, width_us: float) -> Pulse:
        """Map a pulse of the board (mA, µs) to the plant; the recharge phase is not passed on."""
        return cls(t_us, abs(amplitude_uA) * UA_CM2_PER_UA, width_us * PLANT_MS_PER_US)

    @property
    def charge_nC_cm2(self) -> float:
        """Charge of the phase: µA/cm² × ms = nC/cm²."""
        return abs(self.amplitude_uA_cm2) * self.width_ms


class PulseSource(Protocol):
    """Whoever delivers the pulses of a decision: by default its mask, in a hardware session the board's electrode
    channel."""

    def begin(self, action: NDArray[np.int8], start_us: int, slot_us: tuple[int, ...]) -> None:
        """A decision starts at ``start_us``; its slots start at ``slot_us`` (µs since the end of the reset)."""

    def until(self, t_us: int) -> list[Pulse]:
        """The pulses delivered since the last call and before ``t_us``, in order."""


class MaskSource:
    """The mask gives the pulses itself: one at the start of every slot whose bit is set."""

    def __init__(self, amplitude_uA_cm2: float, width_ms: float) -> None:
        self._pulse = Pulse(0, amplitude_uA_cm2, width_ms)
        self._due: list[int] = []

    def begin(self, action: NDArray[np.int8], start_us: int, slot_us: tuple[int, ...]) -> None:
        """See `PulseSource.begin`."""
        del start_us
        self._due = [t for t, bit in zip(slot_us, action, strict=True) if bit]

    def until(self, t_us: int) -> list[Pulse]:
        """See `PulseSource.until`."""
        given = [t for t in self._due if t < t_us]
        self._due = self._due[len(given) :]
        return [self._pulse._replace(t_us=t) for t in given]


class CurrentBuilder:
    """Turns pulses into the per-sample current of the plant; a pulse may reach beyond a chunk's end."""

    def __init__(self, dt_ms: float) -> None:
        self._dt_ms = dt_ms
        self._sample = 0  # samples built since the end of the reset
        self._current = np.zeros(0)  # what earlier pulses left for samples to come

    def add(self, pulse: Pulse) -> None:
        """Schedule a pulse.

        Raises:
            UserError: it lies in the past, overlaps an earlier one, is not finite, or its width is no whole number of
                samples.
        """
        if not (math.isfinite(pulse.amplitude_uA_cm2) and math.isfinite(pulse.width_ms)):
            raise UserError(f"the pulse at {pulse.t_us} µs has no finite amplitude and width: {pulse}")
        width = round(pulse.width_ms / self._dt_ms)
        if width < 1 or abs(width * self._dt_ms - pulse.width_ms) > 1e-6:
            raise UserError(
                f"a pulse width of {pulse.width_ms:g} ms (board: {pulse.width_ms / PLANT_MS_PER_US:g} µs) is no whole "
                f"number of plant samples of {self._dt_ms:g} ms"
            )
        start = round(pulse.t_us / (1000.0 * self._dt_ms)) - self._sample
        if start < 0:
            raise UserError(f"a pulse at {pulse.t_us} µs arrived after the plant had passed that time")
        if len(self._current) < start + width:
            self._current = np.concatenate([self._current, np.zeros(start + width - len(self._current))])
        if np.any(self._current[start : start + width]):
            raise UserError(f"the pulse at {pulse.t_us} µs overlaps an earlier pulse")
        self._current[start : start + width] = pulse.amplitude_uA_cm2

    def take(self, n_samples: int) -> NDArray[np.float64]:
        """Current of the next ``n_samples`` (µA/cm²)."""
        taken = np.zeros(n_samples)
        have = self._current[:n_samples]
        taken[: len(have)] = have
        self._current = self._current[n_samples:]
        self._sample += n_samples
        return taken

    def get_state(self) -> dict[str, Any]:
        """What `set_state` needs to continue."""
        return {"sample": self._sample, "current": self._current.copy()}

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`."""
        self._sample, self._current = int(values["sample"]), np.array(values["current"], dtype=np.float64)


def regular_train(stim_hz: float, n_samples: int, dt_ms: float, *, pulse: Pulse | None = None) -> NDArray[np.float64]:
    """A regular train from time 0 as a current (µA/cm²), shape (n_samples,), pulse times kept in real time; 0 Hz is
    none.

    Raises:
        UserError: a rate outside 0..185 Hz, or a pulse that is not shorter than its slot.
    """
    if not 0.0 <= stim_hz <= 185.0:
        raise UserError(f"the stimulation rate is {stim_hz:g} Hz: allowed are 0 (none) to 185 Hz")
    pulse = pulse or Pulse(0, PULSE_AMPLITUDE, PULSE_WIDTH_MS)
    builder = CurrentBuilder(dt_ms)
    if stim_hz > 0.0:
        if pulse.width_ms >= 1000.0 / stim_hz:
            raise UserError(
                f"a pulse of {pulse.width_ms:g} ms is not shorter than its slot of {1000.0 / stim_hz:g} ms "
                f"at {stim_hz:g} Hz"
            )
        n_pulses = int(np.ceil(n_samples * dt_ms * stim_hz / 1000.0))
        for i in range(n_pulses):
            builder.add(pulse._replace(t_us=round(i * 1e6 / stim_hz)))
    return builder.take(n_samples)
