"""The two kernels of one network: equal in every spike; the fast one is some ten times faster than the scalar
reference."""

from __future__ import annotations

from envs.plant.batch import FastPlant
from envs.plant.network import Plant

AnyPlant = Plant | FastPlant

KERNELS: dict[str, type[Plant] | type[FastPlant]] = {"fast": FastPlant, "reference": Plant}
