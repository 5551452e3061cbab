"""A file descriptor of vrange, in a process whose other code may close it."""

from __future__ import annotations

import os


class Descriptor:
    """A descriptor's number, and the file that it was opened for.

    Other code may close every descriptor of the process (daemons do) and then get the same number
    for a file of its own. So before each use the number's file is compared with the one that was
    opened, and the number is closed only if they are the same.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        found = os.fstat(number)
        self.device, self.inode = found.st_dev, found.st_ino

    def is_ours(self) -> bool:
        """Return whether the number still refers to the file that was opened."""
        try:
            found = os.fstat(self.number)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self.device, self.inode)

    def close(self) -> None:
        """Close the descriptor, unless other code has closed it already."""
        if self.is_ours():
            os.close(self.number)
