"""A driver behind the board's interface: what a session says to a board, said to a stimulator."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from envs.errors import UserError
from firmware_bridge.client import NO_MODEL, NO_RELEASE, BoardClient
from firmware_bridge.clock import ClockSample
from firmware_bridge.codes import AckCode, Fault, NackCode, State
from firmware_bridge.layout import PROTOCOL
from firmware_bridge.limits import LIMITS, LIMITS_HASH
from firmware_bridge.messages import SCHEMA_HASH, Ack, HelloAck, Nack, Status
from firmware_bridge.stimulators.interface import Reply, Stimulator
from firmware_bridge.stimulators.pacing import Paced, now_us

NONCE = bytes(16)  # nobody echoes it


class StimulatorClient(BoardClient):
    """Answers as a board would, from what the driver judges; no frame is sent.

    The device has no clock on its link: device time is the host's monotonic clock. Hashes of schema, limits and model
    are the host's own, because nothing else holds any; the firmware's is that of what the device calls itself.
    """

    def __init__(self, driver: Stimulator) -> None:
        assert isinstance(driver, Paced)
        super().__init__(driver.link)
        self.driver = driver
        self.identity = ""

    def close(self) -> None:
        """Stop the device and give the port back."""
        self.driver.close()

    @property
    def device_time_us(self) -> int:
        """The host's clock."""
        return now_us()

    def hello(
        self,
        model_hash: bytes = NO_MODEL,
        *,
        schema_hash: bytes = SCHEMA_HASH,
        limits_hash: bytes = LIMITS_HASH,
        shadow: bool = False,
        timeout_s: float = 3.0,
        refuse: bool = True,
    ) -> HelloAck:
        """Shake hands with the device; it holds no policy that a shadow could be cast by.

        Raises:
            UserError: no answer, or another device.
        """
        del shadow, timeout_s, refuse
        self.identity = self.driver.connect()
        self.board = HelloAck(
            protocol_min=PROTOCOL,
            protocol_max=PROTOCOL,
            features=0,
            host_nonce=NONCE,
            board_nonce=NONCE,
            refusal=0,
            state=int(self.driver.state),
            cause=int(self.driver.cause),
            firmware_build=hashlib.sha256(self.identity.encode()).digest(),
            schema_hash=schema_hash,
            limits_hash=limits_hash,
            model_hash=model_hash,
        )
        return self.board

    def arm(self, verdict_hash: bytes = NO_RELEASE, release_tag: bytes = NO_RELEASE) -> Ack:
        """See `Stimulator.arm`; such a device asks for no release."""
        del verdict_hash, release_tag
        self.driver.arm()
        return self._ack(Reply())

    def set_stim(
        self,
        decision_id: int,
        start_us: int,
        slot_period_us: int,
        mask: Sequence[int],
        amplitude_uA: int,
        width_us: int,
        lease_ms: int = LIMITS["LEASE_DEFAULT_MS"].value,
        *,
        check: bool = True,
        sensing: int = 0,
    ) -> Ack | Nack:
        """See `Stimulator.order`; the driver always checks. What was sensed must be fit to act on, as on a board."""
        del check
        if sensing:
            return _nack(Reply(code=NackCode.SENSING, value=sensing))
        reply = self.driver.order(decision_id, start_us, slot_period_us, mask, amplitude_uA, width_us, lease_ms)
        return self._ack(reply, decision_id) if reply.code is None else _nack(reply)

    def renew(self, decision_id: int) -> Ack | Nack:
        """See `Stimulator.renew`."""
        reply = self.driver.renew(decision_id)
        return self._ack(reply, decision_id) if reply.code is None else _nack(reply)

    def stop(self, reason: int = 0) -> Ack:
        """See `Stimulator.stop`."""
        del reason
        self.driver.stop()
        return self._ack(Reply())

    def heartbeat(self) -> Ack:
        """Renews nothing."""
        return self._ack(Reply())

    def status(self) -> Status:
        """What the driver knows.

        Raises:
            UserError: the driver is in SAFE_OFF; the sentence says why.
        """
        driver = self.driver
        if driver.state is State.SAFE_OFF:
            assert isinstance(driver, Paced)
            raise UserError(f"stimulation ended for good: {driver.fault}")
        counts = driver.counters
        missed = counts.slots_late + counts.slots_busy  # a board knows no device that is behind
        lease, late = driver.state is State.FALLBACK, missed > 0
        known = {
            "state": int(driver.state),
            "cause": int(driver.cause),
            "faults": lease * int(Fault.LEASE) | late * int(Fault.LATE),
            "pulses": counts.pulses,
            "slots_lapsed": counts.slots_lapsed,
            "slots_late": missed,
            "slots_too_soon": counts.slots_too_soon,
            "frames": counts.answers,
            "orders_refused": counts.orders_refused,
        }
        return Status(**{name: known.get(name, 0) for name in Status.__dataclass_fields__})

    def time_sync(self) -> ClockSample:
        """One clock: no offset."""
        now = now_us()
        return ClockSample(now, now, now, now)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Nothing comes unasked."""
        del timeout_s

    @staticmethod
    def _ack(reply: Reply, decision_id: int = 0) -> Ack:
        return Ack(
            of_sequence=0,
            of_type=0,
            code=int(AckCode.DONE),
            clamp=int(reply.clamp),
            decision_id=decision_id,
            start_us=reply.start_us,
            amplitude_uA=reply.amplitude_uA,
            width_us=reply.width_us,
            lease_until_us=reply.lease_until_us,
        )


def _nack(reply: Reply) -> Nack:
    assert reply.code is not None
    return Nack(of_sequence=0, of_type=0, code=int(reply.code), value=reply.value, low=reply.low, high=reply.high)
