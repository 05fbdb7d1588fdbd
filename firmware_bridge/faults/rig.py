"""A board on the test bench: started for the catalogue, reached over its real link through the injector."""

from __future__ import annotations

import hashlib
import json
import signal
import tempfile
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from envs.errors import UserError
from firmware_bridge.bench import Bench
from firmware_bridge.board import HostBoard, find_board
from firmware_bridge.boards import BOARDS, Board
from firmware_bridge.client import NO_MODEL, BoardClient
from firmware_bridge.codec import Frame, encode
from firmware_bridge.codes import Cause, State
from firmware_bridge.faults.checker import numbers
from firmware_bridge.faults.host import Hosts
from firmware_bridge.faults.link import FaultyLink
from firmware_bridge.images import FixedSetting, Image, compile_image
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import Pulse, Status, Stop
from firmware_bridge.qemu import QemuBoard
from firmware_bridge.targets import TARGETS

POLICY = Path(__file__).with_name("policy.c")
MODEL = hashlib.sha256(b"the hand-written policy of the fault catalogue").digest()
N_OBS = 50  # of policy.c
LOOK_S = 0.02  # how often an emulated board's trace is written


@cache
def fault_image(kind: str, broken: str | None = None, fixed: FixedSetting | None = None) -> Image:
    """A test build with the catalogue's policy; ``broken``: a rule of the envelope left out (ramp, lease, balance);
    ``fixed``: approved for FALLBACK."""
    defines: tuple[str, ...] = () if broken is None else (f"-DSEA_BROKEN_{broken.upper()}",)
    if fixed is not None:
        defines += tuple(f"-DSEA_FALLBACK_{n}={v}" for n, v in zip(("UA", "WIDTH_US", "PERIOD_US"), fixed, strict=True))
    steady = kind != "host"
    return compile_image(TARGETS[kind], POLICY, MODEL, format="int8", test_build=True, steady=steady, defines=defines)


class LoggingBench(Bench):
    """A bench that writes the electrode log itself, for a board that somebody else started."""

    def __init__(self, path: str, log: Path) -> None:
        self._out = log.open("a", buffering=1)
        self._last_state = -1
        self._last_lease = 0
        super().__init__(path, stepped=False)

    def close(self) -> None:
        super().close()
        self._out.close()

    def _take(self, frame: Frame) -> bool:
        message = frame.message
        lines: list[dict[str, Any]] = []
        if isinstance(message, Pulse):
            uA, us = [message.amplitude_1_uA, message.amplitude_2_uA], [message.width_1_us, message.width_2_us]
            other = {"residual_pC": message.residual_pC, "peak_uV": message.peak_uV}
            lines.append({"pulse": {"uA": uA, "us": us, **other}})
        elif isinstance(message, Status):
            if message.state != self._last_state:
                self._last_state = message.state
                lines.append({"state": State(message.state).name, "cause": Cause(message.cause).name})
            if message.lease_until_us != self._last_lease:
                self._last_lease = message.lease_until_us
                lines.append({"lease_until_us": message.lease_until_us})
        for line in lines:
            self._out.write(json.dumps({"t_us": frame.time_us, **line}) + "\n")
        return super()._take(frame)


class Rig:
    """A board, its bench, and a client behind the injector.

    ``stepped``: the host board's clock is stepped; else, and on every other board, time is real. ``port``: a board that
    runs already (an electrode channel is needed: without it nothing can be judged).

    Raises:
        UserError: an unknown board, a missing tool, or a port without an electrode channel.
    """

    def __init__(
        self, kind: str, *, stepped: bool = True, broken: str | None = None, port: str | None = None,
        electrode: str | None = None, fixed: FixedSetting | None = None,
    ) -> None:  # fmt: skip
        if port is None and kind not in BOARDS:
            raise UserError(f"there is no board '{kind}': choose one of {', '.join(BOARDS)}")
        self.kind, self.broken, self._port, self._electrode = kind, broken, port, electrode
        self._fixed = fixed
        self.rules = numbers() | {"fallback_setting": None if fixed is None else fixed._asdict()}  # of the checker
        self.stepped = stepped and kind == "host" and port is None
        self.log = Path(tempfile.mkdtemp(prefix="sea-faults-")) / "electrode.jsonl"
        self._lines: list[dict[str, Any]] = []
        self._looks: list[dict[str, Any]] = []  # at the electrode, by the bench
        self._read_bytes = 0
        self.restarts = 0
        self.model = MODEL
        self.board: Board | None = None
        self.hosts: Hosts | None = None  # made by the first row that kills one
        self._stack, self._kept = ExitStack(), ExitStack()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        if self._port is not None:
            electrode = self._electrode or find_board(self._port).electrode
            self.bench: Bench = self._stack.enter_context(LoggingBench(electrode, self.log))
            self._attach(self._port)
            return
        image = fault_image(self.kind, self.broken, self._fixed)
        self.log.touch()
        board: Board
        if self.kind == "host":
            board = self._stack.enter_context(HostBoard(electrode_log=self.log, image=image))
        else:
            board = self._stack.enter_context(QemuBoard(image, electrode_log=self.log))
        self.board = board
        self.bench = self._stack.enter_context(Bench(board.electrode, stepped=self.stepped))
        self._attach(board.port)

    def _attach(self, port: str) -> None:
        self.link = FaultyLink(SerialLink(port))
        self.link.now_us = self.now
        self.client = self._stack.enter_context(BoardClient(self.link))
        if self._port is not None:  # it holds what it holds
            self.model = self.client.hello(NO_MODEL, refuse=False).model_hash

    def close(self) -> None:
        """End the board, if this rig started it."""
        self._kept.close()
        self._stack.close()
        self.log.unlink(missing_ok=True)
        self.log.parent.rmdir()

    def keep(self, hosts: Hosts) -> Hosts:
        """End this helper with the rig."""
        return self._kept.enter_context(hosts)

    # -- time --------------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Device time."""
        if not self.stepped:
            self.bench.advance(0)
        return self.bench.now_us

    def mark(self) -> int:
        """Device time of a fault, a millisecond after whatever was before it."""
        self.advance(1_000)
        return self.now()

    def advance(self, us: int) -> None:
        """Let the board live so long; what the injector holds back is let go at its time."""
        self.until(self.now() + us)

    def until(self, end_us: int) -> None:
        """As `advance`, to a device time."""
        while self.link.waiting and (first := min(self.link.waiting)[0]) < end_us:
            if first > self.now():
                self.bench.advance(first)
            self.link.release(first)
        if end_us > self.now():
            self.bench.advance(end_us)
        bench = self.bench
        self._looks.append({"at_us": bench.now_us, "grounded": bench.grounded, "in": bench.state.name})

    def halt(self) -> None:
        """STOP from the injector's own hand: whoever drove the board before, and whatever is on its way."""
        self.link.clean()
        self.link.raw(encode(Stop(reason=0), sequence=1, session=0))
        self.advance(1_000)
        self.client.poll(0.0)

    # -- what happened -----------------------------------------------------------------------------------------------

    def lines(self) -> list[dict[str, Any]]:
        """The trace so far; the same list, which grows."""
        if isinstance(self.board, QemuBoard):
            time.sleep(3 * LOOK_S)  # it is written by a thread
        with self.log.open("rb") as stream:
            stream.seek(self._read_bytes)
            whole = stream.read().rpartition(b"\n")
        self._read_bytes += len(whole[0]) + len(whole[1])
        self._lines += [json.loads(line) for line in whole[0].splitlines()] + self._looks
        self._looks.clear()
        return self._lines

    def forget_trace(self) -> None:
        """Keep only the board's newest state of the trace so far."""
        self._lines[:] = [line for line in self._lines if "state" in line][-1:]

    def power_cycle(self, how: str) -> None:
        """Take the board's power away and give it back (``power``), or press its reset pin (``reset``)."""
        self.restarts += 1
        if isinstance(self.board, QemuBoard) and how == "reset":
            self.board.qmp("system_reset")
            return
        assert self.board is not None
        assert self.board.process is not None
        if self.kind == "host":
            self.board.process.send_signal(signal.SIGKILL)
            self.board.process.wait()
        else:
            assert isinstance(self.board, QemuBoard)
            self.board.qmp("quit")
        self._stack.close()
        self._stack = ExitStack()
        self._start()
