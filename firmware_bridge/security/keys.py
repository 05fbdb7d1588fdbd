"""Device keys: 32 random bytes in a file that its owner alone can read. A key is never shown, logged or recorded."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path

from envs.errors import UserError

KEY_SIZE = 32  # bytes, as HMAC-SHA-256 gives
FORMAT = "sea-dbs-key-1"
MAX_FILE_BYTES = 256
_TEXT = re.compile(rf"{FORMAT} ([0-9a-f]{{{2 * KEY_SIZE}}})\n?", re.ASCII)


class DeviceKey:
    """A device key in memory: it prints as its fingerprint, and refuses to be pickled or copied into a record."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """``secret``: 32 bytes.

        Raises:
            UserError: another length; the bytes themselves are not said.
        """
        if len(secret) != KEY_SIZE:
            raise UserError(f"a device key has {KEY_SIZE} bytes, not {len(secret)}")
        self._secret = bytes(secret)

    @property
    def secret(self) -> bytes:
        """The key itself: for HMAC alone."""
        return self._secret

    @property
    def fingerprint(self) -> str:
        """8 hex digits that tell keys apart and say nothing about them; may be shown."""
        return hmac.new(self._secret, b"sea-dbs key fingerprint", hashlib.sha256).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"<device key {self.fingerprint}>"

    def __reduce__(self) -> str:
        raise TypeError("a device key is not pickled")


def new_key(path: Path) -> DeviceKey:
    """Make a key from the system's random numbers and write it to a new file, mode 0600.

    Raises:
        UserError: the file is there already (a key is never overwritten), or cannot be written.
    """
    key = DeviceKey(secrets.token_bytes(KEY_SIZE))
    write_private(path, f"{FORMAT} {key.secret.hex()}\n".encode())
    return key


def write_private(path: Path, data: bytes) -> None:
    """A new file with 0600 rights, for bytes that hold a key.

    Raises:
        UserError: it is there already (a key is never overwritten), or cannot be written.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise UserError(f"{path} is there already: a key is never overwritten, choose another name") from None
    except OSError as error:
        raise UserError(f"cannot write the key file {path}: {error.strerror}") from None
    try:
        with os.fdopen(fd, "wb") as stream:
            os.fchmod(fd, 0o600)  # whatever the umask says
            stream.write(data)
            stream.flush()
            os.fsync(fd)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UserError(f"cannot write the key file {path}: {error.strerror}") from None


def read_key(path: Path) -> DeviceKey:
    """The key of a file that is the user's own and that nobody else can read.

    Raises:
        UserError: missing, a link or no plain file, another owner, rights beyond 0600, or no key; never its content.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        reason = "a key file is no symbolic link" if path.is_symlink() else error.strerror
        raise UserError(f"cannot read the key file {path}: {reason}") from None
    try:
        found = os.fstat(fd)  # of what was opened, not of what stands there now
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"the key file {path} is no plain file")
        if found.st_uid != os.geteuid():
            raise UserError(f"the key file {path} belongs to user {found.st_uid}, not to you ({os.geteuid()})")
        if found.st_mode & 0o177:
            raise UserError(
                f"the key file {path} has the rights {stat.S_IMODE(found.st_mode):04o}, not 0600: 'chmod 600 {path}', "
                "and make a new key if others could read it"
            )
        data = os.read(fd, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read the key file {path}: {error.strerror}") from None
    finally:
        os.close(fd)
    match = _TEXT.fullmatch(data.decode("latin-1"))
    if match is None:
        raise UserError(f"{path} is no key file: make one with 'sea-dbs key new --out FILE'")
    return DeviceKey(bytes.fromhex(match[1]))
