"""The cache of compiled kernels: what changes its key, and what does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envs import jit

FILES = {
    "__init__.py": "from envs import other\n",
    "other.py": "A = 1\n",
    "constants.py": "C = 1.0\n",
    "plant/__init__.py": "",
    "plant/rates.py": "from envs.constants import C\n",
    "plant/near.py": "def late():\n    from . import deep\n    return deep\n",
    "plant/deep.py": "from ..constants import C\nimport numpy\n",
    "plant/kernel.py": "from envs.plant import rates\nimport envs.plant.near\n",
    "plant/outside.py": "from envs.plant import kernel\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "envs" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return tmp_path


def _key(root: Path) -> str:
    for cached in (jit._imports, jit.sources, jit.cache_key):
        cached.cache_clear()
    return jit.cache_key("envs.plant.kernel", root)


def test_a_kernel_reads_its_module_and_what_that_imports(root: Path) -> None:
    _key(root)
    found = [path.name for path in jit.sources("envs.plant.kernel", root)]
    assert found == ["constants.py", "deep.py", "kernel.py", "near.py", "rates.py"]


@pytest.mark.parametrize("name", ["constants.py", "plant/deep.py", "plant/kernel.py", "plant/near.py"])
def test_an_edit_of_anything_that_a_kernel_reads_is_noticed(root: Path, name: str) -> None:
    before = _key(root)
    with (root / "envs" / name).open("a") as file:
        file.write("# one word\n")
    assert _key(root) != before


@pytest.mark.parametrize("name", ["other.py", "plant/outside.py", "__init__.py"])
def test_an_edit_elsewhere_recompiles_nothing(root: Path, name: str) -> None:
    before = _key(root)
    (root / "envs" / name).write_text("# another file\n")
    assert _key(root) == before


def test_the_width_of_vectors_is_part_of_the_key(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _key(root)
    monkeypatch.setenv("SEA_DBS_VECTOR_BYTES", "16")
    assert _key(root) != before


def test_the_plant_kernels_read_the_nuclei_but_not_the_environment() -> None:
    _key(jit._ROOT)
    names = {path.name for path in jit.sources("envs.plant.batch_kernel")}
    assert {"stn.py", "synapses.py", "reference.py", "batch_derive.py", "batch_vector.py", "jit.py"} <= names
    assert not names & {"batch.py", "batch_block.py", "network.py", "basal_ganglia.py", "multitaper.py", "__init__.py"}


def test_the_next_process_compiles_nothing() -> None:
    program = (
        "import numpy as np\n"
        "from envs.biomarkers.multitaper import beta_trace\n"
        "from envs.plant.batch import BatchPlant\nfrom envs.plant.single import FastPlant\n"
        "from envs.plant.state import draw_network\n"
        "network = draw_network(np.random.default_rng(0))\n"
        "FastPlant(network), BatchPlant([network], precision='float32')\n"
        "spikes = np.array([[100 * i, i % 10] for i in range(500)])\n"
        "for fixed in (True, False):\n"
        "    beta_trace(spikes, np.array([0]), 50_000, 0.02, fixed_grid=fixed)\n"
        "from numba.core.dispatcher import Dispatcher\n"
        "from envs.plant import batch, state\n"
        "from envs.biomarkers import multitaper, sliding\n"
        "kernels = [*batch._KERNELS.values(), state._steady_gates, multitaper._trace, sliding.sliding_power]\n"
        "assert all(isinstance(k, Dispatcher) for k in kernels)\n"
        "print(sum(sum(k.stats.cache_misses.values()) for k in kernels), len(kernels))\n"
    )
    command = [sys.executable, "-c", program]
    # The first process fills the cache where it is empty; the second one must find everything in it.
    outputs = [subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True) for _ in range(2)]
    assert outputs[1].stdout.split() == ["0", "5"]
