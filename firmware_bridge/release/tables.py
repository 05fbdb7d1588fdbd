"""The report of a release check for people."""

from __future__ import annotations

from typing import Any

from firmware_bridge.release.gates import shortfall


def markdown(report: dict[str, Any], signed: str) -> str:
    """Table of conditions, gates, and what came of it; ``signed``: the last sentence."""
    facts, verdict = report["settings"], report["verdict"]
    cohort = facts["cohort"]
    lines = [
        f"Model {facts['model_hash'][:12]} ({facts['policy_format']}, decided by the {facts['board']}), firmware "
        f"{facts['firmware'][:12]}, limits {facts['limits_hash'][:12]}; {cohort['patients']} held-out patients of "
        f"cohort {cohort['seed']} × {len(facts['conditions'])} conditions × {facts['seconds']:g} s; {verdict['date']}, "
        f"commit {(verdict['git_commit'] or 'unknown')[:12]}",
        "",
        "| condition | runs | P_beta | untreated | not above | duty | toggles a minute (most) | violations | refused | "
        "by artefact |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["conditions"]:
        cells = (
            row["condition"],
            str(row["runs"]),
            _number(row["P_beta"], ".0f"),
            _number(row["untreated_P_beta"], ".0f"),
            f"{row['not_above']}/{row['runs']}",
            _number(row["duty"], ".2f"),
            f"{row['toggles_a_minute']:.1f}",
            str(row["violations"]),
            str(row["refused"]),
            str(row["artefact_toggles"]) if row["condition"] == "artefact" else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| gate | result | found (needed) |", "|---|---|---|"]
    for gate in verdict["gates"]:
        lines.append(f"| {gate['name']} | {'pass' if gate['passed'] else '**FAIL**'} | {gate['text']} |")
    lines += ["", f"What was checked is {verdict['kind']}.", "", conclusion(report), signed, ""]
    ended = [run for run in report["treated"] if run["ended"] is not None]
    lines += [f"- {run['patient']}, {run['condition']}: {run['ended']}" for run in ended[:10]]
    return "\n".join(lines)


def conclusion(report: dict[str, Any]) -> str:
    """One sentence."""
    verdict = report["verdict"]
    failed = [gate["name"] for gate in verdict["gates"] if not gate["passed"]]
    if verdict["released"]:
        return "RELEASED: every gate is passed."
    said = f"failed: {', '.join(failed)}" if failed else "every gate is passed"
    short = shortfall(verdict["cohort"]["patients"], verdict["seconds"], verdict["cohort"]["seed"])
    return f"NOT RELEASED: {said}{'' if short is None else f'; {short}'}."


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
