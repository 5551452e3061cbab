"""The values of the portable cache, within bounds: the least recently used ones go first.

Their order is kept by number, not by key. So a lookup that makes a value the most recently used one
hashes the key once, and so does a store.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from vrange._cache.parameters import EvictionCause
from vrange._portable.kept import Kept

K = TypeVar("K", bound=Hashable)


class _Entry:
    __slots__ = ("expires", "kept", "key", "number")

    def __init__(self, number: int, key: Any, kept: Kept, expires: float) -> None:
        self.number = number
        self.key = key
        self.kept = kept
        self.expires = expires  # by time.monotonic


class Values(Generic[K]):
    """The values of one cache. Callers hold the cache's lock.

    Parameters
    ----------
    bytes_most, entries_most : int or None
        The bounds.
    note : callable
        Called with the key and the cause of each value that is evicted or has expired.

    """

    def __init__(
        self,
        bytes_most: int,
        entries_most: int | None,
        note: Callable[[Any, EvictionCause], object],
    ) -> None:
        self.bytes_most = bytes_most
        self._entries_most = sys.maxsize if entries_most is None else entries_most
        self._note = note
        self._by_key: dict[K, _Entry] = {}
        self._by_use: OrderedDict[int, _Entry] = OrderedDict()  # the least recently used first
        self.stored = 0  # how many values were ever stored: each gets a number
        self.nbytes = 0
        self.evicted_bytes = 0

    def find(self, key: K) -> Kept | None:
        """Return the value under `key`, which becomes the most recently used one."""
        entry = self._by_key.get(key)
        if entry is None:
            return None
        if entry.expires <= time.monotonic():
            self.drop(key, "expired")
            return None
        if entry.number in self._by_use:  # no finalizer of this thread dropped it meanwhile
            self._by_use.move_to_end(entry.number)
        return entry.kept

    def holds(self, key: Any) -> bool:
        """Return whether there is a value under `key`. That does not count as a use."""
        entry = self._by_key.get(key)
        return entry is not None and entry.expires > time.monotonic()

    def put(self, key: K, kept: Kept, expires: float) -> None:
        """Store a value that fits within the bounds, and evict others to make room."""
        self.stored += 1
        fresh = _Entry(self.stored, key, kept, expires)
        entry = self._by_key.setdefault(key, fresh)
        before = entry.kept  # dropped last: that may run a finalizer of the value
        if entry is not fresh:
            self._leave(entry)
            entry.number, entry.key, entry.kept, entry.expires = fresh.number, key, kept, expires
        self._by_use[entry.number] = entry
        self.nbytes += kept.nbytes
        while self.nbytes > self.bytes_most or len(self._by_use) > self._entries_most:
            self._evict()
        del before

    def _evict(self) -> None:
        _, entry = self._by_use.popitem(last=False)
        self._by_key.pop(entry.key, None)
        self.nbytes -= entry.kept.nbytes
        self.evicted_bytes += entry.kept.nbytes
        self._note(entry.key, "evicted")

    def drop(self, key: K, cause: EvictionCause | None = None) -> bool:
        """Remove the value under `key`. Return whether there was one."""
        entry = self._by_key.pop(key, None)
        if entry is None:
            return False
        self._leave(entry)
        if cause is not None:
            self._note(key, cause)
        return True

    def _leave(self, entry: _Entry) -> None:
        if self._by_use.pop(entry.number, None) is not None:
            self.nbytes -= entry.kept.nbytes

    def keys(self) -> list[K]:
        """Return the keys of the values that have not expired. Those that have are dropped."""
        now = time.monotonic()
        for entry in list(self._by_use.values()):
            if entry.expires <= now:
                self.drop(entry.key, "expired")
        return [entry.key for entry in self._by_use.values()]

    def clear(self) -> None:
        """Remove all values and forget how much was evicted."""
        before = self._by_key, self._by_use  # dropped last: that may run the values' finalizers
        self._by_key, self._by_use = {}, OrderedDict()
        self.nbytes = self.evicted_bytes = 0
        del before
