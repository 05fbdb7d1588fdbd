"""What a network's draws and parameters may be: shapes, wiring, physiological ranges; counts and seeds."""

from __future__ import annotations

import numpy as np

from envs.errors import UserError
from envs.plant.common import N_CELLS
from envs.plant.state import N_PERMUTATIONS, Network

V0_RANGE_MV = (-120.0, 60.0)  # mV, initial voltages: where the rates are tested (released draws: -62 and -63.8 ± 5)

# Largest value of each conductance (mS/cm²; the factor: 1): five times the upper end of the released draws
# (Kumaravelu 2016, `draw_network`), as a patient's conductances vary fourfold.
LARGEST = {
    "g_ctx_stn_ampa": 5.0 * 0.3,
    "g_ctx_stn_nmda": 5.0 * 0.003,
    "g_ctx_d1": 5.0 * 0.071,
    "g_gpe_gpe": 5.0 * 1.0,
    "g_stn_gpe_ampa": 5.0 * 0.3,
    "g_stn_gpe_nmda": 5.0 * 0.002,
    "g_stn_gpi": 5.0 * 0.15,
    "g_m": 5.0 * 2.6,
    "g_gpe_gpe_factor": 5.0 * 1.0,
}
_SHAPES = {"v0": (6, N_CELLS), "perm": (N_PERMUTATIONS, N_CELLS), "g_m": (), "g_gpe_gpe_factor": ()}


def check_count(value: object, name: str) -> int:
    """A number of things, if it is one.

    Raises:
        UserError: no whole number, or less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UserError(f"the number of {name} is {value!r}: allowed are whole numbers from 1")
    return int(value)


def check_seed(value: object, name: str) -> int | None:
    """A seed, or None, if it is one.

    Raises:
        UserError: no whole number, or a negative one.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise UserError(f"{name} is {value!r}: allowed are None and whole numbers from 0")
    return int(value)


def check_network(network: Network, name: str = "the network") -> None:
    """Refuse a network that the plant was not made for.

    Raises:
        UserError: a shape, a row of the wiring that is no permutation, or a value outside its range; it is named.
    """
    for field, value in network._asdict().items():
        shape = _SHAPES.get(field, (N_CELLS,))
        try:
            values = np.asarray(value)
        except ValueError:  # lists of different lengths
            raise UserError(f"{field} of {name} has no shape: expected {shape}") from None
        kinds, numbers = ("iu", "whole numbers 0 to 9") if field == "perm" else ("iuf", "numbers")
        if values.dtype.kind not in kinds:
            held = repr(value) if values.ndim == 0 else f"of type {values.dtype}"
            raise UserError(f"{field} of {name} is {held}: expected {numbers}, shape {shape}")
        if values.shape != shape:
            raise UserError(f"{field} of {name} has shape {values.shape}: expected {shape}")
    wrong = (np.sort(network.perm, axis=1) != np.arange(N_CELLS)).any(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"row {row} of perm of {name} is {np.asarray(network.perm)[row].tolist()}: expected each of 0 to 9 once"
        )
    _check_range(np.asarray(network.v0), V0_RANGE_MV, f"v0 of {name}", "mV")
    for field, largest in LARGEST.items():
        unit = "" if field == "g_gpe_gpe_factor" else "mS/cm²"
        _check_range(np.asarray(getattr(network, field)), (0.0, largest), f"{field} of {name}", unit)


def _check_range(values: np.ndarray, limits: tuple[float, float], name: str, unit: str) -> None:
    outside = ~((values >= limits[0]) & (values <= limits[1]))  # NaN is outside too
    if outside.any():
        value = float(values[outside].flat[0])
        raise UserError(f"{name} is {value:g} {unit}".rstrip() + f": allowed are {limits[0]:g} to {limits[1]:g}")
