"""Settings: what is shipped, and how a wrong one is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from envs.config import PRESETS, env_config
from envs.errors import UserError
from sea_dbs.config import ENV_KEYS, EVOLUTION_KEYS, TrainConfig, differing_keys, load_config, preset_names

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "sea_dbs" / "presets"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_example_at_the_root_is_the_shipped_preset(path: Path) -> None:
    assert (ROOT / "configs" / path.name).read_bytes() == path.read_bytes()
    assert load_config(path.stem) == load_config(ROOT / "configs" / path.name)


def test_there_is_a_preset_for_each_environment_and_no_example_without_one() -> None:
    assert set(PRESETS) <= set(preset_names())
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} == set(preset_names())
    assert all(load_config(name).preset == name for name in PRESETS)


def test_paper_yaml_holds_every_key_and_names_its_source() -> None:
    text = (SHIPPED / "paper.yaml").read_text()
    settings = [line for line in text.splitlines() if line and not line.startswith("#")]
    own = set(TrainConfig.model_fields) - set(EVOLUTION_KEYS)  # those of another learner
    assert {line.partition(":")[0] for line in settings} == own
    assert all(re.search(r"# \S+", line) for line in settings)


def test_paper_yaml_has_the_values_of_table_1() -> None:
    config = load_config("paper")
    assert (config.actor_lr, config.critic_lr, config.gamma) == (5e-4, 1e-3, 0.99)
    assert (config.buffer_size, config.batch_size, config.dt_ms) == (8192, 32, 0.02)
    assert (config.episodes, config.episode_steps, config.beta_threshold) == (150, 30, 0.35)
    assert config.critic_target == "printed"


def test_a_loaded_config_says_what_the_environment_preset_decides() -> None:
    config = load_config("realtime")
    world = env_config("realtime")
    assert {key: getattr(config, key) for key in ENV_KEYS} == {key: getattr(world, key) for key in ENV_KEYS}
    assert env_config(config.preset, **config.env_overrides()) == world


def test_the_written_config_reads_back_equal(tmp_path: Path) -> None:
    config = load_config("paper", ["seed=3", "episodes=20", "gamma=0.95", "actor_lr=5e-4"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    again = load_config(tmp_path / "config.yaml")
    assert again == config
    assert again.sha256() == config.sha256() != load_config("paper").sha256()
    assert (config.seed, config.episodes, config.gamma, config.actor_lr) == (3, 20, 0.95, 5e-4)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config("paper").gamma = 0.5  # type: ignore[misc]


def test_differing_keys_are_named_with_both_values() -> None:
    assert differing_keys(load_config("paper"), load_config("paper", ["gamma=0.9", "seed=1"])) == [
        "seed (0 there, 1 now)",
        "gamma (0.99 there, 0.9 now)",
    ]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("gama=0.9", ["'gama'", "0.9", "'gamma'", "from 0"]),
        ("sede=3", ["'sede'", "3", "'seed'", "up to 99999"]),
        ("gamma=1.5", ["gamma=1.5", "from 0 and below 1"]),
        ("episodes=0", ["episodes=0", "a whole number from 1 up to 10000"]),
        ("episodes=many", ["episodes=many", "a whole number"]),
        ("gamma=.nan", ["gamma=nan"]),
        ("critic_target=doubled", ["doubled", "one of printed, mean, none"]),
        ("preset=papper", ["papper", "one of paper"]),
        ("slots=1000", ["slots=1000", "from 1 up to 256"]),
        ("dt_ms=1.5", ["dt_ms", "1.5"]),
        ("batch_size=4096", ["batch_size=4096", "buffer_size=100"]),
        ("tau_min=2", ["tau_min=2", "tau_0=1"]),
        ("episodes", ["'episodes'", "KEY=VALUE"]),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(setting: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config("paper", [setting, "buffer_size=100"])
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert all(word in sentence for word in words), sentence


@given(value=st.floats(allow_nan=False).filter(lambda value: not 0 <= value < 1))
def test_any_discount_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="'gamma' takes a number from 0 and below 1"):
        load_config("paper", [f"gamma={value!r}"])


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1\n", "5", "seed: 1\nseed: 2\n", "? [1, 2]\n: 3\n", "3: 4\n"])
def test_a_file_that_is_not_flat_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.yaml is not flat YAML"):
        load_config(path)


def test_a_missing_file_is_refused_with_the_presets_named() -> None:
    with pytest.raises(UserError, match=r"there is no config file nowhere\.yaml .*paper"):
        load_config("nowhere.yaml")
