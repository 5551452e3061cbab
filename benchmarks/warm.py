"""Free memory that costs what memory costs.

Where the host of a virtual machine takes free pages back, which many do after a second or two, the
first touch of a page is the host's page fault too and costs five times as much. Who meets such
pages is chance, and the chance is larger than what is compared. So pages are touched and held here
until somebody is about to need them; freed then, they are the next that the kernel hands out.
"""

from __future__ import annotations

import mmap


class WarmMemory:
    """`nbytes` of touched memory, until let go; in huge pages for who will ask for those."""

    def __init__(self, nbytes: int, *, huge: bool = False) -> None:
        self._held: mmap.mmap | None = mmap.mmap(
            -1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        if huge:
            self._held.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, nbytes, mmap.PAGESIZE):
            self._held[start] = 1

    def let_go(self) -> None:
        """Frees it. A second time does nothing."""
        if self._held is not None:
            self._held.close()
            self._held = None
