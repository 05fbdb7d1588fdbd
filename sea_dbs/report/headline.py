"""What happened, in plain words and five numbers, computed from the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sea_dbs.closed_loop import CONSTANT, OPEN_LOOP
from sea_dbs.report.page import Text, Tile
from sea_dbs.report.session_data import SessionData

LABEL_SENTENCES = {
    CONSTANT: (
        "What it learnt is constant stimulation: it stimulates in almost every slot, whatever it senses. "
        "It meets no goal of adaptive stimulation.",
        "warn",
    ),
    OPEN_LOOP: (
        "What it learnt is open-loop: with its observation silenced it loses nothing that these plants could show, "
        "so it cannot be said to use what it senses. It meets no goal of adaptive stimulation.",
        "warn",
    ),
    "": ("It uses what it senses: with its observation silenced it does worse, or needs more pulses.", "good"),
}
FULL = 0.99  # share of slots from which a train is called one of every slot
NO_CHANGE = 1.0  # % of untreated: less than this is called no change, whatever its interval

Row = Mapping[str, Any]


def percent(share: float) -> str:
    """A share as a percentage that never rounds up to all, or down to nothing."""
    value = 100.0 * share
    if 0.0 < value < 0.5 or 99.5 <= value < 100.0:
        return f"{value:.1f} %"
    return f"{value:.0f} %"


def between(ci: list[float] | None) -> str:
    """An interval in words, or nothing where there is none (a single plant); a narrow one gets a decimal."""
    if ci is None:
        return ""
    digits = 1 if ci[1] - ci[0] < 2.0 else 0
    return f"{ci[0]:.{digits}f} to {ci[1]:.{digits}f}"


def level(percent_of_untreated: float) -> str:
    """A level in % of untreated; close to no change it gets a decimal."""
    digits = 1 if 0.0 < abs(percent_of_untreated - 100.0) < NO_CHANGE else 0
    return f"{percent_of_untreated:.{digits}f}"


def row_of(evaluation: Row, controller: str) -> Row | None:
    """A controller's row of an evaluation."""
    return next((row for row in evaluation["rows"] if row["controller"] == controller), None)


def world_of(evaluation: Row) -> str:
    """In words, where the world is another one than in training, and how many plants a policy's row has lost."""
    plan, policy = evaluation["plan"], row_of(evaluation, "policy")
    words = ["patients of a cohort"] if plan.get("cohort") else []
    words += [f"in another world than in training ({', '.join(plan['world'])})"] if plan.get("world") else []
    if policy is not None and policy.get("diverged"):
        words.append(f"without {policy['diverged']} that diverged")
    return f" ({'; '.join(words)})" if words else ""


def of_evaluation(evaluation: Row) -> tuple[list[Text], list[Tile]]:
    """Did the policy lower beta, at which cost, and did it learn to listen?"""
    policy = row_of(evaluation, "policy")
    if policy is None:
        return [Text("The evaluation here compares baselines only: it holds no policy.")], []
    ci = between(policy["percent_of_untreated_ci95"])
    plants = f"{policy['seeds']} simulated networks" if policy["seeds"] != 1 else "one simulated network"
    texts = [
        Text(
            f"On {plants} that training never met{world_of(evaluation)}, the policy "
            f"{_effect(policy['percent_of_untreated'])} of untreated"
            + (f" (95 % interval {ci})" if ci else "")
            + f", with {percent(policy['duty'])} of the slots stimulated and "
            f"{policy['charge_percent_of_130Hz']:.0f} % of the charge of continuous 130 Hz stimulation."
        )
    ]
    if not policy["below_untreated"]:
        texts.append(Text("With so few plants this is not surely below untreated: it may be chance.", "warn"))
    texts.append(Text(*LABEL_SENTENCES[policy["label"]]))
    if others := _comparison(evaluation):
        texts.append(Text(f"For comparison, as a share of untreated: {others}."))
    tone = "warn" if policy["label"] or not policy["below_untreated"] else "good"
    tiles = [
        Tile(f"{level(policy['percent_of_untreated'])} %", "GPi beta power under the policy, of untreated", tone),
        Tile(
            percent(policy["duty"]),
            f"slots stimulated: {policy['label'] or 'adaptive'}",
            "warn" if policy["label"] else "",
        ),
        Tile(f"{policy['charge_percent_of_130Hz']:.0f} %", "charge, of continuous 130 Hz stimulation"),
    ]
    return texts, tiles


def _effect(percent_of_untreated: float) -> str:
    if abs(percent_of_untreated - 100.0) < NO_CHANGE:
        return f"left GPi beta power where it was, at {level(percent_of_untreated)} %"
    direction = "lowered" if percent_of_untreated < 100.0 else "raised"
    return f"{direction} GPi beta power to {percent_of_untreated:.0f} %"


def _comparison(evaluation: Row) -> str:
    names = {
        "always": "a pulse in every slot",
        "random": "random pulses at equal duty",
        "periodic": "the best regular train with no more pulses",
        "on-off": "the on-off threshold controller",
    }
    parts = []
    for controller, words in names.items():
        row = row_of(evaluation, controller)
        if row is not None:
            detail = f" ({row['detail'].split()[-2]} Hz)" if controller == "periodic" else ""
            if controller == "always" and row["duty"] < FULL:
                words = "as many pulses as may be given"
            parts.append(f"{words}{detail} {row['percent_of_untreated']:.0f} %")
    return ", ".join(parts)


def of_session(data: SessionData, summary: Row) -> tuple[list[Text], list[Tile]]:
    """What the closed loop over the board did, and whether every pulse stayed inside the envelope."""
    session, done = data.session, data.done
    if not done:
        return [Text("The session on the board ended before its first decision was over.", "bad")], []
    mean = float(np.mean([row["P_beta"] for row in done]))
    start = session["P_beta_first"]
    texts = [
        Text(
            f"In a closed loop over the board ({session['board']}), {len(done)} decisions or "
            f"{len(done) * data.decision_s:.0f} s, beta went from {start:.0f} before the first pulse to {mean:.0f} "
            "on average "
            f"({100 * mean / start:.0f} %), with {percent(data.duty())} of the slots stimulated: "
            f"{len(data.pulses):,} pulses "
            "came on the electrode."
        )
    ]
    if session["outcome"] != "finished":
        texts.append(Text(f"The session did not finish: {session['outcome'] or 'its host died'}.", "bad"))
    if late := sum(row["kind"] == "deadline" for row in data.events):
        texts.append(Text(f"The order came too late for {late} of {len(data.decisions)} decisions.", "warn"))
    tiles = []
    if (safety := summary.get("safety")) is not None:
        bad = safety["violations"]
        told = f"{bad} violations of the safety envelope were found" if bad else "none left the safety envelope"
        texts.append(Text(f"Every pulse was checked on the electrode: {told}.", "bad" if bad else "good"))
        tiles.append(Tile(f"{bad}", f"envelope violations in {len(data.pulses):,} pulses", "bad" if bad else "good"))
    return texts, tiles


def of_export(manifest: Row, parity: Row) -> tuple[list[Text], list[Tile]]:
    """Does the file for the board decide as the trained network?"""
    default = manifest["default"]
    row = next(r for r in parity["rows"] if r["precision"] == default and not r["weights"].startswith("untrained"))
    name, size = default.upper(), f"{row['file_bytes'] / 1000:,.0f} kB"
    if row["changed"]:
        told = (
            f"decides otherwise than the trained network in {row['changed']:,} of {row['decisions']:,} decisions, "
            "all at "
            f"margins of at most {row['largest_changed_margin']:.2g}"
        )
    else:
        told = f"takes all {row['decisions']:,} decisions over real observations as the trained network does"
    alike = (
        f"{row['decisions'] - row['changed']:,} of {row['decisions']:,}"
        if row["changed"]
        else f"all {row['decisions']:,}"
    )
    return (
        [Text(f"The {name} file for the board ({size}) {told}.")],
        [Tile(alike, f"decisions of the {name} file as in training")],
    )
