"""What the plant refuses: each by one sentence that names the value and what is allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.config import env_config
from envs.errors import UserError
from envs.patients import sample_cohort
from envs.plant.batch import BatchPlant
from envs.plant.network import Plant
from envs.plant.ranges import LARGEST, check_network
from envs.plant.single import FastPlant
from envs.plant.state import draw_network
from envs.stimulation import CurrentBuilder, Pulse, regular_train

NETWORK = draw_network(np.random.default_rng(0))


def test_a_batch_of_mixed_steps_is_refused() -> None:
    with pytest.raises(UserError, match=r"network 0 asks for 0\.02 ms and network 2 for 0\.01 ms"):
        BatchPlant([NETWORK] * 3, dt_ms=[0.02, 0.02, 0.01])
    assert BatchPlant([NETWORK] * 2, dt_ms=[0.01, 0.01]).dt_ms == 0.01


def _with(field: str, value: float) -> Any:
    values = np.array(getattr(NETWORK, field), dtype=np.float64)
    values.flat[-1] = value
    changed: dict[str, Any] = {field: values if values.shape else float(values)}
    return NETWORK._replace(**changed)


@pytest.mark.parametrize("field", LARGEST)
@pytest.mark.parametrize("value", [-0.01, 100.0, np.nan, np.inf])
def test_a_conductance_out_of_range_is_named_by_every_kernel(field: str, value: float) -> None:
    wrong = _with(field, value)
    sentence = rf"^{field} of the network is {value:g}.*: allowed are 0 to [0-9.]+$"
    with pytest.raises(UserError, match=sentence):
        Plant(wrong)
    with pytest.raises(UserError, match=sentence):
        FastPlant(wrong)
    with pytest.raises(UserError, match=f"^{field} of network 1 is {value:g}"):
        BatchPlant([NETWORK, wrong])


def test_a_wrong_voltage_wiring_or_shape_is_named() -> None:
    with pytest.raises(UserError, match=r"v0 of the network is -150 mV: allowed are -120 to 60"):
        check_network(_with("v0", -150.0))
    perm = NETWORK.perm.copy()
    perm[7] = perm[7][0]
    with pytest.raises(UserError, match=r"row 7 of perm of the network is .* expected each of 0 to 9 once"):
        check_network(NETWORK._replace(perm=perm))
    with pytest.raises(UserError, match=r"g_ctx_d1 of the network has shape \(9,\): expected \(10,\)"):
        check_network(NETWORK._replace(g_ctx_d1=NETWORK.g_ctx_d1[:9]))
    with pytest.raises(UserError, match=r"g_m of the network has shape \(2,\): expected \(\)"):
        check_network(NETWORK._replace(g_m=np.ones(2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [Plant, FastPlant, lambda network: BatchPlant([network])])
@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("g_m", "a", r"g_m of .* is 'a': expected numbers"),
        ("g_m", None, r"g_m of .* is None: expected numbers"),
        ("g_m", True, r"g_m of .* is True: expected numbers"),
        ("g_m", 1j, r"g_m of .* is 1j: expected numbers"),
        ("g_ctx_d1", ["a"] * 10, r"g_ctx_d1 of .* is of type <U1: expected numbers, shape \(10,\)"),
        ("g_gpe_gpe", [[1.0], [1.0, 2.0]], r"g_gpe_gpe of .* has no shape: expected \(10,\)"),
        ("v0", np.full((6, 10), None), r"v0 of .* is of type object: expected numbers"),
        ("perm", NETWORK.perm.astype(float), r"perm of .* is of type float64: expected whole numbers 0 to 9"),
    ],
)
def test_a_parameter_that_is_no_number_is_named(make: Any, field: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make(NETWORK._replace(**{field: value}))


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("beta_threshold", np.inf, "less than or equal to 100"),
        ("beta_threshold", np.nan, "less than or equal to 100"),
        ("beta_threshold", 0.0, "greater than 0"),
        ("episode_steps", 10**30, "less than or equal to 1000000"),
        ("episode_steps", 0, "greater than or equal to 1"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_range(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=f"'{key}' in the environment is .*: input should be {sentence}"):
        env_config(**{key: value})


def test_a_refused_network_leaves_the_batch_as_it_was() -> None:
    plant = BatchPlant([NETWORK, NETWORK])
    before = plant.V
    with pytest.raises(UserError):
        plant.put(1, _with("g_m", -1.0))
    np.testing.assert_array_equal(plant.V, before)
    plant.advance(np.zeros((2, 50)), np.zeros((2, 50)))


def test_every_patient_of_a_cohort_is_within_the_ranges() -> None:
    for patient in sample_cohort(24, seed=0).patients:
        check_network(patient.network())


@pytest.mark.parametrize(
    ("pulses", "sentence"),
    [
        ([Pulse(0, 300.0, 0.3), Pulse(280, 300.0, 0.3)], "the pulse at 280 µs overlaps an earlier pulse"),
        ([Pulse(0, np.nan, 0.3)], "no finite amplitude and width"),
        ([Pulse(0, 300.0, np.inf)], "no finite amplitude and width"),
        ([Pulse(0, 300.0, 0.31)], "no whole number of plant samples"),
    ],
)
def test_pulses_that_cannot_be_delivered_are_refused(pulses: list[Pulse], sentence: str) -> None:
    builder = CurrentBuilder(0.02)
    for pulse in pulses[:-1]:
        builder.add(pulse)
    with pytest.raises(UserError, match=sentence):
        builder.add(pulses[-1])


def test_a_pulse_as_long_as_its_slot_is_refused() -> None:
    with pytest.raises(UserError, match=r"a pulse of 8 ms is not shorter than its slot of 7\.69\d+ ms at 130 Hz"):
        regular_train(130.0, 1_000, 0.02, pulse=Pulse(0, 300.0, 8.0))
    with pytest.raises(UserError, match=r"'width_ms'.*less than or equal to 2"):
        env_config(stim_hz=50.0, width_ms=20.0)
