"""The gates of a release check: what the outcomes of its runs amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from firmware_bridge.release.plant import ARTEFACT, CONDITIONS, DRIFT, SEED
from firmware_bridge.release.run import UNTREATED, UNTREATED_DRIFT
from sea_dbs.seeds import BLOCK

PATIENTS_MIN = 20  # held-out patients of a release
SECONDS_MIN = 60.0  # s of closed loop of each run
BETA_SHARE_MIN = 0.95  # share of runs in which beta is not above untreated
TOGGLES_A_MINUTE = 30.0  # ours: on and off again every 4 s; the board itself goes to FALLBACK at 2 Hz
ARTEFACT_SLOTS_MAX = 0.05  # ours: share of slots that an artefact may change
CONSTANT_DUTY = 0.95  # above: "constant stimulation", whatever it observes

Outcome = Mapping[str, Any]


@dataclass(frozen=True)
class Gate:
    """One gate: ``found`` against ``limit``, and both in words."""

    name: str
    passed: bool
    found: float
    limit: float
    text: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compared(outcome: Outcome) -> str:
    """Which untreated run of the same patient a run is compared with."""
    return UNTREATED_DRIFT if outcome["condition"] == DRIFT else UNTREATED


def judge(
    treated: Sequence[Outcome], untreated: Mapping[tuple[int, str], float], toggles_a_minute: float = TOGGLES_A_MINUTE
) -> list[Gate]:
    """All gates, in order.

    Args:
        treated: outcomes of the runs with the policy.
        untreated: mean P_beta by (patient's index, untreated condition).
        toggles_a_minute: most that are allowed in any run.
    """
    runs = len(treated)
    whole = [run for run in treated if run["ended"] is None and run["P_beta"] is not None]
    below = sum(run["P_beta"] <= untreated[run["index"], compared(run)] for run in whole)
    rates = [run["toggles"] * 60.0 / run["seconds"] for run in treated]
    cycles = sum(run["fallbacks"].get("LIMIT_CYCLE", 0) for run in treated)
    breaches = sum(run["violations"] for run in treated)
    differ = sum(run["logits_differ"] for run in treated)
    seen = [run for run in treated if run["condition"] == ARTEFACT]
    driven = sum(run["artefact_toggles"] for run in seen)
    slots = sum(run["artefact_slots"] for run in seen) / max(1, sum(run["slots"] for run in seen))
    share, worst = below / max(1, runs), max(rates, default=0.0)
    return [
        Gate(
            "whole",
            len(whole) == runs and differ == 0,
            len(whole),
            runs,
            f"{len(whole)} of {runs} runs came to their end; {differ} logits of the board differ from the reference",
        ),
        Gate("envelope", breaches == 0, breaches, 0, f"{breaches} violations of the envelope at the electrode (0)"),
        Gate(
            "beta",
            share >= BETA_SHARE_MIN,
            share,
            BETA_SHARE_MIN,
            f"beta is not above untreated in {below} of {runs} runs, {share:.1%} (at least {BETA_SHARE_MIN:.0%})",
        ),
        Gate(
            "limit cycle",
            worst <= toggles_a_minute and cycles == 0,
            worst,
            toggles_a_minute,
            f"at most {worst:.1f} toggles a minute in a run ({toggles_a_minute:g}); the board went to FALLBACK by a "
            f"limit cycle {cycles} times (0)",
        ),
        Gate(
            "artefact",
            driven == 0 and slots <= ARTEFACT_SLOTS_MAX,
            driven,
            0,
            f"{driven} toggles driven by artefact (0); it changed {slots:.1%} of the slots ({ARTEFACT_SLOTS_MAX:.0%})",
        ),
    ]


def by_condition(treated: Sequence[Outcome], untreated: Mapping[tuple[int, str], float]) -> list[dict[str, Any]]:
    """One row a condition, for the table."""
    rows = []
    for condition in CONDITIONS:
        runs = [run for run in treated if run["condition"] == condition]
        pairs = [(run["P_beta"], untreated[run["index"], compared(run)]) for run in runs if run["P_beta"] is not None]
        rows.append(
            {
                "condition": condition,
                "runs": len(runs),
                "P_beta": _mean([with_it for with_it, _ in pairs]),
                "untreated_P_beta": _mean([without for _, without in pairs]),
                "not_above": sum(with_it <= without for with_it, without in pairs),
                "duty": _mean([run["duty"] for run in runs]),
                "toggles_a_minute": max((run["toggles"] * 60.0 / run["seconds"] for run in runs), default=0.0),
                "violations": sum(run["violations"] for run in runs),
                "fallbacks": sum(sum(run["fallbacks"].values()) for run in runs),
                "refused": sum(run["refused"] for run in runs),
                "artefact_toggles": sum(run["artefact_toggles"] or 0 for run in runs),
            }
        )
    return rows


def shortfall(patients: int, seconds: float, seed: int = SEED) -> str | None:
    """Why a check is not enough for a release, however it comes out; None: it is."""
    if not SEED <= seed <= seed + patients <= SEED + BLOCK:
        return f"the seed {seed} is none of {SEED} to {SEED + BLOCK - patients}, whose patients and plants are held out"
    if patients < PATIENTS_MIN or seconds < SECONDS_MIN:
        return (
            f"{patients} patients × {seconds:g} s are not enough for a release: {PATIENTS_MIN} × {SECONDS_MIN:g} s are"
        )
    return None


def kind(treated: Sequence[Outcome]) -> str:
    """What the policy is called: "adaptive", "constant stimulation" above a duty of 0.95, "no stimulation" at 0."""
    duty = _mean([run["duty"] for run in treated])
    if duty == 0:
        return "no stimulation"
    return "constant stimulation" if duty is not None and duty > CONSTANT_DUTY else "adaptive"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
