"""A file descriptor of vrange, in a process whose other code may close it."""

from __future__ import annotations

import os

from vrange._core import ffi, lib


class Descriptor:
    """A descriptor's number, and the file that it was opened for.

    A number of one of the standard streams, which is free where a process was started with the
    stream closed, is replaced by a higher one.

    os_kept_descriptors.h says why: other code may close the number and get it for a file of its
    own. So ask `is_ours` before and after each use.
    """

    def __init__(self, number: int) -> None:
        self.native = ffi.new("vrange_descriptor *")
        result = lib.vrange_descriptor_note(number, self.native)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        self.number: int = self.native.number

    def is_ours(self) -> bool:
        """Return whether the number still refers to the file that was opened."""
        return bool(lib.vrange_descriptor_is_ours(self.native))

    def close(self) -> None:
        """Close the descriptor, unless other code has closed it already."""
        lib.vrange_descriptor_close(self.native)
