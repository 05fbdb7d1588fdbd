"""What time is it on the board? Offset and drift against the host, with intervals that hold the truth.

Each TIME_SYNC gives four times: t1 the host asks, t2 the board hears it, t3 the board answers, t4 the host hears that.
No message arrives before it was sent, so that board minus host is at most t2 - t1 at t1 and at least t3 - t4 at t4: two
bounds that hold for any delays, however uneven (RFC 5905 takes their middle; Marzullo and Owicki, 1983, keep the
interval). Under a drift that changes slowly, the bounds of a window cut a polygon out of the plane of offset and drift
(the convex hull of Duda et al., "Estimating global time in distributed systems", ICDCS 1987); its extent is the
interval, its middle the estimate. The quickest message of each direction thus counts by itself, which a regression on
the quickest round trips cannot do, and nothing is assumed about the distribution of delays.

Assumed are only two bounds, `MAX_DRIFT_PPM` and `WANDER_PPM_S`. A sample that contradicts the polygon says that one of
them was broken: the clock jumped (or wrapped around), and the estimate starts afresh from that sample. A jump that is
shorter than the round trips since is found with the first quick enough sample, not before.

Device times here are unwrapped: they go on rising where a 32-bit microsecond counter starts again.
"""

from __future__ import annotations

import itertools
from collections import deque
from enum import Enum
from typing import NamedTuple

from envs.errors import UserError

MAX_DRIFT_PPM = 1000.0  # ppm: a board's ±200 and the 500 by which NTP may steer a host's clock, with room
WANDER_PPM_S = 0.5  # ppm/s by which the drift may change: ±200 ppm in a sine of 42 min, far above a warming crystal
WINDOW_US = 60_000_000  # µs of host time: older samples say less than WANDER_PPM_S makes them uncertain
BUCKET_US = 1_000_000  # µs: of the samples of a bucket the best bound of each direction is kept
QUANTUM_US = 2.0  # µs: both clocks are read in whole µs, rounded down
WRAP_US = 1 << 32  # µs after which a 32-bit counter of microseconds starts again (71.6 min)
TRUST_US = 2_000.0  # µs: an estimate that is more uncertain is called stale

Point = tuple[float, float]  # (offset in µs, drift in ppm = µs/s)


class ClockSample(NamedTuple):
    """The four times of one exchange, µs: t1 and t4 on the host's clock, t2 and t3 on the board's."""

    t1_us: int
    t2_us: int
    t3_us: int
    t4_us: int

    @property
    def device_us(self) -> int:
        """The board's newest time."""
        return self.t3_us

    @property
    def round_trip_us(self) -> int:
        """Time on the way, both ways together."""
        return (self.t4_us - self.t1_us) - (self.t3_us - self.t2_us)

    @property
    def offset_us(self) -> float:
        """Board minus host, were both ways equally long."""
        return ((self.t2_us - self.t1_us) + (self.t3_us - self.t4_us)) / 2


class Verdict(Enum):
    """What a sample was good for."""

    USED = "used"
    JUMP = "the board's clock jumped"
    WRAP = "the board's counter of microseconds started again"
    STALE = "older than a sample that is in use: not used"
    IMPOSSIBLE = "its times contradict each other: not used"


class ClockEstimate(NamedTuple):
    """Board minus host at one time, with the interval that holds the truth."""

    host_us: float  # when
    offset_us: float
    low_us: float
    high_us: float
    drift_ppm: float  # of the board against the host
    drift_low_ppm: float
    drift_high_ppm: float
    age_us: float  # since the newest sample

    @property
    def error_us(self) -> float:
        """Largest error that the estimate can have."""
        return (self.high_us - self.low_us) / 2

    @property
    def stale(self) -> bool:
        """Too uncertain to be used, for want of new or quick samples."""
        return self.error_us > TRUST_US


class _Bound(NamedTuple):
    """sign·(offset at ``host_us``) ≤ ``value``: sign 1 an upper bound, -1 a lower one."""

    host_us: int
    sign: int
    value: float


class ClockModel:
    """Learns from one `ClockSample` after another; see the module for how.

    Args:
        max_drift_ppm: largest drift.
        wander_ppm_s: how fast the drift may change.
        wrap_us: range of the board's counter; 0: it never wraps.
    """

    def __init__(
        self,
        *,
        max_drift_ppm: float = MAX_DRIFT_PPM,
        wander_ppm_s: float = WANDER_PPM_S,
        wrap_us: int = WRAP_US,
    ) -> None:
        self.max_drift_ppm, self.wander_ppm_s, self.wrap_us = max_drift_ppm, wander_ppm_s, wrap_us
        self.jumps = 0
        self.jump_us = 0.0  # the last one: by how much the clock was ahead of what was expected
        self.wraps = 0
        self.samples = 0
        self._base_us = 0  # keeps the numbers small: bounds are relative to it
        self._newest_us = 0  # host time of the newest sample: the polygon's drift and offset are those of this time
        self._bounds: deque[_Bound] = deque()  # in the order of their samples
        self._bucket: list[_Bound] = []  # the newest ones, not yet thinned
        self._polygon: list[Point] = []

    def add(self, sample: ClockSample) -> Verdict:
        """Learn from a sample; what it was good for."""
        if sample.t4_us < sample.t1_us or sample.t3_us < sample.t2_us or sample.round_trip_us < -QUANTUM_US:
            return Verdict.IMPOSSIBLE
        if not self._polygon:
            self._base_us = sample.t3_us - sample.t4_us
            self._restart(sample)
            return Verdict.USED
        if sample.t4_us <= self._newest_us:
            return Verdict.STALE
        verdict = Verdict.USED
        moved = sample._replace(t2_us=sample.t2_us + self._wrapped_us, t3_us=sample.t3_us + self._wrapped_us)
        ahead = self._ahead(moved)
        if ahead != 0.0:
            turns = round(-ahead / self.wrap_us) if self.wrap_us else 0
            turned = moved._replace(t2_us=moved.t2_us + turns * self.wrap_us, t3_us=moved.t3_us + turns * self.wrap_us)
            if turns and self._ahead(turned) == 0.0:
                self.wraps += turns
                verdict, moved = Verdict.WRAP, turned
            else:
                self.jumps += 1
                self.jump_us = moved.offset_us - self.at(moved.t4_us).offset_us
                self._restart(moved)
                return Verdict.JUMP
        self._keep(moved)
        self._cut()
        return verdict

    @property
    def ready(self) -> bool:
        """Whether there is an estimate at all."""
        return bool(self._polygon)

    def at(self, host_us: float) -> ClockEstimate:
        """The estimate at a host time.

        Raises:
            UserError: no sample yet.
        """
        if not self._polygon:
            raise UserError("the clocks of host and board were not compared yet")
        ahead_s = (host_us - self._newest_us) * 1e-6
        unsure = 0.5 * self.wander_ppm_s * ahead_s * ahead_s
        offsets = [offset + drift * ahead_s for offset, drift in self._polygon]
        drifts = [drift for _, drift in self._polygon]
        low, high = min(offsets) - unsure - QUANTUM_US, max(offsets) + unsure + QUANTUM_US
        turn = self.wander_ppm_s * abs(ahead_s)
        return ClockEstimate(
            host_us=host_us,
            offset_us=self._base_us + (low + high) / 2,
            low_us=self._base_us + low,
            high_us=self._base_us + high,
            drift_ppm=(min(drifts) + max(drifts)) / 2,
            drift_low_ppm=min(drifts) - turn,
            drift_high_ppm=max(drifts) + turn,
            age_us=max(0.0, host_us - self._newest_us),
        )

    def device_us(self, host_us: float) -> float:
        """The board's time at a host time, unwrapped.

        Raises:
            UserError: no sample yet.
        """
        return host_us + self.at(host_us).offset_us

    def board_us(self, host_us: float) -> float:
        """The same as the board itself reads it: what an order's start must be given in.

        Raises:
            UserError: no sample yet.
        """
        return self.device_us(host_us) - self._wrapped_us

    def host_us(self, device_us: float) -> float:
        """The host time at which the board's clock shows ``device_us`` (unwrapped).

        Raises:
            UserError: no sample yet.
        """
        host = device_us - self.at(self._newest_us).offset_us
        for _ in range(2):  # contracts by the drift, 1e-3, each time
            host = device_us - self.at(host).offset_us
        return host

    @property
    def _wrapped_us(self) -> int:
        return self.wraps * self.wrap_us

    def _ahead(self, sample: ClockSample) -> float:
        """By how much a sample lies outside what is possible (µs; 0: it fits)."""
        expected = self.at(sample.t4_us)
        low = sample.t3_us - sample.t4_us
        high = sample.t2_us - sample.t1_us + self.max_drift_ppm * 1e-6 * (sample.t4_us - sample.t1_us)
        if low > expected.high_us + QUANTUM_US:
            return low - expected.high_us
        if high < expected.low_us - QUANTUM_US:
            return high - expected.low_us
        return 0.0

    def _restart(self, sample: ClockSample) -> None:
        self._bounds.clear()
        self._bucket.clear()
        self._keep(sample)
        self._cut()

    def _keep(self, sample: ClockSample) -> None:
        """Take a sample's bounds, thin the bucket before, and forget what is old."""
        self.samples += 1
        self._newest_us = sample.t4_us
        if self._bucket and sample.t4_us - self._bucket[0].host_us >= BUCKET_US:
            drift = sum(drift for _, drift in self._polygon) / len(self._polygon) * 1e-6
            for sign in (-1, 1):
                these = [bound for bound in self._bucket if bound.sign == sign]
                self._bounds.append(min(these, key=lambda bound: bound.value - bound.sign * drift * bound.host_us))
            self._bucket.clear()
        self._bucket.append(_Bound(sample.t4_us, -1, float(sample.t4_us - sample.t3_us + self._base_us)))
        self._bucket.append(_Bound(sample.t1_us, 1, float(sample.t2_us - sample.t1_us - self._base_us)))
        while self._bounds and sample.t4_us - self._bounds[0].host_us > WINDOW_US:
            self._bounds.popleft()

    def _cut(self) -> None:
        """Cut the polygon from the bounds, newest first; where nothing is left, the older ones are forgotten."""
        lower, upper = self._bucket[-2], self._bucket[-1]
        reach = self.max_drift_ppm * 1e-6 * (lower.host_us - upper.host_us)
        low, high = -lower.value - QUANTUM_US, upper.value + QUANTUM_US + reach
        most = self.max_drift_ppm
        polygon: list[Point] = [(low, -most), (high, -most), (high, most), (low, most)]
        newest_first = [*reversed(self._bucket), *reversed(self._bounds)]
        for done, bound in enumerate(newest_first):
            s = (bound.host_us - self._newest_us) * 1e-6
            room = bound.value + QUANTUM_US + 0.5 * self.wander_ppm_s * s * s
            left = _clip(polygon, bound.sign, bound.sign * s, room)
            if not left:
                kept = set(newest_first[:done])
                self._bucket = [b for b in self._bucket if b in kept]
                self._bounds = deque(b for b in self._bounds if b in kept)
                break
            polygon = left
        self._polygon = polygon


def _clip(polygon: list[Point], a: float, b: float, c: float) -> list[Point]:
    """The part of a convex polygon where a·offset + b·drift ≤ c (Sutherland and Hodgman, 1974)."""
    over = [a * x + b * y - c for x, y in polygon]
    if max(over) <= 0.0:
        return polygon
    left: list[Point] = []
    for (p, d), (q, e) in itertools.pairwise([*zip(polygon, over, strict=True), (polygon[0], over[0])]):
        if d <= 0.0:
            left.append(p)
        if (d < 0.0 < e) or (e < 0.0 < d):
            w = d / (d - e)
            left.append((p[0] + w * (q[0] - p[0]), p[1] + w * (q[1] - p[1])))
    return left
