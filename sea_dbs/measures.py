"""The field's measures of a controller that need no more than beta and pulses a decision (Fleming 2020, Koss 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.stimulation import CONTINUOUS_HZ, PLANT_MS_PER_US, UA_CM2_PER_UA
from sea_dbs.controllers import HEALTHY_P75

IMPEDANCE_OHM = 1000.0  # Ω, a usual electrode's, for the power at the board's pulse; shares do not depend on it

Values = NDArray[np.float64]


def pulse_energy_uJ(amplitude_uA_cm2: Any, width_ms: float) -> Any:
    """I²·PW·R of the device's pulse that the plant's pulse stands for (µJ): 3 mA × 60 µs into 1 kΩ are 0.54 µJ."""
    ampere = amplitude_uA_cm2 / UA_CM2_PER_UA * 1e-6
    return ampere**2 * (width_ms / PLANT_MS_PER_US) * IMPEDANCE_OHM


def power_uW(pulses: Any, charge_nC_cm2: Any, width_ms: float, decision_s: float) -> Values:
    """Mean power of the device's pulses (µW, `pulse_energy_uJ`), a value a plant.

    Args:
        pulses: of each decision, (plants, decisions).
        charge_nC_cm2: of each decision; the pulses of one are equally strong.
        width_ms: of a pulse in the plant.
        decision_s: length of a decision (s).
    """
    given, charge = np.asarray(pulses, np.float64), np.asarray(charge_nC_cm2, np.float64)
    energy = given * pulse_energy_uJ(charge / np.maximum(given, 1.0) / width_ms, width_ms)
    return np.asarray(energy.mean(axis=1) / decision_s, np.float64)


def excess(beta: Any, target: float = 1000.0 * HEALTHY_P75) -> float:
    """Mean of P_beta above the target, 0 where it is below (Fleming 2020's tracking error)."""
    return float(np.maximum(np.asarray(beta, np.float64) - target, 0.0).mean())


def field_measures(
    beta: Sequence[Sequence[float]],
    untreated: Sequence[Sequence[float]],
    pulses: Sequence[Sequence[int]],
    charge_nC_cm2: Sequence[Sequence[float]],
    *,
    decision_s: float,
    amplitude_uA_cm2: float,
    width_ms: float,
    target: float = 1000.0 * HEALTHY_P75,
) -> dict[str, Any]:
    """Measures over plants.

    Args:
        beta: a list a plant of P_beta after settling, a value a decision.
        untreated: the same of these plants without stimulation.
        pulses: a list a plant of pulses, a value a decision, settling included.
        charge_nC_cm2: the same of charge.
        decision_s: length of a decision (s).
        amplitude_uA_cm2: of the pulse that continuous 130 Hz is counted with.
        width_ms: of a pulse in the plant.
        target: P_beta that tracking aims at: the 75th percentile of healthy beta.

    Returns:
        ``tracking_error_percent`` (mean P_beta above the target, untreated = 100; None where untreated never is),
        ``time_above_target_percent`` (of decisions), ``pulse_hz``, ``time_on_percent`` (of decisions, those with a
        pulse), ``teed_uW`` (mean power into 1 kΩ), ``teed_percent_of_130Hz``, ``suppression_efficiency`` (% of
        untreated beta removed for each % of 130 Hz's charge; None without a pulse).
    """
    own, without = np.asarray(beta, np.float64), np.asarray(untreated, np.float64)
    error, reference = excess(own, target), excess(without, target)
    given = np.asarray(pulses, np.float64)
    hz = float(given.mean() / decision_s)
    removed = 100.0 * float(np.mean(1.0 - own.mean(axis=1) / without.mean(axis=1)))
    power = float(power_uW(pulses, charge_nC_cm2, width_ms, decision_s).mean())
    whole = CONTINUOUS_HZ * pulse_energy_uJ(amplitude_uA_cm2, width_ms)
    charge = float(np.asarray(charge_nC_cm2, np.float64).mean() / decision_s)  # nC/cm² a second
    share = 100.0 * charge / (CONTINUOUS_HZ * amplitude_uA_cm2 * width_ms)
    return {
        "target_P_beta": target,
        "tracking_error_percent": 100.0 * error / reference if reference > 0.0 else None,
        "time_above_target_percent": 100.0 * float((own > target).mean()),
        "pulse_hz": hz,
        "time_on_percent": 100.0 * float((given > 0).mean()),
        "teed_uW": power,
        "teed_percent_of_130Hz": 100.0 * power / whole,
        "suppression_efficiency": removed / share if hz > 0.0 else None,
    }
