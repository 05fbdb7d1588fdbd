"""The release that a session's board was armed with, as its recording holds it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from envs.errors import UserError
from sea_dbs.report.session_data import SessionData


class Held(NamedTuple):
    """What a reader wants to know of it."""

    verdict_sha256: str
    key: str  # fingerprint
    date: str
    text: str


def held(data: SessionData) -> Held | None:
    """None: bench mode, a classical controller, or shadow.

    Raises:
        UserError: the recording's release is damaged.
    """
    text = data.session.get("release")
    if text is None:
        return None
    try:
        found: dict[str, Any] = json.loads(text)
        verdict, sha, key = found["verdict"], str(found["verdict_sha256"]), str(found["key"])
        patients, conditions, seconds = verdict["cohort"]["patients"], len(verdict["conditions"]), verdict["seconds"]
        what = f"{patients} held-out patients × {conditions} conditions × {seconds:g} s, {verdict['kind']}"
        date = str(verdict["date"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError("the recording is damaged: its release is not what 'sea-dbs release' signs") from None
    return Held(sha, key, date, f"{date[:10]}, {what}; signed by the key {key}, verdict {sha[:12]}")
