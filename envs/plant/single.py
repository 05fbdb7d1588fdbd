"""One network on the batch kernel: drop-ins for `envs.plant.network.Plant`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.plant import pallidum
from envs.plant.batch import LANES, BatchPlant, restored_lane, saved_lane
from envs.plant.batch_block import LaneState
from envs.plant.common import N_POPULATIONS
from envs.plant.network import Record
from envs.plant.state import Network, State, draw_network


class _View:
    """What others read or change of one network: writable views of its rows."""

    def __init__(self, plant: BatchPlant) -> None:
        self._plant = plant

    @property
    def V(self) -> NDArray[np.float64]:
        """Voltages (mV), shape (8, 10)."""
        return self._plant.rows(0, "V0", N_POPULATIONS)

    @property
    def gpi(self) -> NDArray[np.float64]:
        """Gates n, h, r of the GPi, shape (3, 10)."""
        return self._plant.rows(0, "gpi0", pallidum.N_GATES)

    @property
    def gpi_h_inf(self) -> NDArray[np.float64]:
        """h∞ at the last update's old voltage, shape (10,); a copy."""
        return self._plant.gpi_h_inf(0)


class FastPlant(BatchPlant):
    """One network on the batch kernel (a block of one lane, cells as lanes); a drop-in for `envs.plant.network.Plant`.

    Args:
        network: the draws and parameters.
        dt_ms: step of forward Euler (ms).

    Raises:
        UserError: dt out of range.
    """

    PRECISION, BLOCK, RELAY = "float64", 1, False  # of `BatchPlant`; networks that the compiled block holds

    def __init__(self, network: Network, dt_ms: float = 0.02) -> None:
        self._allocate(1, dt_ms, self.PRECISION, 1, self.BLOCK, self.RELAY)
        self.put(0, network)

    @classmethod
    def draw(cls, rng: np.random.Generator, pd: float = 1.0, dt_ms: float = 0.02) -> FastPlant:
        """A network drawn from a generator; pd 0 (healthy) to 1 (parkinsonian)."""
        return cls(draw_network(rng, pd), dt_ms)

    @property
    def network(self) -> Network:
        """What the network is."""
        network = self.networks[0]
        assert network is not None
        return network

    @property
    def sample(self) -> int:
        """Index of the current sample; time is sample × dt."""
        return self.sample_of(0)

    @property
    def state(self) -> _View:
        """Voltages and GPi gates, as they stand; assigning into them changes the network."""
        return _View(self)

    def advance(self, smc: NDArray[np.float64], dbs: NDArray[np.float64]) -> Record:  # type: ignore[override]
        """Advance by len(smc) updates; see `envs.plant.network.Plant.advance`."""
        if smc.ndim != 1 or smc.shape != dbs.shape:
            raise UserError(f"plant inputs have shapes {smc.shape} and {dbs.shape}: both must be (n,)")
        return super().advance(smc[None], dbs[None])[0]

    def get_state(self) -> dict[str, Any]:
        """Everything that makes this plant, as plain arrays and numbers."""
        return {"dt_ms": self.dt_ms, **saved_lane(self.network, self.take(0))}

    @classmethod
    def from_state(cls, values: dict[str, Any], threads: int = 1, relay: bool = False) -> FastPlant:
        """The plant that `get_state` saved; it continues bit for bit.

        Raises:
            UserError: a field is missing or has another shape.
        """
        plant = cls.__new__(cls)
        try:
            plant._allocate(1, float(values["dt_ms"]), cls.PRECISION, threads, cls.BLOCK, cls.RELAY or relay)
            plant.put(0, *restored_lane(values, plant._dtype))
        except (KeyError, TypeError) as error:
            raise UserError(f"the saved plant lacks the field {error}") from error
        return plant


class FastPlant32(FastPlant):
    """One float32 network, in the block of 8 lanes that a batch uses: the same bytes as in any lane of any batch."""

    PRECISION, BLOCK = "float32", LANES


class RelayPlant(FastPlant):
    """A `FastPlant` that also records the thalamic spikes of the error index."""

    RELAY = True


class RelayPlant32(FastPlant32):
    """A `FastPlant32` that also records the thalamic spikes of the error index."""

    RELAY = True


class LanePlant(FastPlant):
    """One network of a batch, seen as a plant of its own; time passes for it when its batch is advanced.

    Args:
        batch: the batch.
        i: which network.
    """

    def __init__(self, batch: BatchPlant, i: int) -> None:
        self._batch, self._i, self.dt_ms = batch, i, batch.dt_ms

    @property
    def network(self) -> Network:
        """What the network is."""
        network = self._batch.networks[self._i]
        assert network is not None
        return network

    def rows(self, i: int, name: str, count: int = 1) -> NDArray[Any]:
        """See `BatchPlant.rows`; the only network is 0."""
        return self._batch.rows(self._i + i, name, count)

    def take(self, i: int) -> LaneState:
        """See `BatchPlant.take`; the only network is 0."""
        return self._batch.take(self._i + i)

    def put(
        self,
        i: int,
        network: Network,
        state: LaneState | State | None = None,
        gain: NDArray[np.float64] | None = None,
    ) -> None:
        """See `BatchPlant.put`; the only network is 0."""
        self._batch.put(self._i + i, network, state, gain)

    def sample_of(self, i: int) -> int:
        """See `BatchPlant.sample_of`; the only network is 0."""
        return self._batch.sample_of(self._i + i)

    def advance(self, smc: NDArray[np.float64], dbs: NDArray[np.float64]) -> Record:  # type: ignore[override]
        """Refused: one lane of a batch cannot advance alone."""
        raise UserError("a network of a batch advances with its batch: call the vector environment's step")
