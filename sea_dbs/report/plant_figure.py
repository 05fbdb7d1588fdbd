"""Raster and spectrum of the plant under one or several conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from envs.biomarkers.multitaper import BETA_BAND_HZ
from envs.plant.common import N_CELLS, POPULATIONS
from sea_dbs.report.style import CONTINUOUS, GRID, HEALTHY, INK, NEUTRAL, UNTREATED, drawing, png
from sea_dbs.simulate import Simulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RASTER_MS = 1000.0  # ms, of the end of the run that the raster shows
LABELS = ("thalamus", "STN", "GPe", "GPi", "striatum D2", "striatum D1", "cortex exc.", "cortex inh.")


def title(simulation: Simulation) -> str:
    """A condition in words: 'healthy', 'PD, no stimulation', 'PD, 130 Hz'."""
    state = "PD" if simulation.condition == "pd" else "healthy"
    if simulation.stim_hz:
        return f"{state}, {simulation.stim_hz:g} Hz"
    return f"{state}, no stimulation" if state == "PD" else state


def colour(simulation: Simulation) -> str:
    """The colour of a condition, the same in every figure."""
    if simulation.stim_hz:
        return CONTINUOUS
    return UNTREATED if simulation.condition == "pd" else HEALTHY


@drawing
def draw(simulations: Sequence[Simulation]) -> bytes:
    """PNG: above, a raster of all eight populations for each simulation; below, GPi spectra and sliding P_beta."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7.0, 3.8 * len(simulations)), 7.2), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.7, 1.0))[:, 0]
    rasters = upper.subplots(1, len(simulations), squeeze=False, sharey=True)[0]
    for axis, simulation in zip(rasters, simulations, strict=True):
        _raster(axis, simulation)
    rasters[0].set_yticks([N_CELLS * (i + 0.5) for i in range(len(POPULATIONS))], LABELS)
    left, right = lower.subplots(1, 2)
    _spectra(left, simulations)
    _traces(right, simulations)
    return png(figure)


def _raster(axis: Axes, simulation: Simulation) -> None:
    begin = max(0.0, simulation.t_ms - RASTER_MS)
    for i, name in enumerate(POPULATIONS):
        spikes = simulation.spikes[name]
        t = spikes[:, 0] * simulation.dt_ms
        shown = t >= begin
        tint = colour(simulation) if name == "gpi" else INK
        axis.plot(t[shown] / 1000.0, spikes[shown, 1] + N_CELLS * i + 0.5, "|", color=tint, markersize=3.4, mew=0.8)
        axis.axhline(N_CELLS * (i + 1), color=GRID, lw=0.8)
    axis.grid(visible=False)
    axis.set_xlim(begin / 1000.0, simulation.t_ms / 1000.0)
    axis.set_ylim(N_CELLS * len(POPULATIONS), 0)
    axis.set_xlabel("time (s)")
    axis.set_title(f"{title(simulation)}: P_beta {simulation.P_beta:.0f}")


def _spectra(axis: Axes, simulations: Sequence[Simulation]) -> None:
    axis.axvspan(*BETA_BAND_HZ, color=GRID, alpha=0.6, lw=0)
    for simulation in simulations:
        axis.plot(
            simulation.frequencies_hz, simulation.spectrum, color=colour(simulation), label=title(simulation), lw=1.4
        )
    peak = max(float(np.max(s.spectrum[s.frequencies_hz < 60.0])) for s in simulations)
    axis.set_ylim(0.0, 1.15 * peak)
    axis.set_xlim(1.0, 60.0)
    axis.set_xlabel("frequency (Hz)")
    axis.set_ylabel("GPi power (spikes²/s²/Hz)")
    axis.set_title("GPi spectrum (band 13-35 Hz shaded)")
    axis.legend()


def _traces(axis: Axes, simulations: Sequence[Simulation]) -> None:
    for simulation in simulations:
        axis.plot(simulation.beta_trace_ms / 1000.0, simulation.beta_trace, color=colour(simulation), lw=1.4)
        if len(simulation.beta_trace) == 1:
            axis.plot(simulation.beta_trace_ms / 1000.0, simulation.beta_trace, "o", color=colour(simulation))
    axis.axhline(350.0, color=NEUTRAL, lw=1.0, ls=":", label="threshold of the reward (Eq. 7)")
    axis.set_ylim(0.0, 1.2 * axis.get_ylim()[1])  # room for the legend
    axis.legend(loc="upper right")
    axis.set_xlabel("end of the 1 s window (s)")
    axis.set_ylabel("P_beta (spikes²/s²)")
    axis.set_title("Beta power over the run")
