"""A recording as an archive needs it: every table there is, what each column means, and one axis of time."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from envs.errors import UserError
from firmware_bridge.chain import digest_rows
from firmware_bridge.recorder import SESSION_FILE
from sea_dbs.recording_file import open_recording, quoted
from sea_dbs.report.session_data import SessionData, read_session

Row = dict[str, Any]
_COMMENT = re.compile(r"^\s*(\w+)\s[^\n]*?--\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """See the module. Time 0 of the archive lies ``zero_us`` before the plant's 0, so that no time is negative."""

    path: Path
    data: SessionData
    tables: dict[str, list[Row]]  # also those of later versions
    comments: dict[str, dict[str, str]]  # table -> column -> what it means, as the file itself says
    digest: str  # of all rows: what this archive was made from
    offset_us: int  # device time = plant time + offset
    zero_us: int

    @staticmethod
    def of(session: Path) -> Source:
        """Read a session's folder or its SQLite file.

        Raises:
            UserError: missing, no recording, or damaged.
        """
        path = session / SESSION_FILE if session.is_dir() else session
        data = read_session(path)
        with open_recording(path) as db:
            db.row_factory = sqlite3.Row
            (checked,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if checked != "ok":
                raise UserError(f"{path} is damaged: {' '.join(str(checked).split())}")
            layout = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
            names = [row["name"] for row in layout if not row["name"].startswith("sqlite_")]
            tables = {
                name: [dict(row) for row in db.execute(f"SELECT * FROM {quoted(name)} ORDER BY 1")] for name in names
            }
            comments = {row["name"]: dict(_COMMENT.findall(row["sql"])) for row in layout}
            digest = digest_rows(db)
        try:
            return Source(path, data, tables, comments, digest, *_axis(data))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: its table session cannot be understood ({error})") from error

    @property
    def foreign(self) -> str | None:
        """Where the observations came from, if it was no plant: in the words of the recording."""
        return next((str(row["text"]) for row in self.data.events if row["kind"] == "source"), None)

    @property
    def simulated_s(self) -> float:
        """Plant's 0 on the axis of the archive (s)."""
        return self.zero_us * 1e-6

    def seconds(self, device_us: float) -> float:
        """Device time (µs) on the axis of the archive (s)."""
        return (device_us - self.offset_us + self.zero_us) * 1e-6

    def started(self) -> datetime:
        """When the host began.

        Raises:
            ValueError: the recording does not hold it.
        """
        started = datetime.fromisoformat(self.data.session["host_started"])
        if started.tzinfo is None:
            raise ValueError("host_started has no time zone")
        return started

    def zero_time(self) -> datetime:
        """The wall-clock time of the axis' 0: by the first order in real time; in lockstep, where the two have nothing
        to do with each other, when the host began."""
        if self.data.session["clock"] != "realtime" or not self.data.decisions:
            return self.started()
        first = self.data.decisions[0]
        sent = datetime.fromtimestamp(first["host_sent"], self.started().tzinfo)
        return sent - timedelta(seconds=self.seconds(first["sent_us"]))


def _axis(data: SessionData) -> tuple[int, int]:
    settle_us = round(data.setting("settle_ms", 0.0) * 1000)
    first = [row["device_us"] for row in data.events[:1]]
    offset_us = data.session["offset_us"]
    if offset_us is None:  # it ended before the clocks were compared
        offset_us = first[0] if first else 0
    return int(offset_us), max(settle_us, *(offset_us - t for t in first), 0)
