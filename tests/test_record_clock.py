"""The clock model: an hour of drift and uneven delays, intervals that hold the truth; jumps, wraps, old samples."""

from __future__ import annotations

import itertools
import math
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_tools import SESSION_COLUMNS

from envs.errors import UserError
from firmware_bridge.bench import Bench
from firmware_bridge.board_time import BoardTime
from firmware_bridge.boards import start_board
from firmware_bridge.client import BoardClient
from firmware_bridge.clock import MAX_DRIFT_PPM, TRUST_US, WRAP_US, ClockModel, ClockSample, Verdict
from firmware_bridge.electrode import shake_hands
from firmware_bridge.links import SerialLink
from firmware_bridge.recorder import Recorder

HOUR_US = 3_600_000_000
START_US = 10_000_000  # host time of the first sample
WARM = 30  # samples (half a minute) before an estimate is judged: its drift must be learnt

Board = Callable[[float], float]  # host time -> board time


class Link(NamedTuple):
    """Delays of a link (µs): least forth, least back, mean of what comes on top, and how often that is tenfold."""

    forth: float
    back: float
    jitter: float
    spikes: float


USB = Link(forth=250, back=120, jitter=150, spikes=0.05)  # a pty or a full-speed USB port on a busy host
LATENCY_TIMER = Link(forth=300, back=1000, jitter=700, spikes=0.1)  # an adapter that gathers bytes first
ONE_SIDED = Link(forth=2000, back=100, jitter=400, spikes=0.1)


def swinging(ppm: float, period_us: float, offset_us: float, phase: float) -> Board:
    """A board whose drift swings between ±ppm."""
    turn = 2 * math.pi / period_us

    def board(host_us: float) -> float:
        return host_us + offset_us + ppm * 1e-6 * (math.cos(phase) - math.cos(turn * host_us + phase)) / turn

    return board


def constant(ppm: float, offset_us: float = 5e11) -> Board:
    return lambda host_us: host_us * (1 + ppm * 1e-6) + offset_us


def exchange(board: Board, link: Link, host_us: float, rng: random.Random) -> ClockSample:
    """One TIME_SYNC; every clock is read in whole microseconds."""

    def delay(least: float) -> float:
        return least + rng.expovariate(1 / link.jitter) * (10 if rng.random() < link.spikes else 1)

    heard = host_us + delay(link.forth)
    answered = heard + rng.uniform(5, 200)
    back = answered + delay(link.back)
    return ClockSample(int(host_us), int(board(heard)), int(board(answered)), int(back))


def samples(board: Board, link: Link, rng: random.Random, end_us: float = HOUR_US) -> Iterator[ClockSample]:
    """A sample a second, give or take."""
    at = float(START_US)
    while at < end_us:
        yield exchange(board, link, at, rng)
        at += rng.uniform(0.5, 1.5) * 1e6


@pytest.mark.parametrize(
    ("link", "swing_s"), [(USB, 3600.0), (USB, 2600.0), (LATENCY_TIMER, 3600.0), (ONE_SIDED, 3600.0)]
)
def test_an_hour_of_200_ppm(link: Link, swing_s: float) -> None:
    rng = random.Random(f"{link} {swing_s}")
    board = swinging(200.0, swing_s * 1e6, rng.uniform(-1e9, 1e12), rng.uniform(0, 2 * math.pi))
    model = ClockModel()
    worst = widest = 0.0
    for count, sample in enumerate(samples(board, link, rng)):
        assert model.add(sample) is Verdict.USED
        for at in (sample.t4_us, sample.t4_us + rng.uniform(0, 2e6)):  # at once, and before the next one came
            estimate = model.at(at)
            truth = board(at) - at
            assert estimate.low_us <= truth <= estimate.high_us
            if count >= WARM:
                worst = max(worst, abs(estimate.offset_us - truth))
                widest = max(widest, estimate.error_us)
    assert worst < 2000.0
    assert widest < 2000.0  # the interval is a statement, not an excuse
    assert not model.at(model.host_us(board(HOUR_US))).stale
    slope = board(HOUR_US + 1e6) - board(HOUR_US) - 1e6
    estimate = model.at(HOUR_US)
    assert estimate.drift_low_ppm <= slope <= estimate.drift_high_ppm
    assert estimate.drift_high_ppm - estimate.drift_low_ppm < 200.0


def test_one_offset_for_an_hour_would_be_wrong() -> None:
    """What the model is there for: the best of the first samples, held for the hour, is off by far more than 2 ms."""
    rng = random.Random(1)
    board = constant(200.0)
    best = min(itertools.islice(samples(board, USB, rng), 8), key=lambda sample: sample.round_trip_us)
    assert abs(board(HOUR_US) - HOUR_US - best.offset_us) > 500_000


@settings(max_examples=60, deadline=None)
@given(
    ppm=st.floats(-500, 500),
    offset_us=st.floats(-1e12, 1e12),
    delays=st.lists(
        st.tuples(st.integers(0, 60_000), st.integers(0, 60_000), st.integers(1, 3_000_000)), min_size=1, max_size=60
    ),
    later_us=st.integers(0, 10_000_000),
)
def test_the_interval_holds_the_truth_whatever_the_delays(
    ppm: float, offset_us: float, delays: list[tuple[int, int, int]], later_us: int
) -> None:
    """No distribution is assumed: any delays of 0 to 60 ms either way, any gaps to 3 s."""
    board, model, at = constant(ppm, offset_us), ClockModel(), START_US
    for forth, back, gap in delays:
        heard = at + forth
        sample = ClockSample(at, math.floor(board(heard)), math.floor(board(heard + 30)), heard + 30 + back)
        assert model.add(sample) in (Verdict.USED, Verdict.STALE)
        at = sample.t4_us + gap
    when = model.at(0).host_us + START_US + later_us
    estimate = model.at(when)
    assert estimate.low_us <= board(when) - when <= estimate.high_us
    assert estimate.drift_low_ppm <= ppm <= estimate.drift_high_ppm


@pytest.mark.parametrize("jump_us", [-10_000_000, -5_000, 5_000, 10_000_000, 2**32 + 50_000])
def test_a_jump_is_seen_at_once_and_learnt(jump_us: int) -> None:
    rng = random.Random(jump_us)
    before, model = constant(120.0), ClockModel()
    for sample in samples(before, USB, rng, 60e6):
        model.add(sample)

    def after(host_us: float) -> float:
        return before(host_us) + jump_us

    assert model.add(exchange(after, USB, 61e6, rng)) is Verdict.JUMP
    assert model.jumps == 1
    assert model.jump_us == pytest.approx(jump_us, abs=2_500)
    for at in range(62_000_000, 80_000_000, 1_000_000):
        assert model.add(exchange(after, USB, at, rng)) is Verdict.USED
        estimate = model.at(at + 3e5)
        assert estimate.low_us <= after(at + 3e5) - at - 3e5 <= estimate.high_us
    assert not estimate.stale


def test_no_jump_is_seen_where_there_is_none() -> None:
    rng = random.Random(5)
    model = ClockModel()
    found = [model.add(s) for s in samples(swinging(200.0, 2.6e9, 7e9, 1.0), LATENCY_TIMER, rng, 600e6)]
    assert set(found) == {Verdict.USED}
    assert len(found) > 500


def test_a_32_bit_counter_starts_again_and_time_goes_on() -> None:
    rng = random.Random(6)
    true, model = constant(-150.0, 4_200_000_000 - START_US), ClockModel()

    def board(host_us: float) -> float:
        return true(host_us) % WRAP_US

    verdicts = [model.add(sample) for sample in samples(board, USB, rng, 400e6)]
    assert verdicts.count(Verdict.WRAP) == model.wraps == 1
    assert verdicts.count(Verdict.JUMP) == 0
    assert model.device_us(400e6) == pytest.approx(true(400e6), abs=1_000)
    assert model.device_us(400e6) > WRAP_US
    assert model.board_us(400e6) == pytest.approx(board(400e6), abs=1_000)
    assert model.host_us(true(400e6)) == pytest.approx(400e6, abs=1_000)


def test_old_and_impossible_samples_change_nothing() -> None:
    rng = random.Random(7)
    board, model = constant(50.0), ClockModel()
    taken = list(samples(board, USB, rng, 30e6))
    for sample in taken:
        model.add(sample)
    held = model.at(31e6)
    assert model.add(taken[-1]) is Verdict.STALE
    assert model.add(taken[3]) is Verdict.STALE
    at = 30_500_000
    for sample in (
        ClockSample(at, 0, 0, at - 1),  # heard before it was asked
        ClockSample(at, 10, 9, at + 1000),  # answered before it was heard
        ClockSample(at, 0, 2000, at + 1000),  # the board thought for longer than the host waited
    ):
        assert model.add(sample) is Verdict.IMPOSSIBLE
    assert model.at(31e6) == held
    assert model.samples == len(taken)


def test_without_samples_the_estimate_says_that_it_grows_stale() -> None:
    rng = random.Random(8)
    board, model = constant(200.0), ClockModel()
    with pytest.raises(UserError, match="not compared"):
        model.at(0)
    for sample in samples(board, USB, rng, 60e6):
        model.add(sample)
    errors = [model.at(60e6 + age).error_us for age in (0, 5e6, 20e6, 60e6, 600e6)]
    assert errors == sorted(errors)
    assert errors[1] < TRUST_US < errors[-1]
    late = model.at(660e6)
    assert late.stale
    assert late.age_us > 590e6
    assert late.low_us <= board(660e6) - 660e6 <= late.high_us


def test_an_emulated_board_keeps_the_hosts_time(tmp_path: Path) -> None:
    """Its counter runs on the host's clock, so that offset and drift are constant and 0: the intervals hold them."""
    with (
        start_board("qemu-m4f") as board,
        Bench(board.electrode, stepped=False) as bench,
        BoardClient(SerialLink(board.port), timeout_s=10.0) as client,
        Recorder(tmp_path / "session.sqlite", SESSION_COLUMNS) as recorder,
    ):
        shake_hands(client, bench)
        clock = BoardTime(client, bench, recorder)
        clock.synchronise()
        for _ in range(30):
            time.sleep(0.1)
            clock.compare()
    with closing(sqlite3.connect(tmp_path / "session.sqlite")) as db:
        db.row_factory = sqlite3.Row
        rows = db.execute("SELECT * FROM clock ORDER BY clock_index").fetchall()
    assert len(rows) == 8 + 30
    assert {row["verdict"] for row in rows} == {"USED"}
    lowest, highest = min(row["offset_high_us"] for row in rows), max(row["offset_low_us"] for row in rows)
    assert highest <= lowest + 100.0  # one offset lies in every interval, but for 100 µs of the emulator's own timers
    assert all(row["offset_low_us"] <= row["offset_us"] <= row["offset_high_us"] for row in rows)
    last = rows[-1]
    assert last["drift_low_ppm"] - 100.0 <= 0.0 <= last["drift_high_ppm"] + 100.0
    assert -MAX_DRIFT_PPM <= last["drift_low_ppm"] < last["drift_high_ppm"] <= MAX_DRIFT_PPM
    quickest = min(row["host_round_trip_us"] for row in rows)
    aged = 2e-6 * MAX_DRIFT_PPM * (last["host_us"] - rows[0]["host_us"])
    assert (
        last["offset_high_us"] - last["offset_low_us"] <= quickest + aged + 100.0
    )  # no more than drift can have added
