"""A recorded session as one NWB file (Neurodata Without Borders, https://nwb.org), with ndx-dbs for the stimulator."""

from __future__ import annotations

from pathlib import Path

from envs.errors import UserError
from firmware_bridge.archive.source import Source
from sea_dbs.extras import need
from sea_dbs.files import atomic_write


def archive_session(session: Path, out: Path, *, overwrite: bool = False) -> dict[str, int]:
    """Write ``session`` (a session's folder, or its SQLite file) as the NWB file ``out``; rows of each table in it.

    Raises:
        UserError: no recording or a damaged one, ``out`` exists or is no .nwb file, the extra is missing, or the disk
            is full; ``out`` then stays what it was.
    """
    need("nwb", "pynwb", "ndx_dbs")
    if out.suffix != ".nwb":
        raise UserError(f"the archive {out} must end in .nwb")
    if out.is_dir():
        raise UserError(f"the archive {out} is a folder: name a file")
    if out.exists() and not overwrite:
        raise UserError(f"there is an archive {out} already: choose another --out, or pass --overwrite")
    source = Source.of(session)
    from firmware_bridge.archive.build import build, save

    try:
        nwbfile = build(source)
        atomic_write(out, lambda stream: save(nwbfile, stream))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{source.path} is damaged: it cannot be archived ({why})") from error
    return {name: len(rows) for name, rows in source.tables.items()}
