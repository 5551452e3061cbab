"""Files of this user in places where others may write: checked when opened, and read by copy.

Any user may put a file into /dev/shm, and a file may be cut short or rewritten while it is read. A
mapping would turn that into SIGBUS, which ends the reader. So files are read with pread into memory
of the reader, and never more than `most` bytes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vrange._counters.descriptor import Descriptor
from vrange.errors import VrangeError

__all__ = ["FileRefusedError", "OwnFile", "is_private", "read_text"]


class FileRefusedError(VrangeError):
    """A file can't be trusted or is not whole."""


class OwnFile:
    """A regular file of this user, open for reading.

    Parameters
    ----------
    path : path
        The file. A symbolic link is not followed, and a pipe does not block.
    most : int
        The largest size that is accepted.

    Raises
    ------
    FileRefusedError
        If it belongs to another user, is no regular file, or is larger than `most`.
    OSError
        If it can't be opened.

    """

    refusal: type[FileRefusedError] = FileRefusedError

    def __init__(self, path: str | os.PathLike[str], most: int) -> None:
        self.where = os.fspath(path)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        self._held = Descriptor(os.open(path, flags))
        try:
            self.size = self._check(most)
        except BaseException:
            self._held.close()
            raise

    def _check(self, most: int) -> int:
        found = os.fstat(self._held.number)
        if found.st_uid != os.geteuid():
            raise self.refusal(
                f"{self.where} belongs to user {found.st_uid}, not this one ({os.geteuid()})"
            )
        if not stat.S_ISREG(found.st_mode):
            raise self.refusal(f"{self.where} is not a regular file")
        if found.st_size > most:
            raise self.refusal(
                f"{self.where} has {found.st_size} bytes, and {most} is the largest size"
            )
        return found.st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on; FileRefusedError if the file ends before."""
        pieces = bytearray()
        while len(pieces) < size:
            piece = os.pread(self._held.number, size - len(pieces), offset + len(pieces))
            if not piece:
                raise self.refusal(f"{self.where} is torn: it was cut short while it was read")
            pieces += piece
        if not self._held.is_ours():  # other code closed the number, and may have opened a file
            raise self.refusal(f"{self.where} was closed by other code while it was read")
        return bytes(pieces)

    def close(self) -> None:
        """Close the file."""
        self._held.close()

    def __enter__(self) -> OwnFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_text(path: Path, most: int) -> str:
    """Return the text of a file of this user.

    Raise FileRefusedError or OSError as OwnFile does, and ValueError if it is not UTF-8.
    """
    with OwnFile(path, most) as file:
        return file.read(0, file.size).decode()


def is_private(directory: Path) -> bool:
    """Return whether this user owns the directory, and no other user can put files there."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    writable_by_others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not writable_by_others
