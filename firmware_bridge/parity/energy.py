"""An estimate of a decision's energy from a vendor's published current: instructions are counted, cycles are not."""

from __future__ import annotations

from typing import NamedTuple

MCU = "Nordic nRF52840 (Cortex-M4F, 64 MHz)"
CURRENT_UA_PER_MHZ = 52.0  # µA/MHz, CoreMark from flash, DC/DC regulator, 3.0 V, 25 °C: nRF52840 Product Specification
SUPPLY_V = 3.0  # V, the same source
CLOCK_MHZ = 64.0  # MHz, the core's only clock
CYCLES_LOW = 1.0  # cycles an instruction, the least of a Cortex-M4: Arm DDI 0439, table of instruction timings
CYCLES_HIGH = 2.0  # ours: loads take two cycles (same table), flash waits where the cache misses


class Energy(NamedTuple):
    """Of one decision; low and high are for 1 and 2 cycles an instruction."""

    low_uJ: float
    high_uJ: float
    low_ms: float
    high_ms: float


def estimate(instructions: float) -> Energy:
    """Energy (µJ) and time (ms) of so many Cortex-M4 instructions on `MCU`.

    Not a measurement: current differs from program to program (memory, multiplier), and the datasheet's is CoreMark's.
    """
    per_cycle_uJ = CURRENT_UA_PER_MHZ * SUPPLY_V * 1e-6  # µA/MHz · V = pW/Hz = pJ a cycle; 1e-6 µJ each
    low, high = instructions * CYCLES_LOW, instructions * CYCLES_HIGH
    return Energy(low * per_cycle_uJ, high * per_cycle_uJ, low / CLOCK_MHZ / 1e3, high / CLOCK_MHZ / 1e3)
