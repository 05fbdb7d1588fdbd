"""The file under a recording: SQLite in WAL mode, committed on time, and kept readable when something happens to it.

- **kill -9**: a thread of its own commits what is `FLUSH_S` old, also while the session computes or hangs.
- **disk full**: a reserve, taken at the start, is given back at the first failed write, so that the end still fits.
- **moved, deleted**: looked for at each commit. What was written is put into a whole file again: in place where only
  SQLite's own files beside it were lost, in a moved file too, and as a copy where the recording was begun.

Each of the last two raises once, at the caller's next call: the session is to end. What it writes while it ends is
taken if it can be.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from envs.errors import UserError
from sea_dbs.files import writing

FLUSH_S = 0.4  # s of wall time after which what was written is committed
LOOK_S = 0.1  # s between two looks whether it is time
LOCK_S = 0.2  # s for which another program may lock the file: shorter than a lease
_DISK = {  # what SQLite says of a disk, in words that lead somewhere
    sqlite3.SQLITE_FULL: "no space left on its disk",
    sqlite3.SQLITE_IOERR: "its disk takes no more: broken, over a quota, or at the largest file size, see ulimit -f",
}
RESERVE_BYTES = 1 << 20  # room for the end of a session (events, outcome, chain) and for a reader's index (32 kB)

Identity = tuple[int, int]  # device and inode


class RecordFile:
    """One SQLite file that only this object writes.

    Args:
        path: the file, which must not exist.
        script: SQL that lays it out.

    Raises:
        UserError: it exists or cannot be written.
    """

    def __init__(self, path: Path, script: str) -> None:
        self.path = path
        if path.exists():
            raise UserError(f"there is a recording {path} already: choose another --out, or pass --overwrite")
        self._lock = threading.RLock()
        self._dirty_since: float | None = None
        self._failure: UserError | None = None  # of the thread; raised at the next call
        self._closed = threading.Event()
        self._reserve = _reserve(path.parent)
        try:
            with self._sentence():
                self._db = _connect(path)
                self._db.executescript(f"BEGIN; {script} COMMIT;")
            self._files = self._identities()
        except BaseException:
            self._give_back()
            if hasattr(self, "_db"):
                self._db.close()
            raise
        self._thread = threading.Thread(target=self._watch, name="recorder", daemon=True)
        self._thread.start()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write something; it is committed by `commit`, `tick`, or `FLUSH_S` later.

        Raises:
            UserError: it cannot be written, or what went wrong since the last call.
        """
        with self._lock:
            self._raise_failure()
            with self._sentence():
                if not self._db.in_transaction:
                    self._db.execute("BEGIN IMMEDIATE")
                    self._dirty_since = time.monotonic()
                yield self._db

    def commit(self) -> None:
        """Commit now, and look whether the file is still where it was.

        Raises:
            UserError: the disk is full, or the file was moved or deleted.
        """
        with self._lock:
            self._raise_failure()
            self._commit()

    def tick(self) -> None:
        """Commit if the oldest write that is not committed is `FLUSH_S` old.

        Raises:
            UserError: as `commit`.
        """
        with self._lock:
            self._raise_failure()
            self._commit_if_due()

    def close(self) -> None:
        """Commit what is left, if the disk takes it, and close the file."""
        self._closed.set()
        self._thread.join()
        with self._lock:
            self._give_back()
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("COMMIT")
            with suppress(sqlite3.Error):
                self._db.close()

    # -- behind it ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_S):
            with self._lock:
                try:
                    self._commit_if_due()
                except UserError as error:
                    self._failure = error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _commit_if_due(self) -> None:
        if self._dirty_since is not None and time.monotonic() - self._dirty_since >= FLUSH_S:
            self._commit()

    def _commit(self) -> None:
        self._dirty_since = None
        with self._sentence():
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        if self._identities() != self._files:
            self._rescue()

    @contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._save_what_fits()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            why = _DISK.get(code, str(error))
            raise UserError(
                f"the recording {self.path} cannot be written ({why}): what it holds stays readable"
            ) from error

    def _save_what_fits(self) -> None:
        """After a failed write: give the reserve back, and end the transaction one way or the other."""
        self._give_back()
        self._dirty_since = None
        with suppress(sqlite3.Error, AttributeError):
            if self._db.in_transaction:
                try:
                    self._db.execute("COMMIT")
                except sqlite3.Error:
                    self._db.execute("ROLLBACK")

    def _give_back(self) -> None:
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    def _identities(self) -> tuple[Identity | None, Identity | None]:
        """Of the file and of its WAL, as they stand at their places now."""
        return _identity(self.path), _identity(_beside(self.path, "-wal"))

    def _rescue(self) -> None:
        """The file is gone from its place: make what was written whole again, and say where.

        Raises:
            UserError: always; with the place of the copy, or that there is none.
        """
        main_stands = _identity(self.path) == self._files[0]
        what = str(self.path) if main_stands else f"the recording {self.path}"
        what = f"{what}-wal, a part of the recording," if main_stands else what
        lost = f"{what} was moved or deleted while it was written"
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # a file that was moved is whole with this
            place = self.path if main_stands else self._copy()
            if main_stands:
                self._db.close()
            self._db = _connect(place)
            self.path = place
            with self._sentence():
                self._db.execute("UPDATE session SET id = id")  # makes the WAL, whose identity is kept
            self._files = self._identities()
        except (sqlite3.Error, OSError, UserError) as error:
            self._files = self._identities()  # said once
            raise UserError(f"{lost}, and no copy could be made ({error}): stop using its disk") from error
        raise UserError(f"{lost}: all that it held is in {place}")

    def _copy(self) -> Path:
        """Copy the open file, wherever it is, to where it was begun; to a new name where another file stands."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        place = self.path
        for number in range(1, 100):
            if not place.exists():
                break
            place = self.path.with_name(f"{self.path.stem}-rescued-{number}{self.path.suffix}")
        part = _beside(place, ".part")
        part.unlink(missing_ok=True)
        copy = sqlite3.connect(part)
        try:
            self._db.backup(copy)
        finally:
            copy.close()
        self._db.close()  # SQLite sees that its file has moved, and removes nothing at the old place
        for end, before in (("-wal", self._files[1]), ("-shm", None)):
            if place == self.path and (before is None or _identity(_beside(place, end)) == before):
                _beside(place, end).unlink(missing_ok=True)  # belonged to the lost file; it is in the copy
        part.rename(place)
        return place


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=LOCK_S, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    return db


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reserve(folder: Path) -> IO[bytes] | None:
    """Space that belongs to an open file without a name: it is free again whatever ends this process.

    Raises:
        UserError: the disk is full now, or the folder cannot be written.
    """
    with writing(folder):
        reserve = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by the owner
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(reserve.fileno(), 0, RESERVE_BYTES)
            else:
                reserve.write(bytes(RESERVE_BYTES))
                reserve.flush()
        except OSError as error:
            reserve.close()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            return None  # a limit on the size of a file, not a full disk
    return reserve
