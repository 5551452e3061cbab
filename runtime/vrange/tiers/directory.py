"""A directory as the lower tier of caches: a file for each value."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vrange.sizes import parse_bytes

__all__ = ["TOKENS", "Directory"]

TOKENS = "tokens"  # the folder of what says which values are valid, within that of a cache
_SHARE_OF_FILE_SYSTEM = 10
_LOOK_EVERY = 16  # one in so many parts of the bound is written between two looks at all files
_KEPT_SHARE = 0.9  # of the bound, once files were removed to stay below it
_TEMPORARY = ".new-"
_LEFT_OVER_SECONDS = 3600.0  # a temporary file this old belongs to a process that was killed
_TOKEN_SECONDS = 30 * 86400.0
_USED_SECONDS = 60.0  # a file that was used so lately need not be marked again
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_numbers = itertools.count()


class Directory:
    """A directory in which caches keep values, for `below=`.

    A path does as well: `below="/var/cache/app"`. Several caches and processes may use one
    directory. The files are pickles, so no other user may write there.

    Parameters
    ----------
    path : str or PathLike
        The directory. It is made if it does not exist, for this user alone.
    max_bytes : int or str, optional
        The bytes that the values may have together, such as "20GiB". Beyond, those that were not
        used for longest are removed. The default is a tenth of the file system.

    Raises
    ------
    ValueError
        If other users may write to the directory.
    NotADirectoryError
        If the path is one of a file.

    Examples
    --------
    >>> import tempfile, vrange
    >>> from vrange.tiers import Directory
    >>> place = tempfile.mkdtemp()
    >>> @vrange.cached(below=Directory(place, max_bytes="1GiB"), name="squares")
    ... def square(n):
    ...     return n * n
    >>> square(12)
    144

    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int | str | None = None) -> None:
        self.path = Path(path).absolute()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(self.path)
        if max_bytes is None:
            most = shutil.disk_usage(self.path).total // _SHARE_OF_FILE_SYSTEM
        else:
            most = parse_bytes(max_bytes, "max_bytes")
        self.max_bytes = most
        self._root = str(self.path)
        self._unseen_bytes: int | None = None  # written since the last look; None: never looked

    def __repr__(self) -> str:
        return f"Directory({str(self.path)!r}, max_bytes={self.max_bytes})"

    def get(self, name: str) -> bytes | None:
        """Return the content of a file, which counts as used now; None if there is none.

        Parameters
        ----------
        name : str
            The name: parts of letters, digits and some marks, with "/" between them.

        """
        return self.read(name, lambda nbytes: None)

    def read(self, name: str, room_for: Callable[[int], object]) -> bytes | None:
        """Do the same, once `room_for` was called with the bytes. It may raise MemoryError.

        Parameters
        ----------
        name : str
            As for `get`.
        room_for : callable
            Returns an object that is kept while the content is read.

        """
        try:
            file = os.open(f"{self._root}/{name}", _READ)
        except FileNotFoundError:
            return None
        try:
            about = os.fstat(file)
            room = room_for(about.st_size)
            content = os.read(file, about.st_size)
            while len(content) < about.st_size and (more := os.read(file, about.st_size)):
                content += more
            del room
            if time.time() - about.st_mtime > _USED_SECONDS and f"/{TOKENS}/" not in name:
                with suppress(OSError):  # another user's
                    os.utime(file)
        finally:
            os.close(file)
        return None if not content and f"/{TOKENS}/" in name else content

    def set(self, name: str, data: bytes) -> None:
        """Write a file. A reader finds the old content or the new, never a part.

        Parameters
        ----------
        name : str
            As for `get`.
        data : bytes
            The content.

        """
        if len(data) > self.max_bytes:
            return
        folder, _, last = f"{self._root}/{name}".rpartition("/")
        if folder.endswith(f"/{TOKENS}"):
            self._set_token(folder, last, data)
            return
        new = f"{folder}/{_TEMPORARY}{os.getpid()}-{threading.get_ident()}-{next(_numbers)}"
        try:
            try:
                _write(new, data)
            except FileNotFoundError:
                os.makedirs(folder, 0o700, exist_ok=True)
                _write(new, data)
            os.replace(new, f"{folder}/{last}")
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise
        self._stay_within(len(data))

    def _set_token(self, folder: str, last: str, data: bytes) -> None:
        # All tokens are of one length, and shorter than a block: one write replaces one. A file
        # that is empty, because the process was killed before the write, is no token.
        try:
            file = os.open(f"{folder}/{last}", _WRITE, 0o600)
        except FileNotFoundError:
            os.makedirs(folder, 0o700, exist_ok=True)
            file = os.open(f"{folder}/{last}", _WRITE, 0o600)
        try:
            if os.write(file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{folder}/{last}")
        finally:
            os.close(file)

    def delete(self, name: str) -> None:
        """Remove a file, if there is one.

        Parameters
        ----------
        name : str
            As for `get`.

        """
        with suppress(FileNotFoundError):
            os.unlink(f"{self._root}/{name}")

    def remove_all(self, folder: str, before: float) -> None:
        """Remove the values in a folder that were last used before this time, by `time.time`."""
        for file in self._files(self.path / folder):
            with suppress(OSError):
                if file.stat().st_mtime < before and Path(file.path).parent.name != TOKENS:
                    os.unlink(file.path)

    @property
    def nbytes(self) -> int:
        """The bytes of all files now. Looks at each of them."""
        total = 0
        for file in self._files(self.path):
            with suppress(OSError):
                total += file.stat().st_size
        return total

    # ---- the bound -----------------------------------------------------------------------------

    def _stay_within(self, written: int) -> None:
        if self._unseen_bytes is not None:
            self._unseen_bytes += written
            if self._unseen_bytes < self.max_bytes // _LOOK_EVERY:
                return
        self._unseen_bytes = 0
        now, total = time.time(), 0
        found = []
        for file in self._files(self.path):
            with suppress(OSError):
                about = file.stat()
                age = now - about.st_mtime
                if Path(file.path).parent.name == TOKENS:
                    if age > _TOKEN_SECONDS and not file.name.startswith("generation"):
                        os.unlink(file.path)
                elif file.name.startswith(_TEMPORARY):
                    if age > _LEFT_OVER_SECONDS:
                        os.unlink(file.path)
                else:
                    total += about.st_size
                    found.append((about.st_mtime, about.st_size, file.path))
        if total <= self.max_bytes:
            return
        found.sort()
        for _, size, path in found:
            with suppress(OSError):
                os.unlink(path)
                total -= size
            if total <= self.max_bytes * _KEPT_SHARE:
                return

    def _files(self, folder: Path) -> list[os.DirEntry[str]]:
        files: list[os.DirEntry[str]] = []
        folders = [str(folder)]
        while folders:
            with suppress(OSError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        files.append(entry)
        return files


def _write(path: str, data: bytes) -> None:
    with open(path, "xb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def _check_private(path: Path) -> None:
    """Raise ValueError if other users may write to the directory: its files are unpickled."""
    if os.name != "posix":
        return
    about = path.stat()
    if about.st_uid not in (0, os.geteuid()):
        raise ValueError(
            f"below={str(path)!r} belongs to another user (uid {about.st_uid}), and reading a "
            "value runs what its pickle says: give a directory of this user"
        )
    if about.st_mode & stat.S_IWOTH:
        raise ValueError(
            f"every user may write to below={str(path)!r}, and reading a value runs what its "
            "pickle says: take that right away (chmod o-w), or give another directory"
        )
