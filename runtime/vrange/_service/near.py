"""Copies of other processes' values, which this process reads often."""

from __future__ import annotations

from collections import OrderedDict

from vrange._core import hit
from vrange._service.blob import Blob

__all__ = ["NEAR_SHARE", "NearCopies"]

NEAR_SHARE = 4  # a copy takes at most this part of what the hot front may hold


class NearCopies:
    """The copies, with as many bytes together as the hot front may hold. The oldest go first.

    The bytes are an estimate: the core may have evicted copies since, and threads count without a
    lock.
    """

    def __init__(self, core: hit.CacheCore) -> None:
        self._core = core
        self._bytes_of: OrderedDict[int, int] = OrderedDict()  # by stamp
        self._nbytes = 0

    def has(self, stamp: int) -> bool:
        """Return whether there was a copy under this stamp."""
        return stamp in self._bytes_of

    def may_have(self, nbytes: int) -> bool:
        """Return whether a copy of so many bytes is worth its memory."""
        return nbytes <= self._core.hot_limit // NEAR_SHARE

    def add(self, stamp: int, copy: Blob, expires_ns: int) -> None:
        """Store a copy."""
        self._core.store(stamp, copy, expires_ns, 0)
        if stamp not in self._bytes_of:
            self._bytes_of[stamp] = copy.nbytes
            self._nbytes += copy.nbytes
        bound = self._core.hot_limit
        while self._nbytes > bound:
            try:
                oldest, nbytes = self._bytes_of.popitem(last=False)
            except KeyError:
                self._nbytes = 0
                return
            self._nbytes -= nbytes
            self._core.remove(oldest)

    def forget(self) -> None:
        """Forget all copies."""
        self._bytes_of.clear()
        self._nbytes = 0
