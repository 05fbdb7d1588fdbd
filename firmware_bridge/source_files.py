"""Sources that are files: observations of a recorded session, or samples of P_beta; see `firmware_bridge.sources`."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import OBSERVATION_SCALE
from envs.config import EnvConfig
from envs.errors import UserError
from envs.npz import read_npz
from firmware_bridge.source_values import Observation, check_rate, check_values
from sea_dbs.files import sha256_file
from sea_dbs.report.session_data import read_session

SPACING_SHARE = 0.25  # share of a sample by which one time of a file may be off its place: times are often rounded


class Recorded:
    """Observations of a file, in order."""

    def __init__(self, name: str, observations: list[Observation]) -> None:
        self.name = name
        self.observations = observations
        self._at = 0

    def first(self) -> Observation:
        """See `Source.first`."""
        self._at = 0
        return self.observations[0].copy()

    def following(self) -> Observation:
        """See `Source.following`."""
        if self._at + 1 >= len(self.observations):
            raise UserError(f"{self.name} has ended, after {self._at} decisions")
        self._at += 1
        return self.observations[self._at].copy()

    def age_us(self) -> int:
        """See `Source.age_us`."""
        return 0

    def close(self) -> None:
        """See `Source.close`."""


def open_file(path: Path, config: EnvConfig, steps: int) -> Recorded:
    """A file of observations or samples; see the module.

    Raises:
        UserError: missing, of another kind, not readable, another rate, a gap, a value out of range, or too short.
    """
    readers = {".sqlite": _session, ".npz": _npz, ".csv": _csv}
    if path.suffix not in readers:
        raise UserError(f"--source file:{path} is no recording: .sqlite, .npz or .csv is expected")
    if not path.is_file():
        raise UserError(f"there is no recording {path}")
    observations = readers[path.suffix](path, config)
    if len(observations) - 1 < steps:
        held = max(0, len(observations) - 1)
        raise UserError(f"{path} holds {held} decisions of {config.decision_ms:g} ms, --steps asks for {steps}")
    for i, observation in enumerate(observations):
        check_values(observation, f"{path}, observation {i}")
    return Recorded(f"file:{path.name} (SHA-256 {sha256_file(path)[:12]})", observations)


def _session(path: Path, config: EnvConfig) -> list[Observation]:
    data = read_session(path)
    session, rows = data.session, data.decisions
    slot_us = round(config.slot_ms * 1000)
    own = data.own_duties  # of the session that was recorded: this one has its own
    found = (session["n_obs"] - own, session["slots"], session["slot_us"], round(1e3 * data.stride_s, 9))
    wanted = (config.n_obs, config.slots, slot_us, config.stride_ms)
    if found != wanted:
        raise UserError(f"{path} was recorded with (n_obs, slots, slot_us, stride_ms) = {found}, this needs {wanted}")
    if not data.observes_beta:
        raise UserError(f"{path} was recorded by a policy that observed no P_beta of sliding windows: none is in it")
    length = slot_us * config.slots
    for before, after in pairwise(rows):
        gap = after["plant_us"] - before["plant_us"]
        if abs(gap - length) > slot_us // 2:
            at = after["decision_index"]
            raise UserError(f"{path} has a gap: decision {at} comes {gap} µs after the one before, not {length} µs")
    blobs = [row["observation"] for row in rows]
    if session["final_observation"] is not None:
        blobs.append(session["final_observation"])
    return [np.frombuffer(data_blob, "<f4")[own:].astype(np.float32) for data_blob in blobs]


def _npz(path: Path, config: EnvConfig) -> list[Observation]:
    arrays = read_npz(path, ())
    beta, times, rate = (arrays.get(name) for name in ("P_beta", "time_s", "rate_hz"))
    if beta is None or beta.ndim != 1 or beta.dtype.kind not in "fiu" or (times is None) == (rate is None):
        has = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise UserError(f"{path} must hold P_beta (n,) and either time_s (n,) or rate_hz; it holds {has}")
    if times is not None:
        if times.shape != beta.shape or times.dtype.kind not in "fiu":
            raise UserError(f"{path}: time_s has shape {times.shape}, P_beta {beta.shape}")
        _check_times(times.astype(np.float64), str(path), config)
    elif rate is not None:
        if rate.shape != () or rate.dtype.kind not in "fiu":
            raise UserError(f"{path}: rate_hz must be one number (Hz)")
        check_rate(float(rate), str(path), config)
    return _windows(beta.astype(np.float64), str(path), config)


def _csv(path: Path, config: EnvConfig) -> list[Observation]:
    times, beta = [], []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            if header != ["time_s", "P_beta"]:
                raise UserError(f"{path} must begin with the header time_s,P_beta; it begins with {','.join(header)}")
            for row in reader:
                try:
                    time_s, value = (float(field) for field in row)
                except ValueError:
                    raise UserError(f"{path}, line {reader.line_num}: two numbers are expected, not {row}") from None
                times.append(time_s)
                beta.append(value)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from None
    _check_times(np.array(times), str(path), config)
    return _windows(np.array(beta), str(path), config)


def _check_times(times: NDArray[np.float64], place: str, config: EnvConfig) -> None:
    if len(times) < 2:
        raise UserError(f"{place} holds {len(times)} samples: at least 2 are needed to know their rate")
    if not np.isfinite(times).all():
        raise UserError(f"{place}: the time of sample {int(np.argmin(np.isfinite(times)))} is not finite")
    check_rate(1.0 / float(np.median(np.diff(times))), place, config)
    stride_s = config.stride_ms * 1e-3
    off = np.abs(np.diff(times) - stride_s)
    if off.max() > SPACING_SHARE * stride_s:
        at = int(off.argmax())
        step = float(times[at + 1] - times[at])
        raise UserError(f"{place} has a gap: sample {at + 1} comes {step * 1e3:g} ms after the one before it")


def _windows(beta: NDArray[np.float64], place: str, config: EnvConfig) -> list[Observation]:
    """Samples as observations, one a decision."""
    values = beta / OBSERVATION_SCALE
    check_values(values, place)
    new = config.new_samples
    ends = range(config.n_obs, len(values) + 1, new)
    return [values[end - config.n_obs : end].astype(np.float32) for end in ends]
