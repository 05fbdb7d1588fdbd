"""The host's side of a trial: a loop that orders, renews and observes as a session does, and can be made to fail."""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from firmware_bridge.codes import State
from firmware_bridge.faults.rig import N_OBS, Rig
from firmware_bridge.layout import Message
from firmware_bridge.messages import Nack, Renew, SetStim, pack_mask
from firmware_bridge.observation import Decided, Sampling, cut

LEASE_MS = 300
PATIENT_MS = 1000  # where the lease is not the matter and time is real: a busy machine must not end the loop
SLOT_US = 20_000
SLOTS = 50
RENEW_US = 100_000
AMPLITUDE_UA, WIDTH_US = 3000, 60
WELL, QUIET, NOT_A_NUMBER, SATURATED, SLOW = 0, 1, 2, 3, 4  # first value of an observation: policy.c


class Driver:
    """One trial's host loop on a rig."""

    def __init__(self, rig: Rig, rng: random.Random, lease_ms: int = LEASE_MS, *, patient: bool = False) -> None:
        """``patient``: with a longer lease where time is real."""
        self.rig, self.rng = rig, rng
        self.lease_ms = PATIENT_MS if patient and not rig.stepped else lease_ms
        self.mask = [1] * SLOTS
        self.amplitude_uA = AMPLITUDE_UA
        self.width_us, self.slot_us = WIDTH_US, SLOT_US
        self.decision_id = 0
        self.orders: list[tuple[int, int, int]] = []  # (id, start, end)
        self.samples = 0  # counter of the next new sample

    def begin(self) -> None:
        """A fresh session, armed; whatever was before is over."""
        self.rig.halt()
        client = self.rig.client
        if client.hello(self.rig.model, refuse=False).state == State.SAFE_OFF:
            self.rig.bench.press_button()
        client.hello(self.rig.model)
        client.arm()
        self.decision_id, self.orders, self.samples = 0, [], 0

    # -- orders ------------------------------------------------------------------------------------------------------

    def order(self, *, start_us: int = 0, wait: bool = True) -> Message | None:
        """One decision; without ``wait`` it is only sent."""
        self.decision_id += 1
        slots, bits = pack_mask(self.mask)
        start = start_us or self.rig.now()
        self.orders = [*self.orders[-3:], (self.decision_id, start, start + slots * self.slot_us)]
        order = SetStim(
            self.decision_id, start, self.slot_us, slots, bits, self.amplitude_uA, self.width_us, self.lease_ms, 0
        )  # fmt: skip
        return self.send(order, wait=wait)

    def send(self, message: Message, *, wait: bool = True) -> Message | None:
        """Send; with ``wait`` its answer, None where none came."""
        client = self.rig.client
        if wait:
            with suppress(UserError):
                return client._order(message)
            return None
        self.rig.link.write(client.connection.send(message))
        client.poll(0.0)
        return None

    def keep(self, *, wait: bool = True) -> None:
        """What a loop does every 100 ms: renew, or order what comes next."""
        now = self.rig.now()
        if not self.orders or now + RENEW_US + RENEW_US // 2 >= self.orders[-1][2]:
            ahead = self.orders[-1][2] if self.orders and self.orders[-1][2] > now else now
            self.order(start_us=ahead, wait=wait)
        else:
            self.renew(wait=wait)

    def renew(self, *, wait: bool = True) -> Message | None:
        """Renew the decision under way."""
        now = self.rig.now()
        under_way = [order for order in self.orders if order[1] <= now]
        return self.send(Renew((under_way or self.orders)[-1][0]), wait=wait)

    def drive(self, us: int, *, wait: bool = True) -> None:
        """The loop at work for so long."""
        end = self.rig.now() + us
        self.keep(wait=wait)
        while (left := end - self.rig.now()) > 0:
            self.rig.advance(min(left, RENEW_US))
            if left > RENEW_US:
                self.keep(wait=wait)

    # -- observations ------------------------------------------------------------------------------------------------

    def values(self, kind: int = WELL) -> NDArray[np.int8]:
        """An observation that the policy of the catalogue takes for an order to behave so."""
        values = np.array([self.rng.randint(-100, 100) for _ in range(N_OBS)], np.int8)
        values[0] = kind
        return values

    def observe(
        self, values: NDArray[np.int8], *, new: int = N_OBS, skip: int = 0, blanked: int = 0, age_us: int = 1000,
        start_us: int = 0, wait: bool = True,
    ) -> Decided | Nack | None:  # fmt: skip
        """Let the board decide; ``new`` samples are new, ``skip`` were lost before them."""
        self.decision_id += 1
        self.samples += new + skip
        sampling = Sampling(self.samples, self.samples + N_OBS - 1, blanked, age_us)
        if wait:
            with suppress(UserError):
                return self.rig.client.observe(self.decision_id, values, start_us, self.lease_ms, sampling)
            return None
        parts = cut(self.decision_id, values, start_us=start_us, lease_ms=self.lease_ms, sampling=sampling)
        self.rig.link.write(b"".join(self.rig.client.connection.send(part) for part in parts))
        return None

    def watch(self, us: int, every_us: int = 160_000, kind: int = WELL) -> None:
        """The board decides for so long: twenty slots of 20 ms each, a new one in time."""
        end = self.rig.now() + us
        while self.rig.now() < end:
            self.observe(self.values(kind))
            self.rig.advance(every_us)
