"""The field's measures, by hand."""

from __future__ import annotations

import pytest

from sea_dbs.measures import excess, field_measures, pulse_energy_uJ


def test_measures_of_two_plants_by_hand() -> None:
    found = field_measures(
        [[350.0, 330.0], [300.0, 380.0]],
        [[440.0, 440.0], [400.0, 480.0]],
        [[5, 0], [5, 0]],
        [[450.0, 0.0], [225.0, 0.0]],
        decision_s=1.0,
        amplitude_uA_cm2=300.0,
        width_ms=0.3,
        target=340.0,
    )
    assert found["tracking_error_percent"] == pytest.approx(100.0 * (10 + 40) / (100 + 100 + 60 + 140))
    assert excess([350.0, 330.0], 340.0) == 5.0
    assert found["time_above_target_percent"] == 50.0
    assert found["pulse_hz"] == 2.5
    assert found["time_on_percent"] == 50.0
    assert found["teed_uW"] == pytest.approx(
        2.5 * 0.54 * (1 + 1 / 4) / 2
    )  # the second plant's pulses are half as strong
    assert found["teed_percent_of_130Hz"] == pytest.approx(100 * 2.5 / 130 * (1 + 1 / 4) / 2)
    removed = 100.0 * (1 - (340 / 440 + 340 / 440) / 2)
    assert found["suppression_efficiency"] == pytest.approx(removed / (100 * 2.5 / 130 * 0.75))


def test_a_plant_that_never_is_above_the_target_has_no_tracking_error() -> None:
    calm = [[300.0, 310.0]]
    found = field_measures(calm, calm, [[0, 0]], [[0.0, 0.0]], decision_s=1.0, amplitude_uA_cm2=300.0, width_ms=0.3)
    assert found["tracking_error_percent"] is None
    assert found["suppression_efficiency"] is None


def test_energy_goes_with_the_square_of_the_amplitude() -> None:
    assert pulse_energy_uJ(300.0, 0.3) == pytest.approx(0.54)
    assert pulse_energy_uJ(150.0, 0.3) == pytest.approx(0.54 / 4)
