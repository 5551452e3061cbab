"""What is remembered of values that are gone: how often they were used, and why they went."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import islice

_LEAST = 4096


class Ghosts:
    """Uses of keys whose values are gone, by the keys' hashes, the oldest forgotten first.

    A popular value that was lost is popular when it comes back, rather than the first to go again.
    Bounded by the number of live entries (4096 at least). Two keys with one hash share a ghost,
    which costs nothing worse than a wrong guess. `by_hash` stays the same dict: store.c looks
    into it first.
    """

    def __init__(self) -> None:
        self.by_hash: dict[int, tuple[int, int, bool]] = {}

    def remember(self, key: Hashable, uses: int, epoch: int, *, purged: bool, entries: int) -> None:
        """A value went: `uses` in sixteenths as of `epoch`; `purged` if the kernel took it."""
        number = hash(key)
        self.by_hash.pop(number, None)
        self.by_hash[number] = (uses, epoch, purged)
        excess = len(self.by_hash) - max(_LEAST, entries)
        if excess > 0:
            # Many at once: the way to a dict's first item leads over all that were deleted there.
            self.forget_oldest(max(excess, len(self.by_hash) // 16))

    def forget_oldest(self, count: int) -> None:
        """Forgets so many."""
        for old in list(islice(self.by_hash, max(0, count))):
            del self.by_hash[old]

    def uses(self, key: Hashable, epoch: int) -> int:
        """Sixteenths of uses, halved for every epoch since; 0 for a key not remembered."""
        uses, then, _ = self.by_hash.get(hash(key), (0, epoch, False))
        return uses >> min(epoch - then, 32)

    def was_purged(self, key: Hashable) -> bool:
        """Whether the key's last value was taken by the kernel."""
        return self.by_hash.get(hash(key), (0, 0, False))[2]

    def forget(self, key: Hashable) -> None:
        """The key has a value again."""
        self.by_hash.pop(hash(key), None)

    def clear(self) -> None:
        """Forgets all."""
        self.by_hash.clear()
