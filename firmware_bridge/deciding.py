"""A board that decides itself, as a controller: it is told what was observed, and what it took on is the answer."""

from __future__ import annotations

import time

import numpy as np

from envs.errors import UserError
from firmware_bridge.electrode import Electrode
from firmware_bridge.integer_policy import IntegerPolicy
from firmware_bridge.policy import BoardPolicy
from firmware_bridge.recorder import Recorder
from sea_dbs.controllers import Action, Observation, check_observation


class DecidingBoard(BoardPolicy):
    """Sends observations and takes the board's decisions, each beside what the same integers give on the host.

    The host changes nothing: what the board decided is what the electrode gives, also where the check finds that it
    differs; that is counted, and the summary says so. Where the policy was released, the session ends: what decides on
    the board is then not what was checked.

    Args:
        policy: quantises the observation, and is the reference.
        new_samples: values of an observation that the one before did not hold.
        checked: whether the board's logits must equal the reference bit by bit (not so for a float format).
        released: whether it drives by a release.
    """

    inner: IntegerPolicy

    def __init__(
        self,
        policy: IntegerPolicy,
        electrode: Electrode,
        recorder: Recorder,
        *,
        slots: int,
        n_obs: int,
        new_samples: int,
        checked: bool = True,
        released: bool = False,
    ) -> None:
        super().__init__(policy, electrode, recorder, slots=slots, n_obs=n_obs, new_samples=new_samples)
        self.name = f"{policy.name} decided by the board"
        self.checked, self.released = checked, released

    def act(self, observation: Observation) -> Action:
        """(1, n_obs) -> (1, slots), as applied by the board.

        Raises:
            UserError: a wrong shape or a value that is not finite (nothing is sent then), or what
                `Electrode.observe` raises; a released policy that is not the one on the board.
        """
        checked = check_observation(observation, n=1, n_obs=self.n_obs)
        start = time.perf_counter_ns()
        values = self.inner.quantise(checked)
        quantise_us = (time.perf_counter_ns() - start) // 1000
        resumed = self.electrode.orders.resumptions
        order = self.electrode.observe(values[0], self.sampling(self.new_samples or 0))
        if self.electrode.orders.resumptions != resumed:
            self.inner.init_state(1)  # the board was armed afresh, and has forgotten
        differ = None
        if order.decided is not None:
            expected = self.inner.infer(values)[0]
            if self.checked:
                differ = int(np.count_nonzero(order.decided.logits != expected))
        self._record(order, checked[0], None, quantise_us, values=values[0], differ=differ)
        if self.released and differ:
            raise UserError(
                f"the board at {self.electrode.client.link.name} does not decide by the policy that was released: "
                f"{differ} logits differ from its int8 reference"
            )
        self.last = order
        return np.array([order.applied_mask], np.int8)
