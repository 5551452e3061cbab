"""A fill from the content of a file."""

from __future__ import annotations

import operator
import os
import stat
from typing import TYPE_CHECKING, Any

from vrange._core import ffi, lib
from vrange._counters.descriptor import Descriptor
from vrange.fills.base import NativeFill, Regenerator

if TYPE_CHECKING:
    import numpy as np


class _Descriptor(Descriptor):
    """An open file, closed together with the last array that reads from it."""

    def __init__(self, path: str) -> None:
        # O_NONBLOCK: opening a pipe would otherwise wait for its other end, maybe forever.
        super().__init__(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))

    def __del__(self) -> None:
        if hasattr(self, "native"):
            self.close()


def _absolute(path: bytes) -> bytes:
    return path if os.path.isabs(path) else os.path.join(os.getcwdb(), path)


class file(NativeFill):
    """Read the file at `path` from byte `offset` on.

    Parameters
    ----------
    path : str or os.PathLike
        The file. It must not change while an array uses it.
    offset : int, default 0
        The byte of the file at which the array begins.

    Raises
    ------
    TypeError
        If `offset` is not an int.
    ValueError
        If `offset` is negative. From VolatileArray: if `path` is not a regular file, or is shorter
        than the array needs.
    OSError
        From VolatileArray: if the file can't be opened.

    Notes
    -----
    If other code closes the file's descriptor, vrange opens the file again by its path; it must
    then be the same file. If the file is truncated later, a touch of the missing part ends the
    process with a message, and a pin raises RegenerationError.

    Examples
    --------
    >>> import os, tempfile, vrange
    >>> with tempfile.NamedTemporaryFile() as source:
    ...     os.truncate(source.fileno(), 1 << 20)
    ...     fill = vrange.fills.file(source.name)
    ...     a = vrange.VolatileArray(1 << 20, "u1", fill=fill, eager=True)
    ...     int(a[4096])
    0

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
        """Open the file for an array that is at most as large as the file from `offset` on."""
        descriptor = _Descriptor(self._path)
        status = os.fstat(descriptor.number)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{self._path} is not a regular file")
        size = status.st_size
        if size < self._offset + nbytes:
            raise ValueError(
                f"{self._path} has {size} bytes, the array needs {nbytes} from {self._offset} on"
            )
        # A daemon closes all descriptors and changes its directory, so keep an absolute path.
        path = ffi.new("char[]", _absolute(os.fsencode(self._path)))
        context = ffi.new(
            "vrange_file *",
            {
                "descriptor": descriptor.number,
                "device": descriptor.native.device,
                "inode": descriptor.native.inode,
                "path": path,
                "offset": self._offset,
            },
        )
        return Regenerator(lib.vrange_regenerate_file, context, (descriptor, path))

    def __repr__(self) -> str:
        return f"fills.file({self._path!r}, {self._offset})"
