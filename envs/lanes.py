"""One lane of a vector environment: a single environment, cut where its plant is advanced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import BasalGangliaEnv, Inputs
from envs.config import EnvConfig
from envs.patients import Patient
from envs.plant.batch import BatchPlant, Failure, NetworkFailedError
from envs.plant.kernels import AnyPlant
from envs.plant.network import Record
from envs.plant.single import LanePlant
from envs.plant.state import Network
from envs.registration import with_layers
from envs.wrappers.base import Layer, Start, Step


class LaneEnv(BasalGangliaEnv):
    """A single environment whose plant is a lane of a batch."""

    lane: LanePlant | None = None

    def _load_plant(self, values: dict[str, Any]) -> AnyPlant:
        del values  # the batch was restored before its lanes
        assert self.lane is not None
        return self.lane


class Lane:
    """One environment with its layers, cut where its plant is advanced."""

    def __init__(self, config: EnvConfig, patient: Patient | None) -> None:
        self.base = LaneEnv(config)
        self.env = with_layers(self.base, patient)
        self._layers: list[Layer] = []  # outermost first
        layer = self.env
        while isinstance(layer, Layer):
            self._layers.append(layer)
            layer = layer.env

    def begin_reset(self, seed: int | None, options: dict[str, Any]) -> tuple[Network, Inputs]:
        """The network of the next episode, and what it is to be advanced with."""
        for layer in self._layers:
            options = layer.before_reset(seed, options)
        return self.base.begin_reset(seed, options)

    def undo(self) -> Callable[[], None]:
        """What brings the lane back to where it stands now, if `begin_reset` was all that happened since."""
        before = [(each, dict(vars(each))) for each in (*self._layers, self.base)]
        streams = {id(value): value for _, values in before for value in values.values() if _is_stream(value)}
        states = [(stream.bit_generator, stream.bit_generator.state) for stream in streams.values()]

        def undo() -> None:
            for each, values in before:
                vars(each).clear()
                vars(each).update(values)
            for generator, state in states:
                generator.state = state

        return undo

    def finish_reset(self, plant: LanePlant, record: Record) -> Start:
        """The first observation, of the plant as advanced."""
        observation, info = self.base.finish_reset(plant, record)
        for layer in reversed(self._layers):
            observation, info = layer.after_reset(observation, info)
        return observation, info

    def begin_step(self, action: NDArray[np.int8]) -> Inputs:
        """What the plant is to be advanced with."""
        for layer in self._layers:
            layer.before_step()
        smc, current = zip(*self.base.begin_step(action), strict=True)
        return np.concatenate(smc), np.concatenate(current)

    def finish_step(self, record: Record) -> Step:
        """The step, from what happened in the plant."""
        step = self.base.finish_step([record])
        for layer in reversed(self._layers):
            step = layer.after_step(step)
        return step


def _is_stream(value: Any) -> bool:
    return isinstance(value, np.random.Generator)


def network_of(batch: BatchPlant, i: int) -> Network:
    """What network ``i`` of a batch is."""
    network = batch.networks[i]
    assert network is not None
    return network


def by_length(inputs: Mapping[int, Inputs]) -> Iterable[dict[int, Inputs]]:
    """Lanes grouped by the length of their decision (it varies by a sample where a slot is no whole number of them)."""
    groups: dict[int, dict[int, Inputs]] = {}
    for i, own in inputs.items():
        groups.setdefault(len(own[0]), {})[i] = own
    return groups.values()


def advance_some(plant: BatchPlant, inputs: Mapping[int, Inputs]) -> tuple[list[Record], dict[int, Failure]]:
    """Advance a batch; networks without inputs get none. The records of all, and who failed."""
    n = len(next(iter(inputs.values()))[0])
    smc, current = np.zeros((2, len(plant), n))
    for i, own in inputs.items():
        smc[i], current[i] = own
    try:
        return plant.advance(smc, current), {}
    except NetworkFailedError as error:
        return error.records, error.failures
