"""Device time as the host knows it: exact where the host moves the board's clock, else by comparing the two clocks."""

from __future__ import annotations

from firmware_bridge.bench import Bench
from firmware_bridge.client import BoardClient, host_us
from firmware_bridge.clock import ClockModel, Verdict
from firmware_bridge.recorder import ClockRow, Recorder

SYNCS = 8  # exchanges of times at the start
SYNC_US = 500_000  # µs of host time from one exchange of times to the next


class BoardTime:
    """See the module. Every comparison is recorded, and so is a jump of the board's clock."""

    def __init__(self, client: BoardClient, bench: Bench, recorder: Recorder) -> None:
        self.client, self.bench, self.recorder = client, bench, recorder
        self.offset_us = 0  # device time = plant time + offset
        self.clock = ClockModel()  # real time only
        self._compared_us = 0  # host time of the last comparison

    def synchronise(self) -> int:
        """The plant's clock is at 0 now. Returns the offset (µs).

        Raises:
            UserError: the board does not answer.
        """
        if not self.bench.stepped:
            for _ in range(SYNCS):
                self.compare()
        self.offset_us = self.now_us()
        return self.offset_us

    def now_us(self) -> int:
        """Device time now: exact on a stepped clock, else by the model of the board's clock."""
        if self.bench.stepped:
            return self.bench.now_us
        modelled = round(self.clock.board_us(host_us())) if self.clock.ready else 0
        return max(self.client.device_time_us, modelled)

    def seen_us(self) -> int:
        """Device time of the board's newest answer."""
        return self.bench.now_us if self.bench.stepped else self.client.device_time_us

    def keep(self) -> None:
        """Compare the clocks if it is time.

        Raises:
            UserError: the board does not answer.
        """
        if not self.bench.stepped and host_us() - self._compared_us >= SYNC_US:
            self.compare()

    def compare(self) -> None:
        """One TIME_SYNC for the clock model; recorded.

        Raises:
            UserError: the board does not answer.
        """
        sample = self.client.time_sync()
        self._compared_us = sample.t4_us
        verdict = self.clock.add(sample)
        estimate = self.clock.at(sample.t4_us)
        self.recorder.clock(
            ClockRow(
                device_us=sample.t3_us,
                host_us=sample.t4_us,
                host_round_trip_us=sample.round_trip_us,
                offset_us=estimate.offset_us,
                offset_low_us=estimate.low_us,
                offset_high_us=estimate.high_us,
                drift_ppm=estimate.drift_ppm,
                drift_low_ppm=estimate.drift_low_ppm,
                drift_high_ppm=estimate.drift_high_ppm,
                verdict=verdict.name,
            )
        )
        if verdict in (Verdict.JUMP, Verdict.WRAP):
            by = f" by {self.clock.jump_us:+.0f} µs" if verdict is Verdict.JUMP else ""
            self.recorder.event(sample.t3_us, "clock", f"{verdict.value}{by}")
