"""The fast kernel: the oracle's spikes at any batch size, lanes that know nothing of each other, exact restores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from envs import verify
from envs.errors import UserError
from envs.plant import batch_kernel
from envs.plant.batch import BatchPlant, NetworkFailedError
from envs.plant.batch_block import LOG_PER_LANE
from envs.plant.common import GPI, N_POPULATIONS, POPULATIONS, STN
from envs.plant.network import Plant, Record
from envs.plant.single import FastPlant
from envs.plant.state import Network, draw_network

GOLDEN = Path(__file__).parent / "golden"
CONDITIONS = ("con", "pd", "pd130", "pd50", "pd30")
N = 20_000  # samples of the tests that need no oracle: 400 ms


class Run:
    """One oracle file: network, inputs, spikes."""

    def __init__(self, condition: str, dt: str) -> None:
        with np.load(GOLDEN / f"s0_{condition}_{dt}.npz") as file:
            self.data = dict(file)
        self.dt_ms = float(self.data["dt_ms"])
        self.network = verify.oracle_network(self.data, float(self.data["pd"]))
        self.smc, self.dbs = verify.oracle_inputs(self.data)

    def check(self, record: Record) -> None:
        for population, name in enumerate(POPULATIONS):
            ours = record.events[record.events[:, 1] == population][:, [0, 2]]
            np.testing.assert_array_equal(_sorted(ours), self.data[f"spk_{name}"], err_msg=name)
        np.testing.assert_array_equal(_sorted(record.gpi_spikes), self.data["ap_gpi"])


def _sorted(spikes: NDArray[np.int64]) -> NDArray[np.int64]:
    return spikes[np.lexsort((spikes[:, 1], spikes[:, 0]))]


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Run]]:
    return {dt: [Run(condition, dt) for condition in CONDITIONS] for dt in ("dt10", "dt20")}


@pytest.mark.parametrize("dt", ["dt10", "dt20"])
@pytest.mark.parametrize("B", [3, 8, 11])
def test_every_oracle_spike_at_any_batch_size(runs: dict[str, list[Run]], dt: str, B: int) -> None:
    members = [runs[dt][i % len(CONDITIONS)] for i in range(B)]
    plant = BatchPlant([run.network for run in members], members[0].dt_ms)
    records = plant.advance(np.stack([run.smc for run in members]), np.stack([run.dbs for run in members]))
    for run, record in zip(members, records, strict=True):
        run.check(record)


@pytest.mark.parametrize("dt", ["dt10", "dt20"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_oracle_spike_of_one_network(runs: dict[str, list[Run]], condition: str, dt: str) -> None:
    run = runs[dt][CONDITIONS.index(condition)]
    run.check(FastPlant(run.network, run.dt_ms).advance(run.smc, run.dbs))


@pytest.mark.parametrize("dt", ["dt10", "dt20"])
def test_voltages_of_the_first_5_ms_are_the_oracles(runs: dict[str, list[Run]], dt: str) -> None:
    members = runs[dt]
    full = np.stack([run.data["v_full_5ms"] for run in members], axis=1)
    batch = BatchPlant([run.network for run in members], members[0].dt_ms)
    one = FastPlant(members[2].network, members[2].dt_ms)
    for s in range(len(full)):
        batch.advance(
            np.stack([run.smc[s : s + 1] for run in members]), np.stack([run.dbs[s : s + 1] for run in members])
        )
        one.advance(members[2].smc[s : s + 1], members[2].dbs[s : s + 1])
        assert np.abs(batch.V - full[s]).max() < 1e-9
        assert np.abs(one.state.V - full[s, 2]).max() < 1e-9


# -- independence ------------------------------------------------------------------------------------------------------


def _networks(n: int, first: int = 0) -> list[Network]:
    return [draw_network(np.random.default_rng(seed), pd=seed % 2) for seed in range(first, first + n)]


def _inputs(n: int, samples: int = N, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pulses at random times: 5 ms of SMC, 0.3 ms of stimulation that never overlap."""
    rng = np.random.default_rng(seed)
    smc, dbs = np.zeros((n, samples)), np.zeros((n, samples))
    for i in range(n):
        for start in rng.integers(0, samples, 8):
            smc[i, start : start + 250] = 3.5
        for start in rng.choice(samples // 400, samples // 700, replace=False) * 400:
            dbs[i, start : start + 15] = 300.0
    return smc, dbs


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_network_is_the_same_in_any_lane_beside_any_neighbours(precision: str) -> None:
    networks = _networks(11)
    smc, dbs = _inputs(11)
    together = BatchPlant(networks, precision=precision)
    records = together.advance(smc, dbs)
    order = [7, 2, 10, 0]
    others = BatchPlant([networks[i] for i in order], precision=precision)
    for record, i in zip(others.advance(smc[order], dbs[order]), order, strict=True):
        np.testing.assert_array_equal(record.events, records[i].events)
        np.testing.assert_array_equal(record.gpi_spikes, records[i].gpi_spikes)
    np.testing.assert_array_equal(others.V, together.V[order])
    assert all(len(record.events) > 50 for record in records)


def test_threads_change_nothing() -> None:
    networks = _networks(17)
    smc, dbs = _inputs(17)
    serial, threaded = BatchPlant(networks), BatchPlant(networks, threads=2)
    for a, b in zip(serial.advance(smc, dbs), threaded.advance(smc, dbs), strict=True):
        np.testing.assert_array_equal(a.events, b.events)
    np.testing.assert_array_equal(serial.V, threaded.V)


def test_a_replaced_network_starts_its_own_clock_and_leaves_the_others_alone() -> None:
    networks = _networks(3)
    fresh = _networks(1, first=50)[0]
    smc, dbs = _inputs(3)
    undisturbed, replaced = BatchPlant(networks), BatchPlant(networks)
    undisturbed.advance(smc[:, :7000], dbs[:, :7000])
    replaced.advance(smc[:, :7000], dbs[:, :7000])
    replaced.put(1, fresh)
    expected = undisturbed.advance(smc[:, 7000:], dbs[:, 7000:])
    records = replaced.advance(smc[:, 7000:], dbs[:, 7000:])
    for i in (0, 2):
        np.testing.assert_array_equal(records[i].events, expected[i].events)
    alone = BatchPlant([fresh])
    record = alone.advance(smc[1:2, 7000:], dbs[1:2, 7000:])[0]
    np.testing.assert_array_equal(records[1].events, record.events)
    assert replaced.sample_of(1) == N - 7000
    assert replaced.sample_of(0) == N


# -- explicit state ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_restored_batch_continues_bit_for_bit(precision: str) -> None:
    smc, dbs = _inputs(9, seed=3)
    plant = BatchPlant(_networks(9), precision=precision)
    plant.advance(smc[:, :9_003], dbs[:, :9_003])
    saved = plant.get_state()
    expected = plant.advance(smc[:, 9_003:], dbs[:, 9_003:])
    again = BatchPlant.from_state(saved)
    for a, b in zip(again.advance(smc[:, 9_003:], dbs[:, 9_003:]), expected, strict=True):
        np.testing.assert_array_equal(a.events, b.events)
        np.testing.assert_array_equal(a.gpi_spikes, b.gpi_spikes)
    np.testing.assert_array_equal(again.V, plant.V)


def test_a_restored_plant_continues_bit_for_bit_past_the_end_of_its_kernels() -> None:
    smc, dbs = _inputs(1, 120_000, seed=4)
    plant = FastPlant(_networks(2)[1])
    plant.advance(smc[0, :60_000], dbs[0, :60_000])
    again = FastPlant.from_state(plant.get_state())
    a, b = plant.advance(smc[0, 60_000:], dbs[0, 60_000:]), again.advance(smc[0, 60_000:], dbs[0, 60_000:])
    np.testing.assert_array_equal(a.events, b.events)
    np.testing.assert_array_equal(plant.state.V, again.state.V)
    assert again.sample == 120_000


def test_chunks_of_any_length_give_the_same_run() -> None:
    smc, dbs = _inputs(1, seed=5)
    whole, pieces = FastPlant(_networks(2)[1]), FastPlant(_networks(2)[1])
    expected = whole.advance(smc[0], dbs[0])
    events, start = [], 0
    for length in (1, 0, 16, 983, 5_000, N - 6_000):
        events.append(pieces.advance(smc[0, start : start + length], dbs[0, start : start + length]).events)
        start += length
    np.testing.assert_array_equal(np.concatenate(events), expected.events)
    np.testing.assert_array_equal(whole.state.V, pieces.state.V)


def test_a_scalar_state_continues_spike_for_spike_on_the_fast_kernel() -> None:
    network = _networks(2)[1]
    smc, dbs = _inputs(1, 70_000, seed=6)
    scalar = Plant(network)
    scalar.advance(smc[0, :55_000], dbs[0, :55_000])
    fast = FastPlant(network)
    fast.put(0, network, scalar.state)
    assert fast.sample == 55_000
    np.testing.assert_allclose(fast.state.gpi_h_inf, scalar.state.gpi_h_inf, rtol=1e-12)
    a, b = scalar.advance(smc[0, 55_000:], dbs[0, 55_000:]), fast.advance(smc[0, 55_000:], dbs[0, 55_000:])
    np.testing.assert_array_equal(a.events, b.events)
    np.testing.assert_allclose(scalar.state.V, fast.state.V, atol=1e-6)


def test_the_released_gate_reload_follows_the_scalar_kernel() -> None:
    network = _networks(2)[1]
    smc, dbs = _inputs(1, seed=7)
    scalar, fast = Plant(network), FastPlant(network)
    for start in range(0, N, 5_000):
        scalar.state.gpi[1] = scalar.state.gpi_h_inf
        fast.reload_gpi_h(0)
        part = slice(start, start + 5_000)
        a, b = scalar.advance(smc[0, part], dbs[0, part]), fast.advance(smc[0, part], dbs[0, part])
        np.testing.assert_array_equal(a.events, b.events)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_non_finite_voltage_is_named_and_the_other_networks_go_on(precision: str) -> None:
    networks = _networks(10)
    smc, dbs = _inputs(10, 3_000)
    expected = BatchPlant(networks, precision=precision)
    untouched = expected.advance(smc, dbs)
    plant = BatchPlant(networks, precision=precision)
    plant.advance(smc[:, :1_010], dbs[:, :1_010])
    plant.rows(9, "stn_ca")[0, 4] = np.nan  # breaks STN cell 4 in the next update
    with pytest.raises(NetworkFailedError, match=r"stn cell 4 of network 9 is not finite at 20\.22 ms") as caught:
        plant.advance(smc[:, 1_010:], dbs[:, 1_010:])
    assert list(caught.value.failures) == [9]
    np.testing.assert_array_equal(plant.V[:9], expected.V[:9])
    assert np.isnan(plant.V[9, STN, 4])
    for i in range(9):
        late = untouched[i].events[untouched[i].events[:, 0] > 1_010]
        np.testing.assert_array_equal(caught.value.records[i].events, late)
    plant.put(9, networks[9])
    plant.advance(np.zeros((10, 100)), np.zeros((10, 100)))
    assert np.isfinite(plant.V).all()


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_voltage_spoiled_between_calls_is_named_and_the_other_networks_go_on(precision: str, value: float) -> None:
    """No snapshot of the kernel leads to it: a replay from the last one stays finite."""
    networks = _networks(10)
    smc, dbs = _inputs(10, 3_000)
    expected, plant = BatchPlant(networks, precision=precision), BatchPlant(networks, precision=precision)
    for each in (expected, plant):
        each.advance(smc[:, :1_010], dbs[:, :1_010])
    late = expected.advance(smc[:, 1_010:], dbs[:, 1_010:])
    plant.rows(3, "V0", N_POPULATIONS)[GPI, 4] = value
    with pytest.raises(NetworkFailedError, match=r"gpi cell 4 of network 3 is not finite at 20\.20 ms") as caught:
        plant.advance(smc[:, 1_010:], dbs[:, 1_010:])
    assert list(caught.value.failures) == [3]
    others = [i for i in range(10) if i != 3]
    assert plant.V[others].tobytes() == expected.V[others].tobytes()
    for i in others:
        np.testing.assert_array_equal(caught.value.records[i].events, late[i].events)
        np.testing.assert_array_equal(caught.value.records[i].lfp, late[i].lfp)
    plant.advance(smc[:, :100], dbs[:, :100])  # it is named once


def test_a_network_put_where_another_failed_is_not_blamed_for_it() -> None:
    plant = BatchPlant(_networks(3))
    plant.rows(1, "V0")[0, 2] = np.nan
    with pytest.raises(NetworkFailedError, match=r"th cell 2 of network 1 is not finite at 0\.00 ms"):
        plant.advance(np.zeros(100), np.zeros(100))
    plant.put(1, _networks(1)[0])
    plant.rows(2, "V0")[0, 5] = np.nan
    with pytest.raises(NetworkFailedError) as caught:
        plant.advance(np.zeros(100), np.zeros(100))
    assert [str(failure) for failure in caught.value.failures.values()] == [
        "the voltage of th cell 5 of network 2 is not finite at 2.00 ms"
    ]


def test_a_kernel_that_stops_for_no_reason_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plant = BatchPlant(_networks(1))
    for status in (batch_kernel.NON_FINITE, batch_kernel.EVENTS_FULL):
        monkeypatch.setattr(plant, "_advance_block", lambda *_, status=status: status)
        with pytest.raises(RuntimeError, match=f"internal error: the plant kernel stopped .status {status}."):
            plant.advance(np.zeros(10), np.zeros(10))


def fast_drive(samples: int) -> NDArray[np.float64]:
    """A current that carries the STN over its threshold every 0.12 ms: no cell's own doing (µA/cm²)."""
    return np.where(np.arange(samples) // 3 % 2, 1000.0, -1000.0)


def test_a_network_that_fires_too_fast_is_named_and_the_other_networks_go_on() -> None:
    """The event log of a block is shared; all events of the others stay in it."""
    networks = _networks(10)
    smc, dbs = _inputs(10, 30_000)
    dbs[2] = fast_drive(30_000)
    plant = BatchPlant(networks, threads=2)
    with pytest.raises(NetworkFailedError, match=r"stn cells of network 2 fire faster .* at \d+\.\d\d ms") as caught:
        plant.advance(smc, dbs)
    assert list(caught.value.failures) == [2]
    assert np.isnan(plant.V[2]).all()
    records = caught.value.records
    assert records[2].events[-1, 0] == round(caught.value.failures[2].time_ms / 0.02)  # then it is silent
    dbs[2] = 0.0
    expected = BatchPlant(networks)
    others = [i for i in range(10) if i != 2]
    for again in (False, True):
        theirs = expected.advance(smc, dbs)
        ours = plant.advance(smc, dbs) if again else records
        for i in others:
            np.testing.assert_array_equal(ours[i].events, theirs[i].events)
            np.testing.assert_array_equal(ours[i].lfp, theirs[i].lfp)
        assert plant.V[others].tobytes() == expected.V[others].tobytes()
    plant.put(2, networks[2])
    plant.advance(smc, dbs)
    assert np.isfinite(plant.V).all()


def test_one_network_alone_that_fires_too_fast_is_named() -> None:
    plant = FastPlant(_networks(1)[0])
    with pytest.raises(UserError, match=r"the stn cells of network 0 fire faster .*\(2 to 185 Hz\)"):
        plant.advance(np.zeros(5_000), fast_drive(5_000))


def test_a_network_can_be_put_beside_neighbours_that_have_filled_the_log_long_ago() -> None:
    networks = _networks(2)
    smc, dbs = np.zeros((2, 110_000)), np.zeros((2, 110_000))
    for start in (0, 50_000, 100_000):  # less in a second than the log holds, more in all
        dbs[0, start : start + 10_000] = fast_drive(10_000)
    plant = BatchPlant(networks)
    record = plant.advance(smc, dbs)[0]
    counts = np.bincount(record.events[:, 1], minlength=N_POPULATIONS)
    assert counts[STN] > 8 * LOG_PER_LANE
    alone = FastPlant(networks[1])
    alone.advance(*(each[0] for each in _inputs(1, 20_000)))
    plant.put(1, networks[1], alone.take(0))
    np.testing.assert_array_equal(plant.V[1], alone.state.V)


def test_wrong_inputs_are_refused() -> None:
    plant = BatchPlant(_networks(2))
    with pytest.raises(UserError, match="both must be"):
        plant.advance(np.zeros((2, 10)), np.zeros((2, 11)))
    with pytest.raises(UserError, match="not finite"):
        plant.advance(np.full((2, 10), np.inf), np.zeros((2, 10)))
    with pytest.raises(UserError, match="precision"):
        BatchPlant(_networks(1), precision="float16")
    with pytest.raises(UserError, match="dt_ms"):
        BatchPlant(_networks(1), dt_ms=0.03)
    with pytest.raises(UserError, match="no network 2"):
        plant.put(2, _networks(1)[0])
    for threads in ("2", 1.5, 0, True, None):
        with pytest.raises(UserError, match=rf"number of threads of a batch is {threads!r}: allowed are whole numbers"):
            BatchPlant(_networks(1), threads=threads)  # type: ignore[arg-type]


def test_stimulation_reaches_a_cell_by_its_gain() -> None:
    gain = np.zeros((1, 10))
    gain[0, 3] = 1.0
    plant = BatchPlant(_networks(1), stn_gain=gain)
    dbs = np.zeros(2_000)
    for start in range(0, 2_000, 385):
        dbs[start : start + 15] = 300.0
    record = plant.advance(np.zeros(2_000), dbs)[0]
    stn = record.events[record.events[:, 1] == STN]
    assert np.bincount(stn[:, 2], minlength=10).argmax() == 3


def test_float32_fires_at_the_rates_of_float64() -> None:
    networks = [draw_network(np.random.default_rng(seed)) for seed in range(8)]
    smc, dbs = _inputs(8, 50_000)
    counts = []
    for precision in ("float64", "float32"):
        records = BatchPlant(networks, precision=precision).advance(smc, dbs)
        events = np.concatenate([record.events for record in records])
        counts.append(np.bincount(events[:, 1], minlength=N_POPULATIONS))
    assert abs(counts[1][GPI] / counts[0][GPI] - 1.0) < 0.03
    assert abs(counts[1][STN] / counts[0][STN] - 1.0) < 0.03
