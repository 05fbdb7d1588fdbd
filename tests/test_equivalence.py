"""Equivalence: known answers on planted data, verdicts of the tests, and a small run on the real plant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from envs.equivalence import (
    ALL,
    CONDITIONS,
    Measures,
    Row,
    compare,
    correlation_peak,
    interval,
    interval_cv,
    margin_of,
    measure,
    simulate,
)
from envs.errors import UserError
from envs.plant.common import POPULATIONS
from envs.plant.network import Record
from sea_dbs.cli.app import app

DT = 0.02


def _runs(n: int = 40, *, rate: float = 20.0, shift: float = 0.0, noise: float = 0.3, seed: int = 0) -> list[Measures]:
    """One measure of n runs: networks differ much, the pairs by ``shift`` and a little noise."""
    network = np.random.default_rng(1).normal(rate, 5.0, n)
    own = np.random.default_rng(seed).normal(shift, noise, n)
    return [{"rate gpe": float(x), "rate gpi": float(x)} for x in network + own]


def _row(rows: list[Row], condition: str, name: str) -> Row:
    return next(row for row in rows if (row.condition, row.measure) == (condition, name))


def test_the_interval_is_students() -> None:
    values = np.array([1.0, 2.0, 4.0, 5.0, 9.0])
    mean, low, high = interval(values)
    expected = stats.t.interval(0.90, 4, loc=values.mean(), scale=stats.sem(values))
    assert (mean, low, high) == pytest.approx((values.mean(), *expected))


def test_pairing_finds_equivalence_that_the_spread_of_networks_would_hide() -> None:
    rows = compare({"pd": _runs()}, {"pd": _runs(seed=2)})
    row = _row(rows, "pd", "rate gpe")
    assert row.equivalent
    assert row.margin == pytest.approx(0.03 * row.reference)
    assert row.high - row.low < 0.3  # unpaired it would be 3.7 Hz


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, True), (0.3, True), (0.59, False), (0.9, False), (-0.9, False)])
def test_a_shift_past_the_margin_is_found_and_one_near_it_is_not_waved_through(shift: float, verdict: bool) -> None:
    rows = compare({"pd": _runs(noise=0.0)}, {"pd": _runs(shift=shift, seed=3)})
    assert _row(rows, "pd", "rate gpe").equivalent is verdict


def test_too_few_data_are_no_equivalence() -> None:
    rows = compare({"pd": _runs(3)}, {"pd": _runs(3, noise=2.0, seed=4)})
    assert not _row(rows, "pd", "rate gpe").equivalent


def test_half_of_the_alternatives_at_the_margin_pass_in_one_of_twenty() -> None:
    """The error of the test itself: a true difference at the margin passes in 5 % of the experiments."""
    passed = 0
    for seed in range(400):
        differences = np.random.default_rng(seed).normal(0.05, 0.1, 40)
        a = [{"CV gpe": 0.5, "rate gpe": 1.0, "rate gpi": 1.0}] * 40
        b = [{**run, "CV gpe": 0.5 + float(d)} for run, d in zip(a, differences, strict=True)]
        passed += _row(compare({"pd": a}, {"pd": b}), "pd", "CV gpe").equivalent
    assert 6 <= passed <= 38  # 20 are expected; ± 4 sd


def test_small_shifts_of_all_conditions_together_are_found() -> None:
    """1 % everywhere is inside each condition's 3 %, and outside the 0.5 % of all."""
    reference = {name: _runs(noise=0.0) for name in CONDITIONS}
    candidate = {name: _runs(shift=0.2, seed=i) for i, name in enumerate(CONDITIONS)}
    rows = compare(reference, candidate)
    assert all(_row(rows, name, "rate gpe").equivalent for name in CONDITIONS)
    pooled = _row(rows, ALL, "rate gpe, relative")
    assert not pooled.equivalent
    assert pooled.difference == pytest.approx(0.01, abs=0.003)


def test_silence_is_left_out_in_both_and_an_error_in_one() -> None:
    nan = float("nan")
    base: list[Measures] = [{"rate gpe": 20.0, "rate gpi": 30.0, "CV d1": nan} for _ in range(10)]
    assert "CV d1" not in {row.measure for row in compare({"con": base}, {"con": base})}
    known: list[Measures] = [{**run, "CV d1": 0.5} for run in base]
    row = _row(compare({"con": known}, {"con": base}), "con", "CV d1")
    assert not row.equivalent
    with pytest.raises(UserError, match="two pairs or more"):
        compare({"con": base[:1]}, {"con": base[:1]})


def test_margins_are_those_of_the_documentation() -> None:
    assert margin_of("rate stn", 130.0) == pytest.approx(3.9)
    assert margin_of("rate d2", 4.0) == pytest.approx(0.2)
    assert margin_of("P_beta", 440.0) == pytest.approx(22.0)
    assert margin_of("CV gpi", 0.9) == 0.05
    assert margin_of("peak gpe-gpi", 1.3) == pytest.approx(0.13)


def test_intervals_of_known_variability() -> None:
    regular = np.array([(s, k) for k in range(10) for s in range(0, 100_000, 1_000)])
    assert interval_cv(regular) == pytest.approx(0.0)
    two = np.cumsum(np.tile([500, 1_500], 50))  # intervals 500 and 1500: sd 500, mean 1000
    assert interval_cv(np.stack([two, np.zeros_like(two)], axis=1)) == pytest.approx(0.5, abs=0.01)
    assert np.isnan(interval_cv(regular[regular[:, 0] < 5_000]))


def test_correlation_peak_of_trains_with_a_known_lag() -> None:
    rng = np.random.default_rng(0)
    n = 5_000_000
    source = np.sort(rng.integers(1, n - 10_000, 2_000))
    follower = source + 500  # 10 ms later, each one
    independent = np.sort(rng.integers(1, n, 2_000))
    # 2000 events in 100,000 bins: chance 0.02; each coincidence is spread over 5 bins, so 1/(5·0.02) plus chance 1
    assert correlation_peak(source, follower, 0, n, DT) == pytest.approx(11.0, rel=0.1)
    assert correlation_peak(source, independent, 0, n, DT) == pytest.approx(1.0, abs=0.5)
    assert correlation_peak(follower, source, 0, n, DT) < 2.0  # the cause does not follow
    assert np.isnan(correlation_peak(source, np.zeros(0, np.int64), 0, n, DT))


def test_rates_count_only_what_lies_between_the_samples() -> None:
    samples = np.arange(0, 150_000, 5_000)  # 10 Hz for 3 s, in one cell of each population
    events = np.array([(s, p, 0) for s in samples for p in range(8)])
    spikes = np.stack([samples, np.zeros_like(samples)], axis=1)
    found = measure(Record(events, spikes), 25_000, 125_000, DT)
    assert [found[f"rate {name}"] for name in POPULATIONS] == pytest.approx([1.0] * 8)
    assert found["CV th"] == pytest.approx(0.0)


def test_runs_are_paired_whatever_the_grouping() -> None:
    alone = [run for group in simulate("pd", [1003], 1.0, "float64") for run in group]
    together = [run for group in simulate("pd", range(1000, 1010), 1.0, "float64", threads=2) for run in group]
    assert len(together) == 10
    assert together[3] == pytest.approx(alone[0], nan_ok=True)
    other = [run for group in simulate("pd", [1003], 1.0, "float64", change=0.05) for run in group]
    assert other[0] != pytest.approx(alone[0], nan_ok=True)
    with pytest.raises(UserError, match="unknown condition"):
        next(simulate("park", [1], 1.0, "float64"))
    with pytest.raises(UserError, match="--seconds"):
        next(simulate("pd", [1], 0.5, "float64"))


def test_the_command_reports_refuses_and_draws(tmp_path: Path) -> None:
    """Too little data for a verdict: it must say so with exit code 1, not pass."""
    runner = CliRunner()
    out = tmp_path / "equivalence"
    arguments = ["verify-plant", "--statistics", "--seeds", "4", "--seconds", "1", "--out", str(out), "--json"]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 1, done.output
    result = json.loads((out / "equivalence.json").read_text())
    assert not result["equivalent"]
    assert result["planted_change_found"]
    assert {row["condition"] for row in result["rows"]} == {*CONDITIONS, ALL}
    assert (out / "equivalence.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for wrong, words in (
        (["verify-plant"], "nothing to verify"),
        (["verify-plant", "--statistics", "--seeds", "1"], "--seeds from 2"),
        (["verify-plant", "tests/golden", "--out", "x"], "--out"),
        (["verify-plant", "tests/golden", "--statistics", "--json"], "not both"),
    ):
        refused = runner.invoke(app, wrong)
        assert refused.exit_code != 0
        assert words in str(refused.exception) + refused.output
