"""The two kernels of one network: equal in every spike; the fast one is some ten times faster than the scalar
reference."""

from __future__ import annotations

from envs.plant.network import Plant
from envs.plant.single import FastPlant, FastPlant32, RelayPlant, RelayPlant32

AnyPlant = Plant | FastPlant

KERNELS: dict[str, type[Plant] | type[FastPlant]] = {"fast": FastPlant, "reference": Plant}


def plant_type(kernel: str, precision: str, relay: bool = False) -> type[Plant] | type[FastPlant]:
    """The class of a kernel ("fast", "reference") in a precision; float32 and the record of thalamic spikes (``relay``)
    are the fast kernel's alone."""
    if relay:
        return RelayPlant32 if precision == "float32" else RelayPlant
    return FastPlant32 if precision == "float32" else KERNELS[kernel]
