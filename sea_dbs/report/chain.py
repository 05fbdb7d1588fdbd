"""The chain config -> weights -> ONNX -> session: every hash that can be recomputed here is recomputed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from envs.errors import UserError
from sea_dbs.config import load_config
from sea_dbs.files import read_json, sha256_file
from sea_dbs.report.find import Found, Part
from sea_dbs.report.session_data import read_session

GOOD, BAD, OPEN = "good", "bad", ""


@dataclass(frozen=True)
class Link:
    """A stated hash and what a check of it said; ``mark``: good, bad, or "" where nothing can check it."""

    what: str
    where: str
    sha256: str
    verdict: str
    mark: str


def links(found: Found) -> list[Link]:
    """All links in the order of the chain."""
    result: list[Link] = []
    for run in found.runs:
        result += _run(run)
    for evaluation in found.evaluations:
        weights = str(evaluation.facts["policy_sha256"])
        result.append(_match("evaluated weights", evaluation, weights, _weights(found), "the run's"))
    for export in found.exports:
        result += _export(export, found)
    for session in found.sessions:
        result += _session(session, found)
    return result


def _run(run: Part) -> list[Link]:
    facts = run.facts
    try:
        config = load_config(run.path / "config.yaml").sha256()
    except UserError:  # of another version: stated, not checkable
        config = None
    result = [_recomputed("config", run, str(facts["config_sha256"]), config, "config.yaml")]
    if facts.get("policy_sha256"):
        result.append(_file("weights", run, str(facts["policy_sha256"]), run.path / "policy.pt"))
    return result


def _export(export: Part, found: Found) -> list[Link]:
    hashes, precisions = export.facts["hashes"], export.facts["precisions"]
    configs = {str(run.facts["config_sha256"]) for run in found.runs}
    return [
        _match("exported config", export, hashes["config"], configs, "the run's"),
        _match("exported weights", export, hashes["weights"], _weights(found), "the run's"),
        *(
            _file(f"ONNX {name.upper()}", export, entry["sha256"], export.path / entry["file"])
            for name, entry in sorted(precisions.items())
        ),
    ]


def _session(session: Part, found: Found) -> list[Link]:
    hashes = read_session(session.path / "session.sqlite").hashes
    result = []
    if "onnx" in hashes:
        files = {entry["sha256"] for export in found.exports for entry in export.facts["precisions"].values()}
        result.append(_match("ONNX that decided", session, hashes["onnx"], files, "an exported file's"))
        # Recordings made before the chain reached to the C source were armed for the ONNX file itself.
        model = hashes.get("model", hashes["onnx"])
        if "model" in hashes:
            result.append(_match("head of the policy's chain", session, model, _heads(found), "an export's"))
        result.append(_match("model the board was armed for", session, hashes["board_model"], {model}, "the policy's"))
        result.append(_match("weights behind it", session, hashes["weights"], _weights(found), "the run's"))
    names = {
        "firmware": "firmware build",
        "schema": "message schema",
        "limits": "compiled limits",
        "env": "plant settings",
    }
    for key, what in names.items():
        if key in hashes:
            result.append(Link(what, session.name, hashes[key], "recorded", OPEN))
    return result


def _heads(found: Found) -> set[str]:
    files = [export.path / "chain.json" for export in found.exports]
    return {str(read_json(path).get("model_hash")) for path in files if path.is_file()}


def _weights(found: Found) -> set[str]:
    return {str(run.facts["policy_sha256"]) for run in found.runs if run.facts.get("policy_sha256")}


def _match(what: str, part: Part, stated: str, known: set[str], whose: str) -> Link:
    if stated in known:
        return Link(what, part.name, stated, f"equals {whose}", GOOD)
    if not known:
        return Link(what, part.name, stated, "nothing here to compare with", OPEN)
    return Link(what, part.name, stated, f"differs from {whose}", BAD)


def _file(what: str, part: Part, stated: str, path: Path) -> Link:
    return _recomputed(what, part, stated, sha256_file(path) if path.is_file() else None, path.name)


def _recomputed(what: str, part: Part, stated: str, actual: str | None, file: str) -> Link:
    if actual is None:
        return Link(what, part.name, stated, f"{file} is not there, or of another version", OPEN)
    if actual == stated:
        return Link(what, part.name, stated, f"recomputed from {file}: equal", GOOD)
    return Link(what, part.name, stated, f"{file} was changed: it is {actual[:12]} now", BAD)
