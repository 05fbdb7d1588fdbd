"""One network under a fixed condition: simulate, save spikes and spectrum, draw them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.multitaper import beta_trace, spectrum
from envs.errors import UserError
from envs.npz import read_npz
from envs.plant.common import N_CELLS, POPULATIONS
from envs.plant.inputs import SmcRenewal, round_half_up
from envs.plant.network import check_dt
from envs.plant.single import FastPlant
from envs.stimulation import regular_train
from sea_dbs.files import atomic_write_bytes, write_json

CONDITIONS = {"pd": 1.0, "healthy": 0.0, "con": 0.0}
BAND_HZ = (1.0, 100.0)  # Hz, of the spectrum that is saved and drawn (fpass of Kumaravelu 2016)
WINDOW_MS = 1000.0  # ms, of one spectrum; P_beta is the mean over the run's windows
TRACE_STRIDE_MS = 10.0  # ms, of the sliding P_beta
MIN_SECONDS, MAX_SECONDS = 0.2, 3600.0  # s


@dataclass(frozen=True)
class Simulation:
    """What happened: spikes of every population, GPi spectrum, P_beta."""

    condition: str
    stim_hz: float
    seed: int
    dt_ms: float
    t_ms: float
    spikes: dict[str, NDArray[np.int64]]  # population -> (n, 2) sample, cell
    gpi_spikes: NDArray[np.int64]  # (n, 2) as the biomarker counts them
    frequencies_hz: NDArray[np.float64]  # Hz
    spectrum: NDArray[np.float64]  # spikes²/s²/Hz, mean over the run's windows
    beta_trace: NDArray[np.float64]  # P_beta of sliding windows
    beta_trace_ms: NDArray[np.float64]  # ms, end of each window
    P_beta: float

    @property
    def rates_hz(self) -> dict[str, float]:
        """Events per cell and second (Hz)."""
        return {name: len(spikes) / N_CELLS / self.t_ms * 1000.0 for name, spikes in self.spikes.items()}

    def summary(self) -> dict[str, Any]:
        """The numbers, without arrays."""
        return {**{name: getattr(self, name) for name in _NUMBERS}, "rates_hz": self.rates_hz}


def simulate(
    condition: str, stim_hz: float, seconds: float, seed: int, dt_ms: float = 0.02
) -> Iterator[tuple[float, Simulation | None]]:
    """Simulate second by second; yields (simulated s, None) and at the end (seconds, the simulation).

    Raises:
        UserError: unknown condition, or a rate, duration or seed out of range.
    """
    if condition not in CONDITIONS:
        raise UserError(f"unknown condition '{condition}': allowed are {', '.join(CONDITIONS)}")
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise UserError(f"--seconds is {seconds:g}: allowed are {MIN_SECONDS:g} to {MAX_SECONDS:g} s")
    if seed < 0:
        raise UserError(f"--seed is {seed}: allowed are 0 and above")
    check_dt(dt_ms)
    n = round_half_up(seconds * 1000.0 / dt_ms)
    current = regular_train(stim_hz, n, dt_ms)  # refused before the kernel is made ready, which can take a while
    rng = np.random.default_rng(seed)
    plant = FastPlant.draw(rng, CONDITIONS[condition], dt_ms)
    smc = SmcRenewal(rng, dt_ms)
    records = []
    chunk = plant.samples(1000.0)
    for start in range(0, n, chunk):
        part = current[start : start + chunk]
        records.append(plant.advance(smc.take(len(part)), part))
        yield plant.sample * dt_ms / 1000.0, None
    events = np.concatenate([record.events for record in records])
    gpi = np.concatenate([record.gpi_spikes for record in records])
    window = min(n, plant.samples(WINDOW_MS))
    spectra = [
        spectrum(gpi, start, window, dt_ms, fixed_grid=True, band_hz=BAND_HZ)
        for start in range(0, n - window + 1, window)
    ]
    starts = np.arange(0, n - window + 1, plant.samples(TRACE_STRIDE_MS))
    trace = beta_trace(gpi, starts, window, dt_ms, fixed_grid=True)
    whole = beta_trace(gpi, np.arange(0, n - window + 1, window), window, dt_ms, fixed_grid=True)
    yield (
        seconds,
        Simulation(
            condition=condition,
            stim_hz=stim_hz,
            seed=seed,
            dt_ms=dt_ms,
            t_ms=n * dt_ms,
            spikes={name: events[events[:, 1] == i][:, [0, 2]] for i, name in enumerate(POPULATIONS)},
            gpi_spikes=gpi,
            frequencies_hz=spectra[0][0],
            spectrum=np.mean([values for _, values, _ in spectra], axis=0),
            beta_trace=trace,
            beta_trace_ms=np.asarray((starts + window) * dt_ms, dtype=np.float64),
            P_beta=float(np.mean(whole)),
        ),
    )


_NUMBERS = ("condition", "stim_hz", "seed", "dt_ms", "t_ms", "P_beta")
_ARRAYS = ("gpi_spikes", "frequencies_hz", "spectrum", "beta_trace", "beta_trace_ms")


def save(simulation: Simulation, out: Path) -> None:
    """Write simulation.npz and summary.json into a folder."""
    arrays = {f"spk_{name}": spikes for name, spikes in simulation.spikes.items()}
    arrays |= {name: getattr(simulation, name) for name in _ARRAYS}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays, allow_pickle=False)
    atomic_write_bytes(out / "simulation.npz", buffer.getvalue())
    write_json(out / "summary.json", {"kind": "simulation", **simulation.summary()})


def load(folder: Path, summary: dict[str, Any]) -> Simulation:
    """Read what `save` wrote.

    Raises:
        UserError: the file is missing, truncated or lacks a field.
    """
    names = tuple(f"spk_{name}" for name in POPULATIONS)
    data = read_npz(folder / "simulation.npz", (*_ARRAYS, *names))
    try:
        fields: dict[str, Any] = {name: summary[name] for name in _NUMBERS}
    except KeyError as error:
        raise UserError(f"the summary of {folder} lacks the field {error}") from error
    fields |= {name: data[name] for name in _ARRAYS}
    return Simulation(**fields, spikes={name: data[f"spk_{name}"] for name in POPULATIONS})
