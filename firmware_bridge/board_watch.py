"""The board's state as a session last saw it, with its causes and faults; each change is recorded."""

from __future__ import annotations

from envs.errors import UserError
from firmware_bridge.bench import Bench
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import Cause, Fault, State
from firmware_bridge.recorder import Recorder


class BoardWatch:
    """See the module."""

    def __init__(self, client: BoardClient, bench: Bench, recorder: Recorder) -> None:
        self.client, self.bench, self.recorder = client, bench, recorder
        self.state = State.BOOT if client.board is None else State(client.board.state)
        self._fault_bits = 0

    def look(self) -> None:
        """Look whether the board changed its state since it was last asked (as the electrode channel shows it).

        Unasked STATUS frames are not used: when one is read depends on the host's timing, and records must repeat.

        Raises:
            UserError: as `read`.
        """
        if self.bench.state is not self.state:
            self.read()

    def read(self) -> None:
        """Ask for the state; record it with its cause if it is new, and new faults.

        Raises:
            UserError: the board latched SAFE_OFF, or does not answer.
        """
        self.client.notices.clear()
        status = self.client.status()
        at = self.client.device_time_us
        cause = Cause(status.cause)
        if status.state != self.state:
            self.state = State(status.state)
            self.recorder.event(at, "state", f"{self.state.name}: {cause.doc}", code=status.state)
        for bit in Fault:
            if bit & status.faults & ~self._fault_bits:
                self.recorder.event(at, "fault", bit.doc, code=int(bit))
        self._fault_bits = status.faults
        if self.state is State.SAFE_OFF:
            raise UserError(f"the board at {self.client.link.name} latched SAFE_OFF ({cause.doc}): press its button")
