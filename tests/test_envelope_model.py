"""The compiled core, model-checked to closure; and broken cores, in which the checker finds what is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model_check import check, compile_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("arguments", [(), ("fixed",)], ids=["ramp to 0", "fixed setting"])
def test_no_state_of_the_core_leads_outside_the_envelope(model: Path, arguments: tuple[str, ...]) -> None:
    done = check(model, *arguments)
    assert done.returncode == 0, done.stdout
    words = done.stdout.split()
    assert words[0] == "closed:"
    assert int(words[1]) > 10_000
    assert "by 24 events" in done.stdout


@pytest.mark.parametrize(
    ("flags", "right", "wrong", "verdict"),
    [
        (("-DSEA_TEST_BUILD", "-DSEA_BROKEN_RAMP"), "", "", "the set point moved faster than the ramp"),
        (("-DSEA_TEST_BUILD", "-DSEA_BROKEN_LEASE"), "", "", "past the lease"),
        (("-DSEA_TEST_BUILD", "-DSEA_BROKEN_BALANCE"), "", "", "charge is not balanced"),
        ((), "const uint8_t after = ", "const uint8_t after = before == 5 && event == 1 ? 1 : ", "SAFE_OFF was left"),
        ((), "after != SEA_STATE_CLOSED_LOOP && !fixed);", "false);", "the electrode is grounded where"),
        (
            (),
            "energy_aJ + energy_aJ(envelope, amplitude_uA, width_us) <= cap",
            "energy_aJ <= cap + 1",
            "the dose is above its cap",
        ),
        ((), "cause = SEA_CAUSE_OPEN;", "cause = 0;", "a fault of the output did not lead to SAFE_OFF"),
        ((), "core->armable = false; /*", "/*", "armed without a fresh handshake"),
        ((), "sum(core) != core->seal", "false", "changed memory did not lead to SAFE_OFF"),
    ],
    ids=["ramp", "lease", "balance", "SAFE_OFF", "ground", "dose", "open", "armable", "memory"],
)
def test_a_broken_core_is_found(tmp_path: Path, flags: tuple[str, ...], right: str, wrong: str, verdict: str) -> None:
    done = check(compile_model(tmp_path, flags, right, wrong))
    assert done.returncode == 1, done.stdout
    assert verdict in done.stdout
    assert done.stdout.startswith("violation: ")
