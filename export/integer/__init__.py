"""The integer policy of the boards: one quantised model, a NumPy reference and C sources that give the same bits."""

from export.integer.adversarial import adversarial
from export.integer.c_float import float_c_source
from export.integer.c_int8 import c_source, ram_bytes
from export.integer.model import IntegerModel, Meaning, weight_bytes
from export.integer.reference import dequantise, quantise, run, step

__all__ = [
    "IntegerModel",
    "Meaning",
    "adversarial",
    "c_source",
    "dequantise",
    "float_c_source",
    "quantise",
    "ram_bytes",
    "run",
    "step",
    "weight_bytes",
]
