"""``sea-dbs bound``: plant after plant, resumable, and what it says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import UserError
from sea_dbs.bound.plants import settled
from sea_dbs.bound.search import BoundPlan, Found, search
from sea_dbs.files import atomic_write_bytes, prepare_output_dir, read_json, write_json
from sea_dbs.manifest import machine
from sea_dbs.measures import CONTINUOUS_HZ
from sea_dbs.progress import progress
from sea_dbs.seeds import held_out_seeds
from sea_dbs.statistics import interval, iqm

BOUND = "bound.json"
PARTIAL = "plants.partial.json"  # finished plants of a search that was stopped
PICTURE = "bound.png"


def bound(
    plan: BoundPlan,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    threads: int = 1,
) -> dict[str, Any]:
    """Search every plant; writes bound.json and bound.png into ``out``.

    Returns:
        What bound.json holds: ``plants`` (P_beta untreated, regular, best; Hz), and ``regular`` and ``best`` as change
        of P_beta in % of untreated, ``difference`` of the two, each an interquartile mean with its 95 % interval.

    Raises:
        UserError: a wrong plan, or a folder in use or of another plan.
    """
    plan.check()
    prepare_output_dir(out, overwrite=overwrite, resume=resume)
    seeds = held_out_seeds(plan.plants)
    rows = _resumed(out, plan)
    with progress("bound", len(seeds), len(rows), quiet=quiet) as bar:
        for seed in seeds[len(rows) :]:
            found = search(settled(seed, plan.seconds * 1000.0), plan, threads)
            rows.append({"seed": seed, **found._asdict()})
            write_json(out / PARTIAL, {"plan": asdict(plan), "plants": rows})
            bar.update(1, f"regular {_change(found, 'regular'):.1f} %, best {_change(found, 'best'):.1f} %")
    result = {"kind": "bound", "plan": asdict(plan), "plants": rows, **summary(rows), "machine": machine()}
    write_json(out / BOUND, result)
    from sea_dbs import tune_figures

    atomic_write_bytes(out / PICTURE, tune_figures.bound(result))
    (out / PARTIAL).unlink(missing_ok=True)
    return result


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over plants: changes in % of untreated, and pulses in % of continuous 130 Hz."""
    untreated, regular, best = (np.array([row[key] for row in rows]) for key in ("untreated", "regular", "best"))
    own, other = 100.0 * (best / untreated - 1.0), 100.0 * (regular / untreated - 1.0)
    rate = float(np.mean([row["pulse_hz"] for row in rows]))
    return {
        "best": {"change": iqm(own), "ci95": interval(own)},
        "regular": {"change": iqm(other), "ci95": interval(other)},
        "difference": {"change": iqm(own - other), "ci95": interval(own - other)},
        "pulse_hz": rate,
        "pulses_percent_of_130Hz": 100.0 * rate / CONTINUOUS_HZ,
    }


def _change(found: Found, key: str) -> float:
    return 100.0 * (float(getattr(found, key)) / found.untreated - 1.0)


def _resumed(out: Path, plan: BoundPlan) -> list[dict[str, Any]]:
    path = out / PARTIAL
    if not path.exists():
        return []
    state = read_json(path)
    if state.get("plan") != asdict(plan):
        raise UserError(f"{out} holds a search with another plan: choose another --out, or pass --overwrite")
    plants: list[dict[str, Any]] = state["plants"]
    return plants
