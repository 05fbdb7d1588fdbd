"""The electrode log of an emulated board: what its electrode channel said, as the host board's JSON lines."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from firmware_bridge.codec import Decoder, Frame
from firmware_bridge.codes import Cause, State
from firmware_bridge.messages import Pulse, Status
from sea_dbs.files import writing

LOOK_S = 0.02  # how often the raw log is looked at


class Trace:
    """Follows the raw bytes that QEMU logs and appends a JSON line for each pulse, state and lease.

    Raises:
        UserError: the log cannot be written.
    """

    def __init__(self, raw: Path, log: Path) -> None:
        self._raw, self._log = raw, log
        with writing(log):
            self._out = log.open("a", buffering=1)
        raw.touch()
        self._decoder = Decoder()
        self._state: int | None = None
        self._lease_us = 0
        self._at = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left and close the log."""
        self._ended.set()
        self._thread.join()
        self._take()
        self._out.write('{"state": "OFF", "cause": "SIGNAL"}\n')
        self._out.close()

    def _follow(self) -> None:
        while not self._ended.wait(LOOK_S):
            self._take()

    def _take(self) -> None:
        with self._raw.open("rb") as stream:
            stream.seek(self._at)
            data = stream.read()
        self._at += len(data)
        for event in self._decoder.feed(data):
            if isinstance(event, Frame):
                for line in self._lines(event):
                    self._out.write(json.dumps(line) + "\n")

    def _lines(self, frame: Frame) -> list[dict[str, object]]:
        message = frame.message
        if isinstance(message, Pulse):
            return [
                {
                    "t_us": frame.time_us,
                    "pulse": {
                        "uA": [message.amplitude_1_uA, message.amplitude_2_uA],
                        "us": [message.width_1_us, message.width_2_us],
                        "residual_pC": message.residual_pC,
                        "peak_uV": message.peak_uV,
                    },
                }
            ]
        lines: list[dict[str, object]] = []
        if isinstance(message, Status):
            if message.state != self._state or frame.sequence == 1:  # 1: it has just started, perhaps after a reset
                self._state = message.state
                state, cause = State(message.state).name, Cause(message.cause).name
                lines.append({"t_us": frame.time_us, "state": state, "cause": cause})
            if message.lease_until_us != self._lease_us:
                self._lease_us = message.lease_until_us
                lines.append({"t_us": frame.time_us, "lease_until_us": message.lease_until_us})
        return lines
