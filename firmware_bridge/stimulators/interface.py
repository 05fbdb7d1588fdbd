"""What a session needs of a stimulator: the same few orders that a board takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from firmware_bridge.codes import Cause, Clamp, NackCode, State
from sea_dbs.report.session_data import NO_DEVICE_ENVELOPE

WARNING = (
    f"{NO_DEVICE_ENVELOPE}: limits, charge balance and lease are kept by the host alone; "
    "bench mode: emulator only; research use only"
)


class Capabilities(NamedTuple):
    """What a device can do, and its own limits; the effective limit is the least of these and ours."""

    device: str
    amplitude_max_uA: int
    width_grid_us: int  # a width is a whole multiple of this
    sets_amplitude: bool  # False: a trigger source, the current is set by hand on what it triggers
    trains: bool  # True: it can give a finite train by itself, timed by its own clock
    device_envelope: bool = False


class Reply(NamedTuple):
    """What became of an order: refused (code set; value, low, high as in NACK) or the applied values."""

    code: NackCode | None = None
    value: int = 0
    low: int = 0
    high: int = 0
    amplitude_uA: int = 0
    width_us: int = 0
    clamp: Clamp = Clamp(0)
    start_us: int = 0
    lease_until_us: int = 0


class Counters(NamedTuple):
    """Of a driver since it was connected."""

    triggers: int = 0  # sent to the device: a single pulse or a train each
    pulses: int = 0  # that these triggers ask for
    slots_late: int = 0  # not given: the host came more than half a period too late
    slots_lapsed: int = 0  # not given: the lease had ended
    slots_too_soon: int = 0  # not given: the last pulse was too near
    slots_busy: int = 0  # not given: the last trigger was not answered yet, or taken too late, or this one refused
    orders_refused: int = 0
    answers: int = 0  # of the device


class Stimulator(Protocol):
    """A stimulator. Times are µs on the host's monotonic clock (`time.monotonic_ns() // 1000`): the devices tell none.

    All methods raise `UserError` when the device does not answer, or answers what its protocol does not allow; the
    driver is in SAFE_OFF then and triggers nothing any more.
    """

    capabilities: Capabilities
    name: str

    @property
    def state(self) -> State:
        """As a board's state; SAFE_OFF is left by connecting afresh only."""

    @property
    def cause(self) -> Cause:
        """Why it is in its state."""

    @property
    def counters(self) -> Counters:
        """Counted since it was connected."""

    def connect(self) -> str:
        """Shake hands; what the device said it is."""

    def arm(self) -> None:
        """Stop the device, give it safe settings, and accept orders from here."""

    def order(
        self,
        decision_id: int,
        start_us: int,
        slot_period_us: int,
        mask: Sequence[int],
        amplitude_uA: int,
        width_us: int,
        lease_ms: int,
    ) -> Reply:
        """Take one decision: a pulse at the start of each set slot, while the lease lasts. One next may be queued."""

    def renew(self, decision_id: int) -> Reply:
        """Extend the lease of a decision held."""

    def stop(self) -> None:
        """End stimulation; works in every state, any number of times."""

    def close(self) -> None:
        """Stop, and give the port back."""
