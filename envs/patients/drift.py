"""Drift during an episode: what changes slowly while a controller runs. Times are compressed into seconds."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field

_FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Impedance(BaseModel):
    """The electrode is encapsulated, so that less of a pulse reaches the cells: efficacy falls exponentially.

    In life over days to weeks (Lempka et al. 2009, J Neural Eng 6:046001). The cells of the model follow the default
    pulse fully down to an efficacy of 0.15 and not at all at 0.07; the default passes these at 14 and 23 s.
    """

    model_config = _FROZEN

    efficacy_end: float = Field(0.05, ge=0.0, le=1.0)  # factor on the patient's charge efficacy, in the end
    tau_s: float = Field(6.0, gt=0.0)  # s

    def efficacy(self, t_s: float) -> float:
        """Factor on the charge efficacy at a time."""
        return self.efficacy_end + (1.0 - self.efficacy_end) * math.exp(-t_s / self.tau_s)


class Disease(BaseModel):
    """Severity moves by ``change``, as a straight ramp: a dose of levodopa sets in (negative) or wears off.

    Beta of the model is as high at a severity of 0.3 as at 1 and falls below it (docs/plant.md): of a change that stops
    there a controller meets next to nothing.
    """

    model_config = _FROZEN

    change: float = Field(-0.9, ge=-1.0, le=1.0)  # of severity; ours: from 1 to where beta is lower (docs/plant.md)
    start_s: float = Field(10.0, ge=0.0)  # s
    ramp_s: float = Field(5.0, ge=0.0)  # s

    def shift(self, t_s: float) -> float:
        """Change of severity at a time."""
        if self.ramp_s == 0.0:
            return self.change if t_s >= self.start_s else 0.0
        return self.change * min(max((t_s - self.start_s) / self.ramp_s, 0.0), 1.0)


class Circadian(BaseModel):
    """Severity dips by ``depth`` once a period: subthalamic beta is lower at night (van Rheede et al. 2022, npj
    Parkinson's Disease 8:88). Deep enough to show: see `Disease`."""

    model_config = _FROZEN

    depth: float = Field(0.9, ge=0.0, le=1.0)  # of severity; ours, as `Disease.change`
    period_s: float = Field(20.0, gt=0.0)  # s, a compressed day
    phase: float | None = Field(None, ge=0.0, le=1.0)  # periods past the peak at t = 0; None: drawn at reset

    def shift(self, t_s: float, phase: float) -> float:
        """Change of severity at a time, -depth..0."""
        return -0.5 * self.depth * (1.0 - math.cos(2.0 * math.pi * (t_s / self.period_s + phase)))


class Drift(BaseModel):
    """A scenario: any of the three together. None of them: nothing drifts."""

    model_config = _FROZEN

    impedance: Impedance | None = None
    disease: Disease | None = None
    circadian: Circadian | None = None

    def efficacy(self, t_s: float) -> float:
        """Factor on the patient's charge efficacy, 0..1."""
        return 1.0 if self.impedance is None else self.impedance.efficacy(t_s)

    def severity(self, start: float, t_s: float, phase: float = 0.0) -> float:
        """Severity at a time of a patient who started at ``start``, held inside 0..1."""
        shift = 0.0 if self.disease is None else self.disease.shift(t_s)
        if self.circadian is not None:
            own = self.circadian.phase
            shift += self.circadian.shift(t_s, phase if own is None else own)
        return min(max(start + shift, 0.0), 1.0)


DRIFTS: dict[str, Drift] = {
    "none": Drift(),
    "impedance": Drift(impedance=Impedance()),
    "disease": Drift(disease=Disease()),
    "circadian": Drift(circadian=Circadian()),
}
