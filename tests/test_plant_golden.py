"""The plant against reference runs of the released code's equations: every spike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from envs.errors import UserError
from envs.npz import read_npz
from envs.verify import RUN_KEYS, oracle_files, oracle_inputs, oracle_network, verify
from sea_dbs.cli.app import app

GOLDEN = Path(__file__).parent / "golden"
FILES = oracle_files(GOLDEN)


def test_golden_set_is_complete() -> None:
    names = {file.name for file in FILES}
    conditions = ("con", "pd", "pd130", "pd50", "pd30")
    assert names == {f"s0_{c}_dt{dt}.npz" for c in conditions for dt in (10, 20)} | {"env_s0_short.npz"}


@pytest.mark.parametrize("kernel", ["fast", "reference"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_spike_voltage_and_beta_is_reproduced(file: Path, kernel: str) -> None:
    (row,) = verify([file], (kernel,))
    assert row.equal, row.first_difference
    assert row.spikes_equal
    assert row.max_dv_mV <= 1e-5
    assert row.beta_relative <= 1e-6


def _with(tmp_path: Path, name: str, **changes: np.ndarray) -> Path:
    """A copy of a golden file with some arrays changed."""
    with np.load(GOLDEN / name) as data:
        arrays = {key: data[key] for key in data.files}
    path = tmp_path / name
    np.savez(path, **{**arrays, **changes})
    return path


def _verify(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["verify-plant", str(folder), *options])


def test_command_reports_one_moved_spike(tmp_path: Path) -> None:
    spikes = read_npz(GOLDEN / "s0_pd_dt10.npz", RUN_KEYS)["spk_gpe"].copy()
    spikes[7, 0] += 1
    _with(tmp_path, "s0_pd_dt10.npz", spk_gpe=spikes)
    result = _verify(tmp_path, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["equal"] == 0
    assert report["rows"][0]["spikes_equal"] is False
    assert report["rows"][0]["first_difference"].startswith("gpe: ")


def test_command_reports_a_wrong_beta(tmp_path: Path) -> None:
    beta = read_npz(GOLDEN / "s0_pd_dt10.npz", RUN_KEYS)["beta_13_35"]
    _with(tmp_path, "s0_pd_dt10.npz", beta_13_35=beta * (1.0 + 2e-6))
    (row,) = verify(oracle_files(tmp_path), ("fast",))
    assert row.spikes_equal
    assert not row.equal


def test_unreadable_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        oracle_files(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no oracle file"):
        oracle_files(tmp_path)
    truncated = tmp_path / "s0_pd_dt20.npz"
    truncated.write_bytes((GOLDEN / truncated.name).read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cannot read .*s0_pd_dt20\.npz"):
        list(verify([truncated]))
    with np.load(GOLDEN / "s0_pd_dt10.npz") as data:
        np.savez(tmp_path / "s0_con_dt10.npz", **{k: data[k] for k in data.files if k != "smc_onset"})
    with pytest.raises(UserError, match="lacks the field 'smc_onset'"):
        list(verify([tmp_path / "s0_con_dt10.npz"]))


def test_pd_changes_exactly_three_things() -> None:
    data = read_npz(GOLDEN / "s0_pd_dt20.npz", RUN_KEYS)
    pd, healthy = oracle_network(data, 1.0), oracle_network(data, 0.0)
    assert (pd.g_m, healthy.g_m) == pytest.approx((1.5, 2.6))
    assert (pd.g_gpe_gpe_factor, healthy.g_gpe_gpe_factor) == (1.0, 0.25)
    con = read_npz(GOLDEN / "s0_con_dt20.npz", RUN_KEYS)
    np.testing.assert_allclose(con["g_ctx_d1"] - data["g_ctx_d1"], 0.044, rtol=1e-12)
    smc, dbs = oracle_inputs(data)
    assert smc.max() == 3.5
    assert dbs.max() == 0.0
