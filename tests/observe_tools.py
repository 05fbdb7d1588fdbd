"""The twin of tests/firmware/tiny_policy.h, and a board in this process that decides with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.client import BoardClient
from firmware_bridge.links import LoopbackLink
from tests.board_tools import NONCE, CoreInProcess

N_OBS, SLOTS, SLOT_US = 400, 60, 20_000
NOT_FINITE = -(2**31)
Values = NDArray[np.int8]


class TinyPolicy:
    """What tiny_policy.h answers, decision by decision."""

    def __init__(self, n_obs: int = N_OBS, slots: int = SLOTS) -> None:
        self.n_obs, self.slots = n_obs, slots
        self.state = 0

    def infer(self, values: Values) -> NDArray[np.int32]:
        """(n_obs,) int8 -> (slots, 2) int32; its state advances."""
        weighted = values.astype(np.int64) * (1 + np.arange(self.n_obs) % 7)
        logits = np.zeros((self.slots, 2), np.int64)
        logits[:, 0] = 16 * self.state
        logits[:, 1] = [256 * weighted[slot :: self.slots].sum() for slot in range(self.slots)]
        self.state += int(values[0])
        if values[1] == -128:
            logits[3] = NOT_FINITE
        return logits.astype(np.int32)


def observation(seed: int = 0, n_obs: int = N_OBS) -> Values:
    """Random values, none of which asks the tiny policy to fail."""
    return np.random.default_rng(seed).integers(-127, 128, n_obs, dtype=np.int8)


def armed(core: CoreInProcess) -> BoardClient:
    """A client of a board in this process, armed."""
    client = BoardClient(LoopbackLink(core), nonce=NONCE)
    client.hello()
    client.arm()
    return client
