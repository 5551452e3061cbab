"""What a file holds."""

from __future__ import annotations

import operator
import os
import stat
from typing import TYPE_CHECKING, Any

from vrange._core import ffi, lib
from vrange.fills.base import NativeFill, Regenerator

if TYPE_CHECKING:
    import numpy as np


class _Descriptor:
    """A file descriptor, closed with the last array that reads from it."""

    def __init__(self, path: str) -> None:
        # NONBLOCK: a pipe's other end may never come.
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class file(NativeFill):
    """Reads the file at `path` from byte `offset` on. The file may not change while it is in use.

    OSError where it can't be opened; ValueError where it is no regular file, or shorter than the
    array. Truncated later, a touch of what is missing ends the process with a message, and a pin
    raises RegenerationError.
    """

    def __init__(self, path: str | os.PathLike[str], offset: int = 0) -> None:
        try:
            self._offset = operator.index(offset)
        except TypeError:
            raise TypeError(f"offset must be an int, not {offset!r}") from None
        if self._offset < 0:
            raise ValueError(f"offset must not be negative, but is {offset}")
        self._path = os.fspath(path)

    def bind(self, dtype: np.dtype[Any], nbytes: int, block_bytes: int) -> Regenerator:
        """Opens the file for an array of at most its size."""
        descriptor = _Descriptor(self._path)
        status = os.fstat(descriptor.number)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{self._path} is not a regular file")
        size = status.st_size
        if size < self._offset + nbytes:
            raise ValueError(
                f"{self._path} has {size} bytes, the array needs {nbytes} from {self._offset} on"
            )
        context = ffi.new(
            "vrange_file *", {"descriptor": descriptor.number, "offset": self._offset}
        )
        return Regenerator(lib.vrange_regenerate_file, context, (descriptor,))

    def __repr__(self) -> str:
        return f"fills.file({self._path!r}, {self._offset})"
