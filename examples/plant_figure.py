"""Draw docs/plant.png: healthy, PD and PD under 130 Hz as rasters, spectra of the GPi, and the LFP proxy of the STN.

python examples/plant_figure.py docs/plant.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from envs.biomarkers.lfp import spectra
from envs.biomarkers.multitaper import BETA_BAND_HZ, spectrum
from envs.plant.common import CE, CI, D1, D2, GPE, GPI, N_CELLS, STN, TH
from envs.plant.inputs import SmcRenewal
from envs.plant.single import FastPlant
from envs.stimulation import regular_train
from sea_dbs.report.style import CONTINUOUS, GRID, HEALTHY, INK, UNTREATED, drawing, png, subplots

DT_MS, SEED = 0.02, 0
SKIP_S, SECONDS, SHOWN_S = 1, 10, 1.0  # s left out, s measured, s shown
CONDITIONS = (
    ("healthy", 0.0, 0.0, HEALTHY),
    ("PD, no stimulation", 1.0, 0.0, UNTREATED),
    ("PD, 130 Hz", 1.0, 130.0, CONTINUOUS),
)
ROWS = (
    *((CE, "cortex exc."), (CI, "cortex inh."), (D2, "striatum D2"), (D1, "striatum D1")),
    *((STN, "STN"), (GPE, "GPe"), (GPI, "GPi"), (TH, "thalamus")),
)
LFP_BAND_HZ = (2.0, 100.0)


class Run(NamedTuple):
    """One condition; times in s, power in the unit of its signal."""

    title: str
    colour: str
    events: NDArray[np.int64]
    lfp_s: NDArray[np.float64]
    lfp: NDArray[np.float64]
    gpi: tuple[NDArray[np.float64], NDArray[np.float64]]
    field: tuple[NDArray[np.float64], NDArray[np.float64]]
    betas: list[float]


def run(title: str, pd: float, stim_hz: float, colour: str) -> Run:
    """Simulate one network (the same draws in every condition)."""
    rng = np.random.default_rng(SEED)
    plant = FastPlant.draw(rng, pd, DT_MS)
    second = plant.samples(1000.0)
    n = (SKIP_S + SECONDS) * second
    record = plant.advance(SmcRenewal(rng, DT_MS).take(n), regular_train(stim_hz, n, DT_MS))
    starts = range(SKIP_S * second, n, second)
    windows = [spectrum(record.gpi_spikes, s, second, DT_MS, fixed_grid=True, band_hz=(1.0, 100.0)) for s in starts]
    betas = [spectrum(record.gpi_spikes, s, second, DT_MS, fixed_grid=True)[2] for s in starts]
    field = spectra(record.lfp, np.arange(SKIP_S + 1, SKIP_S + SECONDS + 1) * 1000, 1000, band_hz=LFP_BAND_HZ)
    return Run(
        title,
        colour,
        record.events,
        np.asarray(record.lfp_samples * DT_MS / 1000.0, dtype=np.float64),
        record.lfp,
        (windows[0][0], np.mean([values for _, values, _ in windows], axis=0)),
        (field[0], field[1].mean(axis=0)),
        betas,
    )


def raster(axis: Axes, one: Run) -> None:
    """The last second, all eight populations."""
    end = float(SKIP_S + SECONDS)
    for i, (population, _) in enumerate(ROWS):
        spikes = one.events[one.events[:, 1] == population]
        t = spikes[:, 0] * DT_MS / 1000.0
        shown = t > end - SHOWN_S
        colour = one.colour if population in (STN, GPI) else INK
        axis.plot(t[shown], spikes[shown, 2] + N_CELLS * i + 0.5, "|", color=colour, markersize=3.0, mew=0.8)
        axis.axhline(N_CELLS * (i + 1), color=GRID, lw=0.8)
    axis.set(
        xlim=(end - SHOWN_S, end), ylim=(N_CELLS * len(ROWS), 0), title=f"{one.title}: P_beta {np.mean(one.betas):.0f}"
    )
    axis.set_yticks([N_CELLS * (i + 0.5) for i in range(len(ROWS))], [name for _, name in ROWS])
    axis.grid(visible=False)


@drawing
def draw(runs: list[Run]) -> bytes:
    """Rasters; below them the LFP of the same second; below that the two spectra."""
    figure, axes = subplots(11.0, 9.0, 3, 3, height_ratios=(2.2, 0.9, 1.4))
    for column, one in enumerate(runs):
        raster(axes[column], one)
        late = one.lfp_s > SKIP_S + SECONDS - SHOWN_S
        if column:
            axes[column].tick_params(labelleft=False)
        axes[3 + column].plot(one.lfp_s[late], one.lfp[late], color=one.colour, lw=0.9)
        axes[3 + column].sharex(axes[column])
        axes[3 + column].set(xlabel="time (s)", ylim=(0.0, 1.05 * max(float(r.lfp[1000:].max()) for r in runs)))
        axes[8].plot(np.full(len(one.betas), column), one.betas, "o", color=one.colour, alpha=0.6, markersize=4.0)
        axes[6].plot(*one.gpi, color=one.colour, lw=1.4, label=one.title)
        axes[7].plot(*one.field, color=one.colour, lw=1.4, label=one.title)
    axes[3].set_ylabel("STN LFP proxy (µA/cm²)")
    for axis in axes[6:8]:
        axis.axvspan(*BETA_BAND_HZ, color=GRID, alpha=0.6, lw=0)
        axis.set(xlabel="frequency (Hz)")
    peak = max(float(one.gpi[1][one.gpi[0] < 60.0].max()) for one in runs)
    axes[6].set(xlim=(1.0, 60.0), ylim=(0.0, 1.15 * peak), ylabel="GPi power (spikes²/s²/Hz)")
    axes[6].set_title("GPi spectrum (13-35 Hz shaded)")
    axes[6].legend()
    axes[7].set(xlim=(2.0, 60.0), ylim=(0.0, None), ylabel="LFP power ((µA/cm²)²/Hz)", title="STN LFP proxy")
    axes[8].set_xticks(range(len(runs)), ["healthy", "PD", "PD, 130 Hz"])
    axes[8].set(
        xlim=(-0.6, len(runs) - 0.4), ylim=(0.0, None), ylabel="P_beta (spikes²/s²)", title="Ten windows of 1 s"
    )
    return png(figure)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(draw([run(*condition) for condition in CONDITIONS]))
