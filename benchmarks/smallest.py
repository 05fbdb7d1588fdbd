"""How small may the policy on the board be? ``python -m benchmarks.smallest --out out/smallest``

Witnesses (``export.witness``) of three sizes learn one rule. Each runs in INT8 on the same held-out plants; its P_beta
is held against the compact one in FP32: mean paired difference in per cent, 95 % bootstrap interval. Beside it what a
decision costs on an emulated Cortex-M4F. An actor keeps the outcome where its interval lies within ±3 % of P_beta.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from export import witness
from export.integer import IntegerModel, adversarial, ram_bytes, weight_bytes
from export.run import Settings, export_source
from export.source import read_run
from firmware_bridge.images import policy_source
from firmware_bridge.policy_bench import run_policy
from sea_dbs.files import prepare_output_dir, read_json, write_json
from sea_dbs.manifest import machine

ACTORS = ("compact", "small", "tiny")
BOARD = "qemu-m4f"
DRAWS = 10_000  # of the bootstrap
WITHIN = 3.0  # % of P_beta


def interval_of_mean(difference: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean; the draws are seeded."""
    rng = np.random.default_rng(0)
    means = difference[rng.integers(0, len(difference), (DRAWS, len(difference)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smallest", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--plants", type=int, default=40)
    given = parser.parse_args()
    prepare_output_dir(given.out)
    settings = Settings(targets=("c",), closed_loop_seeds=given.plants, compare_other=False)
    rows, reference = [], None
    for actor in ACTORS:
        run, folder = given.out / actor / "run", given.out / actor / "export"
        witness.write(run, actor=actor)
        export_source(read_run(run), folder, settings)
        outcome = read_json(folder / "parity.json")["closed_loop"]["by_seed"]
        if reference is None:
            reference = np.asarray(outcome["fp32"]["P_beta"])
        found = np.asarray(outcome["int8"]["P_beta"])
        percent = 100.0 * (found - reference) / reference.mean()
        low, high = interval_of_mean(percent)
        model = IntegerModel.load(folder / "integer.npz")
        probe = adversarial(32, model.n_obs, np.random.default_rng(0))
        ran = run_policy(BOARD, policy_source(folder, "int8"), probe, quiet=True)
        rows.append(
            {
                "actor": actor,
                "P_beta": float(found.mean()),
                "duty": float(np.mean(outcome["int8"]["duty"])),
                "percent": float(percent.mean()),
                "percent_ci95": (low, high),
                "keeps_the_outcome": low > -WITHIN and high < WITHIN,
                "weight_bytes": weight_bytes(model),
                "ram_bytes": ram_bytes(model),
                "stack_bytes": ran.stack_bytes,
                "instructions": ran.instructions,
            }
        )
        row = rows[-1]
        print(
            f"{actor}: {row['weight_bytes']:,} bytes of weights, {row['ram_bytes']:,} of RAM, {ran.instructions:,.0f} "
            f"instructions on {BOARD}; P_beta {row['P_beta']:.1f}, {percent.mean():+.2f} % against compact FP32 "
            f"({low:+.2f} to {high:+.2f}), duty {row['duty']:.3f}"
        )
    write_json(given.out / "smallest.json", {"plants": given.plants, "rows": rows, "machine": machine()})


if __name__ == "__main__":
    main()
