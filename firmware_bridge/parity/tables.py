"""The tables of a comparison on boards, as Markdown."""

from __future__ import annotations

from typing import Any

from firmware_bridge.parity.energy import CURRENT_UA_PER_MHZ, MCU, SUPPLY_V


def markdown(result: dict[str, Any]) -> str:
    """The two tables of a comparison."""
    lines = [
        f"Policy `{result['policy']}`, model `{result['model_hash'][:12]}`, seed {result['seed']}: int8 on "
        f"{result['real']:,} real and {result['adversarial']:,} adversarial observations, float formats on fewer.",
        "",
        "| format | target | logits equal, real | adversarial | decisions alike | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        n_hostile = row["observations"] - min(result["real"], row["observations"] // 2)
        n_real = row["observations"] - n_hostile
        unit = "" if row["format"] == "int8" else " (to the ONNX file)"
        lines.append(
            f"| {row['format']} | {row['target']} | {row['equal_real']:,} of {n_real:,} | "
            f"{row['equal_adversarial']:,} of {n_hostile:,} | {row['decisions_alike']:,} of {row['decisions']:,} | "
            f"{row['largest_logit_difference']:.2g}{unit} |"
        )
    lines += [
        "",
        "int8 is held against the NumPy reference, the float formats against the first target of their row, and their "
        "decisions against ONNX Runtime on the same quantised observations.",
        "",
        "| format | board | policy flash (B) | policy RAM (B) | image flash (B) | image RAM (B) | stack (B) | "
        "instructions a decision | energy a decision |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["cost"]:
        energy = row.get("energy")
        spent = f"{energy['low_uJ']:.0f}-{energy['high_uJ']:.0f} µJ" if energy else ""
        counted = "" if row["instructions"] is None else f"{row['instructions']:,.0f}"
        lines.append(
            f"| {row['format']} | {row['board']} | {row['policy_flash_bytes']:,} | {row['policy_ram_bytes']:,} | "
            f"{_number(row.get('flash_bytes'))} | {_number(row.get('ram_bytes'))} | {row['stack_bytes']:,} | "
            f"{counted} | {spent} |"
        )
    lines += [
        "",
        "Instructions, not cycles: counted in QEMU under `-icount` (boards) and by callgrind (host). Stack: high-water "
        "mark below the caller of the policy. RAM without the stack. "
        f"Energy: an estimate for {MCU} at {CURRENT_UA_PER_MHZ:g} µA/MHz and {SUPPLY_V:g} V (CoreMark from flash, "
        "DC/DC; nRF52840 Product Specification) and 1 to 2 cycles an instruction; not measured on a device.",
    ]
    return "\n".join(lines) + "\n"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
