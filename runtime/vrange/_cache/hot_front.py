"""The hot front: values a cache holds itself, so that a hit on them costs what a dict costs.

What is held strongly can't be taken by the kernel, and a process dies of it: 200 MB of strongly
held values in a cgroup of 512 MiB survived, 215 did not. So each front is bounded in bytes, and all
fronts with the default bound together.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, ClassVar

from vrange._cgroup.limits import memory_limit
from vrange._core import hit

AUTO_BYTES = 32 << 20
AUTO_SHARE = 10  # all automatic fronts together have at most this part of the memory limit


@cache
def _auto_bytes_together() -> int:
    return memory_limit().limit_bytes // AUTO_SHARE


class HotFront:
    """Values by key, the longest held let go first. Under its cache's lock, but for looking.

    `weights`, by key, has the order: the longest held first. A hit that loses to that makes it the
    last (lookup.c), under the lock too.

    `limit` None is the automatic bound: 32 MiB, and a tenth of the memory limit for all caches.
    `let_go` is told each key whose value is not held any more, under the lock. `told` is the word
    of the account that says how many bytes are held.
    """

    _automatic: ClassVar[weakref.WeakSet[HotFront]] = weakref.WeakSet()
    _all: ClassVar[weakref.WeakSet[HotFront]] = weakref.WeakSet()
    _share: ClassVar[float] = 1.0  # how much of its bound each front may use now

    def __init__(
        self, limit: int | None, lock: hit.Lock, told: memoryview[int] | None = None
    ) -> None:
        self.values: dict[Hashable, Any] = {}
        self.bytes = 0
        self._told: Any = [0] if told is None else told
        self.weights: dict[Hashable, int] = {}
        self._lock = lock
        self.let_go: Callable[[Hashable], None] = lambda key: None
        self._is_automatic = limit is None
        self._bound = min(AUTO_BYTES, _auto_bytes_together()) if limit is None else limit
        self.limit = int(self._bound * self._share)
        if self._is_automatic:
            self._automatic.add(self)
        self._all.add(self)

    @classmethod
    def use_share(cls, share: float, wait: float = 0.1) -> int:
        """Lets every front, of now and later, use this share of its bound; the bytes let go.

        What is let go is its cache's still, and volatile once nobody holds it. A cache that is busy
        for longer than `wait` seconds shrinks by itself, with the next value it wants to hold.
        """
        cls._share = share
        gone = 0
        for front in cls._everyone():
            front.limit = int(front._bound * share)
            if front.bytes > front.limit:
                gone += front._lock.run(wait, front._let_excess_go) or 0
        return gone

    def _let_excess_go(self) -> int:
        before = self.bytes
        while self.bytes > self.limit and self.weights:
            self._let_oldest_go()
        return max(0, before - self.bytes)

    @classmethod
    def _everyone(cls) -> list[HotFront]:
        while True:
            try:
                return list(cls._all)
            except RuntimeError:
                continue  # one was made meanwhile, by another thread

    def admit(self, key: Hashable, value: Any, weight: int) -> bool:
        """Holds a value of `weight` bytes; False where it is too large to be held at all."""
        if weight > self.limit:
            return False
        self.discard(key)
        while self.bytes + weight > self.limit:
            self._let_oldest_go()
        if self._is_automatic and self._may_be_too_many() and not self._make_room_among_all(weight):
            return False
        self.values[key] = value
        self.weights[key] = weight
        self.bytes += weight
        self._told[0] = self.bytes
        return True

    def discard(self, key: Hashable) -> None:
        """Lets a key's value go, if it is held."""
        weight = self.weights.pop(key, None)
        if weight is not None:
            self.bytes -= weight
            self._told[0] = self.bytes
            del self.values[key]

    def clear(self) -> None:
        """Lets everything go."""
        keys = list(self.weights)
        self.weights.clear()
        self.bytes = self._told[0] = 0
        self.values.clear()  # last: what dies here may run code that comes back to us
        for key in keys:
            self.let_go(key)

    def forget_all(self) -> None:
        """As `clear`, and tells nobody: after something that changed it was interrupted."""
        self.weights.clear()
        self.bytes = self._told[0] = 0
        self.values.clear()  # last: what dies here may run code that comes back to us

    @property
    def never_holds(self) -> bool:
        """Whether its bound is nothing."""
        return self._bound == 0

    def has_room_for(self, weight: int) -> bool:
        """Whether a value may be held without letting another go."""
        return self.bytes + weight <= self.limit

    def _let_oldest_go(self) -> None:
        key = next(iter(self.weights))
        self.discard(key)
        self.let_go(key)

    def _may_be_too_many(self) -> bool:
        # Going through them all at each admission would cost more than the hit.
        return len(self._automatic) * self.limit > _auto_bytes_together()

    def _make_room_among_all(self, weight: int) -> bool:
        fronts = list(self._automatic)
        excess = sum(front.bytes for front in fronts) + weight - _auto_bytes_together()
        while excess > 0:
            largest = max(fronts, key=lambda front: front.bytes)
            # Another cache's lock is not waited for: that cache may be waiting for ours.
            before = largest.bytes
            if not largest.weights or largest._lock.run(0, largest._let_one_go) is None:
                return False
            excess -= before - largest.bytes
        return True

    def _let_one_go(self) -> bool:
        self._let_oldest_go()
        return True
