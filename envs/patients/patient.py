"""One virtual patient: a network of some severity, its conductances, an electrode, and how pulses reach the cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from envs.patients.recruitment import Recruitment
from envs.plant.state import Network, ctx_d1_base, disease_parameters, draw_network

_FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Scales(BaseModel):
    """Factors on the drawn conductances of a network, 1 = as drawn.

    The limits of 0.25 and 4 are the spread of conductances between neurons of one type (two- to fivefold: Marder &
    Goaillard 2006, Nat Rev Neurosci 7:563).
    """

    model_config = _FROZEN

    ctx_stn: float = Field(1.0, ge=0.25, le=4.0)  # cortex to STN, AMPA and NMDA: the hyperdirect pathway
    ctx_d1: float = Field(1.0, ge=0.25, le=4.0)  # cortex to D1 striatum
    gpe_gpe: float = Field(1.0, ge=0.25, le=4.0)  # coupling within the GPe
    stn_gpe: float = Field(1.0, ge=0.25, le=4.0)  # STN to GPe, AMPA and NMDA
    stn_gpi: float = Field(1.0, ge=0.25, le=4.0)  # STN to GPi
    m_current: float = Field(1.0, ge=0.25, le=4.0)  # striatal M-type potassium


class Patient(BaseModel):
    """A virtual patient. The same values give the same network, anywhere.

    `envs.make_env(patient=...)` or ``reset(options={"patient": ...})`` puts it into an environment.
    """

    model_config = _FROZEN

    name: str = Field("patient", min_length=1, max_length=64)
    seed: int = Field(0, ge=0, lt=2**63)  # of wiring, drawn conductances and initial voltages
    severity: float = Field(1.0, ge=0.0, le=1.0)  # 0 healthy, 1 parkinsonian (6-OHDA): pd of Kumaravelu 2016
    scales: Scales = Scales()
    electrode_gain: float = Field(1.0, ge=0.1, le=10.0)  # observed beta power per true beta power
    charge_efficacy: float = Field(1.0, ge=0.0, le=1.0)  # share of the delivered current that reaches the cells
    recruitment: Recruitment | None = None  # None: every STN cell feels every pulse, as in the model

    def network(self) -> Network:
        """The patient's network: draws from the seed, then scaled."""
        drawn, s = draw_network(np.random.default_rng(self.seed), self.severity), self.scales
        return drawn._replace(
            g_ctx_stn_ampa=s.ctx_stn * drawn.g_ctx_stn_ampa,
            g_ctx_stn_nmda=s.ctx_stn * drawn.g_ctx_stn_nmda,
            g_ctx_d1=s.ctx_d1 * drawn.g_ctx_d1,
            g_gpe_gpe=s.gpe_gpe * drawn.g_gpe_gpe,
            g_stn_gpe_ampa=s.stn_gpe * drawn.g_stn_gpe_ampa,
            g_stn_gpe_nmda=s.stn_gpe * drawn.g_stn_gpe_nmda,
            g_stn_gpi=s.stn_gpi * drawn.g_stn_gpi,
            g_m=s.m_current * drawn.g_m,
        )

    def thresholds(self) -> NDArray[np.float64]:
        """Activation threshold of each STN cell (µA/cm² at the cell), shape (10,); 0 without graded recruitment."""
        if self.recruitment is None:
            return np.zeros(10)
        return self.recruitment.thresholds(np.random.default_rng([self.seed, 1]))


def with_severity(network: Network, old: float, new: float, ctx_d1_scale: float = 1.0) -> Network:
    """The same network at another severity: what disease changes, and nothing else.

    Args:
        network: at severity ``old``.
        old: 0..1.
        new: 0..1.
        ctx_d1_scale: the patient's factor on the cortical drive of D1, whose base shifts.

    Raises:
        UserError: a severity outside 0..1.
    """
    before, after = disease_parameters(old), disease_parameters(new)
    return network._replace(
        g_m=network.g_m * after["g_m"] / before["g_m"],
        g_gpe_gpe_factor=network.g_gpe_gpe_factor * after["g_gpe_gpe_factor"] / before["g_gpe_gpe_factor"],
        g_ctx_d1=network.g_ctx_d1 + ctx_d1_scale * (ctx_d1_base(new) - ctx_d1_base(old)),
    )


def severity_of(network: Network) -> float:
    """The severity of an unscaled network, from its M-current."""
    healthy, parkinsonian = disease_parameters(0.0)["g_m"], disease_parameters(1.0)["g_m"]
    return float(np.clip((healthy - network.g_m) / (healthy - parkinsonian), 0.0, 1.0))
