"""Opening a recording (session.sqlite) that may come from anywhere: rows are read, nothing in the file is run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from envs.errors import UserError
from sea_dbs.recording_schema import check

MAX_BYTES = 1 << 30  # ten hours of `paper` decisions take a tenth
MAX_VALUE_BYTES = 64 << 20  # one value, and one statement
_READS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_PRAGMA, sqlite3.SQLITE_FUNCTION,
     sqlite3.SQLITE_TRANSACTION}
)  # fmt: skip


@contextmanager
def open_recording(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to a file of plain tables.

    What it reads is one state of the file, held to `sea_dbs.recording_schema`: a value of a wrong type is found here.
    The file's own layout is not trusted: one with a view, a trigger, a virtual table or a computed column is refused,
    the connection may only read, and neither the file nor one value in it may be larger than `MAX_BYTES` and
    `MAX_VALUE_BYTES`. Errors of the caller's own statements come out as sentences too.

    Raises:
        UserError: missing, too large, no SQLite file, damaged, a value that is not what its column says, or it holds
            more than plain tables.
    """
    if not path.is_file():
        raise UserError(f"there is no recording {path}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path} has {size:,} bytes, more than the {MAX_BYTES:,} of any recording")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
                db.execute(f"PRAGMA {pragma}")
            db.set_authorizer(_may)
            db.execute("BEGIN")  # one state of a file that may still be written
            _check_schema(db, path)
            check(db, path)
            yield db
    except sqlite3.Error as error:
        raise UserError(f"{path} is no recording of a session, or damaged: {error}") from None


def _may(action: int, first: str | None, second: str | None, database: str | None, source: str | None) -> int:
    """Only reading; ``source`` names a view or trigger on whose behalf it would be done."""
    return sqlite3.SQLITE_OK if action in _READS and source is None else sqlite3.SQLITE_DENY


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        virtual = kind == "table" and not str(sql).upper().startswith("CREATE TABLE ")
        if kind not in ("table", "index") or (virtual and not str(name).startswith("sqlite_")):
            found = "virtual table" if virtual else kind
            raise UserError(f"{path} holds the {found} {str(name)[:64]!r}: a recording holds tables alone")
        if kind == "table":
            columns = db.execute(f"PRAGMA table_xinfo({quoted(str(name))})").fetchall()  # the table-valued form writes
            if computed := [column for _, column, *_, hidden in columns if hidden]:
                raise UserError(f"{path} computes the column {name}.{computed[0]}: a recording holds plain values")


def quoted(name: str) -> str:
    """A table's name as SQL."""
    return '"' + name.replace('"', '""') + '"'
