"""Input currents: the sensorimotor (SMC) pulse train into the thalamus, as the release draws it and as a renewal
process."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMC_AMPLITUDE = 3.5  # µA/cm², Kumaravelu 2016
SMC_WIDTH_MS = 5.0  # ms, Kumaravelu 2016
SMC_RATE_HZ = 14.0  # Hz, mean of the instantaneous rate, Kumaravelu 2016
SMC_CV = 0.2  # 1, coefficient of variation of the rate, Kumaravelu 2016
SMC_SHAPE = 1.0 / SMC_CV**2  # 1, of the gamma distribution
SMC_SCALE_HZ = SMC_RATE_HZ * SMC_CV**2  # Hz, of the gamma distribution

Floats = NDArray[np.float64]


def round_half_up(x: float) -> int:
    """Round half away from zero, as the released code's language does (x ≥ 0)."""
    return math.floor(x + 0.5)


def smc_interval(rng: np.random.Generator, dt_ms: float) -> int:
    """Draw one interval between SMC onsets, in samples."""
    rate_hz = rng.gamma(SMC_SHAPE, SMC_SCALE_HZ)
    return round_half_up(1000.0 / rate_hz / dt_ms)


def draw_smc_onsets(rng: np.random.Generator, n_samples: int, dt_ms: float) -> list[int]:
    """Onsets (0-based samples) of a train of ``n_samples`` as the released code draws it."""
    onsets = []
    onset = smc_interval(rng, dt_ms)
    while onset + 1 < n_samples:  # the release counts from one: i < nt
        onsets.append(onset)
        onset += smc_interval(rng, dt_ms)
    return onsets


def smc_array(onsets: list[int], n_samples: int, dt_ms: float) -> Floats:
    """The train as an array (µA/cm²): at least ``n_samples`` long, longer when the last pulse overruns the end."""
    width = round_half_up(SMC_WIDTH_MS / dt_ms)
    length = max([n_samples, *(onset + width for onset in onsets)])
    train = np.zeros(length)
    for onset in onsets:
        train[onset : onset + width] = SMC_AMPLITUDE
    return train


class SmcQueue:
    """The released code's input between steps: each step appends a fresh train; overruns accumulate (reference
    mode)."""

    def __init__(self, rng: np.random.Generator, dt_ms: float, saved: dict[str, Any] | None = None) -> None:
        self._rng, self._dt_ms = rng, dt_ms
        self.queue: Floats = np.zeros(0) if saved is None else np.array(saved["queue"], dtype=np.float64)

    def get_state(self) -> dict[str, Any]:
        """What the constructor needs to go on, the generator apart."""
        return {"queue": self.queue.copy()}

    def append_train(self, n_samples: int, onsets: list[int] | None = None) -> None:
        """Append a train of ``n_samples``, drawn, or with given onsets (0-based from the step's start)."""
        if onsets is None:
            onsets = draw_smc_onsets(self._rng, n_samples, self._dt_ms)
        self.queue = np.concatenate([self.queue, smc_array(onsets, n_samples, self._dt_ms)])

    def take(self, n_samples: int) -> Floats:
        """Consume the next ``n_samples`` (µA/cm²)."""
        taken, self.queue = self.queue[:n_samples], self.queue[n_samples:]
        return taken


class SmcRenewal:
    """One continuous renewal train (recommended mode): boundaries between steps leave no mark."""

    def __init__(self, rng: np.random.Generator, dt_ms: float, saved: dict[str, Any] | None = None) -> None:
        self._rng, self._dt_ms = rng, dt_ms
        self._width = round_half_up(SMC_WIDTH_MS / dt_ms)
        # next onset, in samples from the next sample to be taken
        self.onset = smc_interval(rng, dt_ms) if saved is None else int(saved["onset"])
        self.carry = 0 if saved is None else int(saved["carry"])  # samples of a pulse under way

    def get_state(self) -> dict[str, Any]:
        """What the constructor needs to go on, the generator apart."""
        return {"onset": self.onset, "carry": self.carry}

    def take(self, n_samples: int) -> Floats:
        """The next ``n_samples`` of the train (µA/cm²)."""
        train = np.zeros(n_samples + self._width)
        train[: self.carry] = SMC_AMPLITUDE
        end = self.carry
        while self.onset < n_samples:
            end = self.onset + self._width
            train[self.onset : end] = SMC_AMPLITUDE
            self.onset += smc_interval(self._rng, self._dt_ms)
        self.onset -= n_samples
        self.carry = max(0, end - n_samples)
        return train[:n_samples]
