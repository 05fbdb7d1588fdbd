"""The integer policy of the boards: one quantised model, a NumPy reference and C sources that give the same bits."""

from export.integer.model import IntegerModel, Meaning, weight_bytes
from export.integer.reference import dequantise, quantise, run, step

__all__ = ["IntegerModel", "Meaning", "dequantise", "quantise", "run", "step", "weight_bytes"]
