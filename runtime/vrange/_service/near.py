"""Copies of other processes' values, which this process reads often."""

from __future__ import annotations

import time
from collections import OrderedDict

from vrange._core import hit, lib
from vrange._service.blob import Blob
from vrange._service.index import Index
from vrange._service.known import Known

__all__ = ["NEAR_SHARE", "NearCopies"]

NEAR_SHARE = 4  # a copy takes at most this part of all copies' bound
_SERVICE_SHARE = 8  # the copies in all processes together: this part of an automatic hot front
_LOOK_EVERY_SECONDS = 1.0  # at how many processes there are


class NearCopies:
    """The copies of a cache. A value that was read more often takes the place of the oldest.

    With automatic `hot_bytes` the copies in all processes of the service have a bound together,
    because they are in memory twice. With given ones the bound is that of each process. Copies that
    have been read since they were looked at last stay for another turn (GCLOCK, Smith 1978).

    The bytes are an estimate: the core may have evicted copies since, and threads count without a
    lock.
    """

    def __init__(
        self, core: hit.CacheCore, index: Index, reads: hit.SharedReads, *, is_automatic: bool
    ) -> None:
        self._core, self._index, self._reads = core, index, reads
        self._is_automatic = is_automatic
        self._parts, self._look_at = 1, 0.0
        self._copies: OrderedDict[int, tuple[int, Known]] = OrderedDict()  # by stamp
        self._nbytes = 0

    def has(self, stamp: int) -> bool:
        """Return whether there was a copy under this stamp."""
        return stamp in self._copies

    def admits(self, known: Known, nbytes: int) -> bool:
        """Return whether a copy is worth its memory. Make room for it."""
        self._follow_processes()
        bound = self._core.hot_limit // self._parts
        if nbytes > bound // NEAR_SHARE:
            return False
        while self._nbytes + nbytes > bound:
            try:
                stamp, (its_bytes, oldest) = self._copies.popitem(last=False)
            except KeyError:
                self._nbytes = 0
                break
            if oldest.stamp == stamp and oldest.reads >= known.reads:
                self._copies[stamp] = its_bytes, oldest
                oldest.reads //= 2
                known.near_at = 2 * known.reads + 1
                return False
            self._nbytes -= its_bytes
            self._core.remove(stamp)
        return True

    def _follow_processes(self) -> None:
        now = time.monotonic()
        if not self._is_automatic or now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_SECONDS
        others = int(lib.vrange_shared_members(self._index.pointer))
        self._parts = _SERVICE_SHARE * (1 + others)
        self._reads.near_share = NEAR_SHARE * self._parts

    def add(self, known: Known, stamp: int, copy: Blob, expires_ns: int) -> None:
        """Store a copy that is admitted."""
        self._core.store(stamp, copy, expires_ns, 0)
        if stamp not in self._copies:
            self._copies[stamp] = copy.nbytes, known
            self._nbytes += copy.nbytes

    def forget(self) -> None:
        """Forget all copies."""
        self._copies.clear()
        self._nbytes = 0
