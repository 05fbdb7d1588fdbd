"""``sea-dbs foresight``: plant after plant, resumable, and what it says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from envs.stimulation import CONTINUOUS_HZ
from sea_dbs.files import atomic_write_bytes, prepare_output_dir, search_state, write_json
from sea_dbs.foresight.plants import DT_MS, settled
from sea_dbs.foresight.search import ForesightPlan, Found, search
from sea_dbs.manifest import machine
from sea_dbs.progress import progress
from sea_dbs.seeds import held_out_seeds
from sea_dbs.statistics import interval, iqm

RESULT = "foresight.json"
PARTIAL = "plants.partial.json"  # finished plants of a search that was stopped
PICTURE = "foresight.png"


def foresight(
    plan: ForesightPlan,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    threads: int = 1,
) -> dict[str, Any]:
    """Search every plant; writes foresight.json and foresight.png into ``out``.

    Returns:
        What foresight.json holds. ``plants``: P_beta ``untreated``, under the ``regular`` train and under the ``best``
        of the search, the pulses a second of both, the best train (``onsets_ms``). ``regular`` and ``best``: the change
        of P_beta in % of untreated, ``difference``: that of the two; interquartile means with 95 % intervals.

    Raises:
        UserError: a wrong plan, a folder in use or of another plan, or a plant that diverges.
    """
    plan.check()
    prepare_output_dir(out, overwrite=overwrite, resume=resume)
    if (done := search_state(out / RESULT, asdict(plan))) is not None:  # resumed, and finished
        return done
    state = search_state(out / PARTIAL, asdict(plan)) or {"plants": []}
    rows: list[dict[str, Any]] = state["plants"]
    seeds = held_out_seeds(plan.plants)
    with progress("foresight", len(seeds), len(rows), quiet=quiet) as bar:
        for seed in seeds[len(rows) :]:
            rows.append(row(seed, search(settled(seed, plan.samples), plan, threads)))
            write_json(out / PARTIAL, {"plan": asdict(plan), "plants": rows})
            change = [100.0 * (rows[-1][key] / rows[-1]["untreated"] - 1.0) for key in ("regular", "best")]
            bar.update(1, f"regular {change[0]:.1f} %, best {change[1]:.1f} %")
    result = {"kind": "foresight", "plan": asdict(plan), "plants": rows, **summary(rows), "machine": machine()}
    from sea_dbs import tune_figures

    atomic_write_bytes(out / PICTURE, tune_figures.foresight(result))
    write_json(out / RESULT, result)
    (out / PARTIAL).unlink(missing_ok=True)
    return result


def row(seed: int, found: Found) -> dict[str, Any]:
    """One plant as JSON."""
    values = found._asdict()
    onsets = values.pop("onsets")
    return {"seed": seed, **values, "onsets_ms": [round(float(onset) * DT_MS, 3) for onset in onsets]}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over plants: changes of P_beta in % of untreated, and pulses a second, also in % of continuous 130 Hz."""
    untreated, regular, best = (np.array([one[key] for one in rows]) for key in ("untreated", "regular", "best"))
    own, other = 100.0 * (best / untreated - 1.0), 100.0 * (regular / untreated - 1.0)
    hz = {key: float(np.mean([one[f"{key}_hz"] for one in rows])) for key in ("regular", "best")}
    return {
        "best": {"change": iqm(own), "ci95": interval(own), "pulse_hz": hz["best"]},
        "regular": {"change": iqm(other), "ci95": interval(other), "pulse_hz": hz["regular"]},
        "difference": {"change": iqm(own - other), "ci95": interval(own - other)},
        "pulses_percent_of_130Hz": 100.0 * hz["best"] / CONTINUOUS_HZ,
    }
