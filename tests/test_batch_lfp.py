"""The LFP proxy of the fast kernel against its definition on the scalar kernel."""

from __future__ import annotations

import numpy as np
import pytest

from envs.plant.batch import BatchPlant
from envs.plant.inputs import SmcRenewal
from envs.plant.single import FastPlant
from envs.plant.state import Network, draw_network
from envs.stimulation import regular_train
from envs.watch import WatchedPlant

DT = 0.02
N = 30_000  # 600 ms


def _network(seed: int) -> Network:
    return draw_network(np.random.default_rng(seed))


def _smc(seed: int, n: int = N) -> np.ndarray:
    return SmcRenewal(np.random.default_rng(seed), DT).take(n)


@pytest.mark.parametrize("hz", [0.0, 130.0])
def test_it_is_the_definition_on_the_scalar_kernel(hz: float) -> None:
    smc, dbs = _smc(1, N + 1), regular_train(hz, N + 1, DT)
    scalar = WatchedPlant(_network(3))
    scalar.advance(smc, dbs)
    record = FastPlant(_network(3)).advance(smc, dbs)
    # The fast kernel records where it starts from too: sample 0, before any event.
    assert record.lfp[0] == 0.0
    np.testing.assert_array_equal(record.lfp_samples[1:], scalar.watched.lfp_samples)
    np.testing.assert_allclose(record.lfp[1:], scalar.watched.lfp, rtol=1e-9, atol=1e-9)
    assert record.lfp.max() > 10.0


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_every_network_of_a_batch_keeps_its_own_milliseconds(precision: str) -> None:
    networks = [_network(seed) for seed in range(10)]
    smc, dbs = np.stack([_smc(seed) for seed in range(10)]), np.zeros((10, N))
    whole = BatchPlant(networks, precision=precision)
    expected = whole.advance(smc, dbs)
    # Split where no millisecond ends; restore, so that the networks' clocks and the blocks' differ; replace one.
    first = BatchPlant(networks, precision=precision)
    cut = 12_345
    before = first.advance(smc[:, :cut], dbs[:, :cut])
    again = BatchPlant.from_state(first.get_state())
    again.put(4, networks[4])
    after = again.advance(smc[:, cut:], dbs[:, cut:])
    for i in range(10):
        if i == 4:
            assert after[i].lfp_samples.tolist() == list(range(0, N - cut, 50))
            continue
        np.testing.assert_array_equal(np.concatenate([before[i].lfp, after[i].lfp]), expected[i].lfp)
        assert [*before[i].lfp_samples, *after[i].lfp_samples] == list(range(0, N, 50))


def test_float32_gives_the_same_potential_while_the_spikes_are_the_same() -> None:
    smc = _smc(5, 2_000)[None]
    dbs = np.zeros((1, 2_000))
    potentials = [BatchPlant([_network(8)], precision=p).advance(smc, dbs)[0].lfp for p in ("float64", "float32")]
    np.testing.assert_allclose(potentials[1], potentials[0], rtol=1e-3, atol=1e-3)
