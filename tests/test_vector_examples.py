"""The examples of docs/plant.md, as a reader runs them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import envs
from envs.plant.state import draw_network
from envs.registration import base_env

ROOT = Path(__file__).parent.parent
SHORT: dict[str, Any] = {"slots": 5, "window_ms": 150.0, "stride_ms": 20.0, "n_obs": 6, "settle_ms": 260.0}


def test_the_environment_with_one_parameter_changed_differs_in_that_alone() -> None:
    runpy.run_path(str(ROOT / "examples" / "changed_parameter.py"))
    changed = gymnasium.make("examples/WeakHyperdirect-v0", **SHORT)
    plain = gymnasium.make(envs.ENV_ID, **SHORT)
    first, _ = changed.reset(seed=4)
    assert first.shape == (6,)
    plain.reset(seed=4)
    ours, theirs = base_env(changed).ready().network, base_env(plain).ready().network
    drawn = draw_network(np.random.default_rng(4), pd=1.0)
    for name, value in ours._asdict().items():
        factor = 0.5 if name == "g_ctx_stn_ampa" else 1
        np.testing.assert_array_equal(value, factor * getattr(drawn, name), err_msg=name)
    assert theirs.g_ctx_stn_ampa.max() > 0.15  # no network of the model itself is so weakly driven
    observation, *_ = changed.step(np.ones(5, np.int8))
    assert np.isfinite(observation).all()


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "plant.md").read_text()
    code = (ROOT / "examples" / "changed_parameter.py").read_text()
    shown = page.split("```python\n")[1].split("```")[0]
    assert shown.strip() in code
    for picture in ("plant.png", "equivalence.png"):
        assert f"]({picture})" in page
        assert (ROOT / "docs" / picture).is_file()
