"""What a file holds."""

from __future__ import annotations

import operator
import os
import stat
from typing import TYPE_CHECKING, Any

from vrange._core import ffi, lib
from vrange.descriptor import Descriptor
from vrange.fills.base import NativeFill, Regenerator

if TYPE_CHECKING:
    import numpy as np


class _Descriptor(Descriptor):
    """Closed with the last array that reads from it."""

    def __init__(self, path: str) -> None:
        # NONBLOCK: a pipe's other end may never come.
        super().__init__(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))

    def __del__(self) -> None:
        if hasattr(self, "inode"):
            self.close()


def _absolute(path: bytes) -> bytes:
    return path if os.path.isabs(path) else os.path.join(os.getcwdb(), path)


class file(NativeFill):
    """Reads the file at `path` from byte `offset` on. The file may not change while it is in use.

    OSError where it can't be opened; ValueError where it is no regular file, or shorter than the
    array. Where other code closed the file's descriptor it is opened again by its path, and has to
    be the same file. Truncated later, a touch of what is missing ends the process with a message,
    and a pin raises RegenerationError.
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
        # A daemon closes all it has and changes its directory: the file is then found by its path.
        path = ffi.new("char[]", _absolute(os.fsencode(self._path)))
        context = ffi.new(
            "vrange_file *",
            {
                "descriptor": descriptor.number,
                "device": descriptor.device,
                "inode": descriptor.inode,
                "path": path,
                "offset": self._offset,
            },
        )
        return Regenerator(lib.vrange_regenerate_file, context, (descriptor, path))

    def __repr__(self) -> str:
        return f"fills.file({self._path!r}, {self._offset})"
