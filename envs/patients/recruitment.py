"""Graded recruitment: which STN cells a pulse of some amplitude activates.

In the model a pulse enters every STN cell alike and is all or none: at 130 Hz and 0.3 ms every cell follows from 45
µA/cm² on, half the pulses make a spike at 30, hardly any at 20 (two plants, measured; the default is 300). With graded
recruitment each cell has an activation threshold, lognormal over the cells, as fibres at growing distance from the
contact have (threshold grows about with the distance squared: Tehovnik 1996, J Neurosci Methods 65:1); a pulse
below it does not reach the cell, above it the cell feels the whole pulse.

`BasalGangliaEnv.thresholds` uses it on the fast kernel, which has a stimulation gain for each STN cell; the scalar
reference kernel takes one current for all cells, so an environment on it refuses the first such pulse.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from envs.plant.common import N_CELLS

Floats = NDArray[np.float64]


class Recruitment(BaseModel):
    """Lognormal thresholds; the default pulse of 300 µA/cm² recruits 96 % of the cells on average, half of it 50 %."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    median_uA_cm2: float = Field(150.0, gt=0.0, le=1000.0)  # ours: half the default amplitude
    sigma: float = Field(0.4, ge=0.0, le=2.0)  # of the logarithm, ours

    def thresholds(self, rng: np.random.Generator) -> Floats:
        """One threshold a cell (µA/cm²), shape (10,)."""
        return self.median_uA_cm2 * np.exp(self.sigma * rng.standard_normal(N_CELLS))


def recruited(amplitude_uA_cm2: float, thresholds: Floats, efficacy: float = 1.0) -> NDArray[np.bool_]:
    """Which cells a pulse activates, shape (10,): those whose threshold amplitude × efficacy reaches."""
    return np.asarray(abs(amplitude_uA_cm2) * efficacy >= thresholds)
