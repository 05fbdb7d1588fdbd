"""`sea-dbs parity`: the exported policy on compilers and boards, bit by bit; a difference is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from learn_toy import ToyEnv
from typer.testing import CliRunner

from envs.errors import UserError
from export import chain, witness
from export.run import Settings as ExportSettings
from export.run import export_source
from export.source import read_run
from firmware_bridge.images import policy_source, table_bytes
from firmware_bridge.parity.energy import estimate
from firmware_bridge.parity.measure import Settings, compare_boards
from firmware_bridge.parity.tables import markdown
from sea_dbs.cli.app import app

SMALL = Settings(boards=("host", "qemu-m55"), real=40, adversarial=40, floats=8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    witness.write(folder / "run", actor="compact", quiet=True, env_factory=ToyEnv)
    settings = ExportSettings(closed_loop_seeds=0, quiet=True, env_factory=ToyEnv, compare_other=False, targets=("c",))
    export_source(read_run(folder / "run"), folder / "export", settings)
    return folder / "export"


def test_every_target_has_the_reference_bits(exported: Path, tmp_path: Path) -> None:
    result = compare_boards(exported, tmp_path / "out", SMALL, quiet=True)
    assert result["all_bit_equal"]
    by_format = {name: [row["target"] for row in result["rows"] if row["format"] == name] for name in ("int8", "fp16")}
    hosts = ["host-gcc-O0", "host-gcc-O3", "host-clang-O0", "host-clang-O3"]
    assert by_format == {"int8": [*hosts, "qemu-m55"], "fp16": ["qemu-m55"]}
    for row in result["rows"]:
        assert row["decisions_alike"] >= 0.99 * row["decisions"]
        assert row["observations"] == (80 if row["format"] == "int8" else 16)
    with np.load(tmp_path / "out" / "board_observations.npz") as seen:
        assert len(np.unique(seen["real"], axis=0)) == 40  # 32 plants, two decisions: all of them different
        assert seen["adversarial"].min() == -128
        assert seen["adversarial"].max() == 127
    on_board = next(row for row in result["cost"] if row["board"] == "qemu-m55" and row["format"] == "int8")
    assert on_board["policy_flash_bytes"] <= 64_000
    assert on_board["policy_ram_bytes"] <= 16_000
    assert on_board["stack_bytes"] <= 2_000
    assert on_board["instructions"] <= 400_000
    table = markdown(result)
    assert "| int8 | qemu-m55 | 40 of 40 | 40 of 40 |" in table

    again = compare_boards(exported, tmp_path / "out", SMALL, resume=True, quiet=True)
    assert again["rows"] == result["rows"]


def test_a_policy_that_computes_otherwise_is_found(exported: Path, tmp_path: Path) -> None:
    other = tmp_path / "export"
    shutil.copytree(exported, other)
    source = policy_source(other, "int8")
    text = source.read_text()
    first = text.index("static const int32_t BIAS_2[16] = {")
    number = text.index("{", first) + 1
    place = next(i for i in range(number, len(text)) if text[i] in "-0123456789")
    source.write_text(text[:place] + "9" + text[place:].lstrip("-"))  # another bias of the first layer
    with pytest.raises(UserError, match="broken at the link 'source'"):
        compare_boards(other, tmp_path / "a", SMALL, quiet=True)
    chain.write(other)  # and even where the chain is made to fit, nothing of it is compiled
    call = ["parity", str(other), "--boards", "host", "--real", "4", "--adversarial", "4", "--floats", "1"]
    done = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "b")])
    assert isinstance(done.exception, UserError)
    assert "is not what this version makes of the ONNX file" in str(done.exception)
    assert not (tmp_path / "b").exists()
    small = Settings(boards=("host",), real=4, adversarial=4, floats=1)
    result = compare_boards(other, tmp_path / "c", small, quiet=True, own_source=True)
    assert not result["all_bit_equal"]
    assert [row["bit_equal"] for row in result["rows"] if row["format"] == "int8"] == [False] * 4
    assert all(row["bit_equal"] for row in result["rows"] if row["format"] != "int8")


def test_a_missing_tool_is_named_before_a_plant_is_simulated(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware_bridge.parity.measure.real_observations", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    for board, words in (("host", "gcc was not found"), ("qemu-m4f", "arm-none-eabi-gcc was not found")):
        with pytest.raises(UserError, match=words):
            compare_boards(exported, tmp_path / "out", Settings(boards=(board,)), quiet=True)


def test_tables_of_every_format_are_counted(exported: Path) -> None:
    sizes = {name: table_bytes(policy_source(exported, name).read_text()) for name in ("int8", "fp32", "fp16")}
    weights = 36_932
    assert weights < sizes["int8"][0] < 1.1 * weights
    assert sizes["fp32"][0] == 4 * weights
    assert sizes["fp16"][0] == 2 * weights
    assert all(0 < ram < 16_000 for _, ram in sizes.values())


def test_energy_is_current_times_voltage_times_time() -> None:
    found = estimate(64_000)  # 1 ms at one cycle an instruction and 64 MHz: 52 µA/MHz · 64 MHz · 3 V = 9.984 mW
    assert found.low_ms == pytest.approx(1.0)
    assert found.low_uJ == pytest.approx(9.984)
    assert found.high_uJ == pytest.approx(2 * found.low_uJ)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(boards=("uno",)), "no board 'uno' to compare on: choose from host"),
        (Settings(boards=()), "no board was named"),
        (Settings(real=0), "--real is 0: from 1 to 100,000"),
    ],
)
def test_wrong_input_is_one_sentence(exported: Path, tmp_path: Path, settings: Settings, words: str) -> None:
    with pytest.raises(UserError, match=words):
        compare_boards(exported, tmp_path / "out", settings, quiet=True)


def test_an_export_without_an_integer_model_is_refused(exported: Path, tmp_path: Path) -> None:
    other = tmp_path / "export"
    shutil.copytree(exported, other)
    (other / "integer.npz").unlink()
    chain.write(other)
    with pytest.raises(UserError, match=r"holds no integer.npz: export the run again"):
        compare_boards(other, tmp_path / "out", SMALL, quiet=True)
