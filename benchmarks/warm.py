"""Free memory with a normal cost of its first touch.

If the host of a virtual machine takes back free pages, as many do after a second or two, the first
touch of a page is also a page fault of the host, and costs five times as much. Which contender gets
such pages is chance, and the chance is larger than the differences that are measured. So this
module touches pages and holds them until a contender is about to need them. Freed then, they are
the next pages that the kernel hands out.
"""

from __future__ import annotations

import mmap


class WarmMemory:
    """`nbytes` of touched memory until it is freed; in huge pages if the contender needs them."""

    def __init__(self, nbytes: int, *, huge: bool = False) -> None:
        self._held: mmap.mmap | None = mmap.mmap(
            -1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        if huge:
            self._held.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, nbytes, mmap.PAGESIZE):
            self._held[start] = 1

    def let_go(self) -> None:
        """Free it. A second call does nothing."""
        if self._held is not None:
            self._held.close()
            self._held = None
