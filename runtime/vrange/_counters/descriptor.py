"""A descriptor of our own, in a process whose other code may close it."""

from __future__ import annotations

import os


class Descriptor:
    """A number, and what it was opened for.

    Other code may close every descriptor of the process (daemons do) and get the number for a file
    of its own. So what the number leads to is compared with what was opened before it is used, and
    it is never closed unless it is ours.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        found = os.fstat(number)
        self.device, self.inode = found.st_dev, found.st_ino

    def is_ours(self) -> bool:
        """Whether the number still leads to what was opened."""
        try:
            found = os.fstat(self.number)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self.device, self.inode)

    def close(self) -> None:
        """Close it, unless somebody else did."""
        if self.is_ours():
            os.close(self.number)
