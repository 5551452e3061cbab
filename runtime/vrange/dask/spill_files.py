"""The files of spilled values: one each, written once, in a directory that one process owns."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["SpillFiles", "SpillLimitError"]


class SpillLimitError(OSError):
    """`max-spill` leaves no room on disk for the value."""


class SpillFiles:
    """Writes, reads and removes files, and counts their bytes.

    Parameters
    ----------
    directory : Path
        It is made with the first file, and removed by `close`.
    most_bytes : int, optional
        The most bytes of all files together.

    """

    def __init__(self, directory: Path, most_bytes: int | None = None) -> None:
        self._directory = directory
        self._most = most_bytes
        self._numbers = itertools.count()
        self._sizes: dict[Path, int] = {}
        self.total_bytes = 0

    def write(self, parts: Sequence[memoryview | bytes]) -> Path:
        """Write a new file. If that fails, nothing is left of it.

        Raises
        ------
        SpillLimitError
            If the limit does not allow it.
        OSError
            If the disk is full, or can't be written to.

        """
        size = sum(len(part) for part in parts)
        if self._most is not None and self.total_bytes + size > self._most:
            raise SpillLimitError(
                f"{size} bytes can't be spilled: {self.total_bytes} of at most {self._most} bytes "
                "are on disk (distributed.worker.memory.max-spill)"
            )
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / str(next(self._numbers))
        try:
            # Not `with open(…, "wb")`: a buffer of its own would copy what is there already.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                _write_all(descriptor, parts)
            finally:
                os.close(descriptor)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        self._sizes[path] = size
        self.total_bytes += size
        return path

    def read_into(self, path: Path, memory: memoryview) -> None:
        """Read a whole file.

        Raises
        ------
        OSError
            If it can't be read, or is shorter than `memory`.

        """
        with open(path, "rb", buffering=0) as file:
            done = 0
            while done < len(memory):
                count = file.readinto(memory[done:])
                if not count:
                    raise OSError(f"{path} was cut to {done} of {len(memory)} bytes")
                done += count

    def remove(self, path: Path) -> None:
        """Remove a file. One that is gone already is no error."""
        self.total_bytes -= self._sizes.pop(path, 0)
        with suppress(OSError):
            path.unlink()

    def close(self) -> None:
        """Remove all files, and the directory if nothing else is in it."""
        for path in list(self._sizes):
            self.remove(path)
        with suppress(OSError):
            self._directory.rmdir()


def _write_all(descriptor: int, parts: Sequence[memoryview | bytes]) -> None:
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
