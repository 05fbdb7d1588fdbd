"""The last two links of the hash chain: the image that the board runs, and the session's recording.

The first four come from the export folder (`export.chain`). A recording holds all six in its table ``chain``:

- ``image``: one part, the firmware's hash as HELLO_ACK reports it;
- ``session``: one part, a digest of everything else that the recording holds, written when the session ends. A
  recording without it is not closed: its host died, or its disk was full.

The digest finds a later change of any row. It is no signature: who can write the file can compute it again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from export.chain import LINKS, START, Chain, Link, extend, links_of

IMAGE, SESSION = "image", "session"
SESSION_LINKS = (*LINKS, IMAGE, SESSION)
NO_POLICY = "no policy, a baseline decided"


def no_policy() -> Chain:
    """The chain of a session without a policy: four absent links."""
    links: list[Link] = []
    for name in LINKS:
        links.append(extend(links[-1].hash if links else START, name, {}, NO_POLICY))
    return Chain(tuple(links))


def write_links(db: sqlite3.Connection, chain: Chain, firmware_build: bytes, note: str, place: Path | None) -> None:
    """Write every link that is known before the first decision: the policy's, and the board's image."""
    links = [*chain.links, extend(chain.model_hash, IMAGE, {"image": firmware_build.hex()}, note)]
    for link in links:
        _insert(db, link, place if link.name in LINKS else None)


def seal(db: sqlite3.Connection) -> None:
    """Write the last link over everything that the recording holds now."""
    row = db.execute("SELECT hash FROM chain WHERE link = ?", (IMAGE,)).fetchone()
    if row is not None:
        _insert(db, extend(bytes.fromhex(row[0]), SESSION, {"rows": digest_rows(db)}), None)


def read_links(db: sqlite3.Connection) -> tuple[dict[str, Link], Path | None, dict[str, str]]:
    """The links of a recording by name, where its export folder stood, and what is damaged: link -> why.

    All three are empty for a recording that was made without a chain.
    """
    links: dict[str, Link] = {}
    damaged: dict[str, str] = {}
    place: Path | None = None
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'chain'").fetchone() is None:
        return links, place, damaged
    rows = db.execute("SELECT link, parts, hash, note, place FROM chain ORDER BY link_index").fetchall()
    for name, parts, value, note, where in rows:
        try:
            (links[name],) = links_of([{"link": name, "parts": json.loads(parts), "hash": value, "note": note}])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            damaged[str(name)] = "its row of the recording is damaged"
        if name in LINKS and isinstance(where, str):
            place = Path(where)
    return links, place, damaged or ({} if rows else {LINKS[0]: "the recording names no link at all"})


def digest_rows(db: sqlite3.Connection) -> str:
    """Hex SHA-256 of the layout and all rows of a recording, less the row of the link ``session`` itself.

    Tables in the order of their names, rows in the order of their first column, each value with its type and length:
    no two contents give the same bytes.
    """
    digest = hashlib.sha256()
    for part in _contents(db):
        digest.update(part)
    return digest.hexdigest()


def _contents(db: sqlite3.Connection) -> Iterator[bytes]:
    layout = db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    for row in layout:
        yield _row(tuple(row))
    for kind, name, _ in map(tuple, layout):
        if kind != "table" or name.startswith("sqlite_"):
            continue
        quoted = '"' + name.replace('"', '""') + '"'
        but = f" WHERE link != '{SESSION}'" if name == "chain" else ""
        yield _row(("table", name))
        for row in db.execute(f"SELECT * FROM {quoted}{but} ORDER BY 1"):
            yield _row(tuple(row))


def _row(values: tuple[object, ...]) -> bytes:
    parts = [b"row %d\n" % len(values)]
    for value in values:
        if value is None:
            kind, data = b"n", b""
        elif isinstance(value, bytes):
            kind, data = b"b", value
        elif isinstance(value, int):
            kind, data = b"i", b"%d" % value
        elif isinstance(value, float):
            kind, data = b"f", value.hex().encode()
        else:
            kind, data = b"s", str(value).encode()
        parts.append(b"%s%d:%s" % (kind, len(data), data))
    return b"".join(parts)


def _insert(db: sqlite3.Connection, link: Link, place: Path | None) -> None:
    values = (link.name, json.dumps(dict(link.parts), sort_keys=True), link.hash.hex(), link.note)
    where = None if place is None else str(place.absolute())
    db.execute("INSERT INTO chain (link, parts, hash, note, place) VALUES (?, ?, ?, ?, ?)", (*values, where))
