"""The books of a cache: which key has its value where, and letting values go.

A large value has a range of its own, a small one a slot in a slab (packed.py). Whatever changes the
books is done under the cache's lock. Reading them takes none: a handle or a place that is out of
date is recognised as such, natively by its generation, and by looking again whether the key still
stands for the very same entry (recall.py).
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Hashable
from functools import cache
from itertools import islice, takewhile
from typing import Any, ClassVar

from vrange._cache.address_space import CacheArena, in_pages
from vrange._cache.codec import PACKED_BYTES_MOST
from vrange._cache.ghosts import Ghosts
from vrange._cache.hot_front import HotFront
from vrange._cache.singleflight import Flight
from vrange._cache.slabs import SLAB_BYTES, PackedValues, Slab
from vrange._cgroup.limits import memory_limit
from vrange._core import hit, lib
from vrange._counters.account import Account

Entry = hit.Entry | int  # with a range of its own, or a place among the packed values

_NO_KEY = object()
AUTO_SHARE = 10  # keys, entries and ghosts of all caches together: this part of the memory limit
_GIVEN_SHARE = 4  # of one cache with max_entries, however many that are
_SAMPLE = 16  # of entries with a range: so many are compared for each that goes
_STEP_BYTES = 4096
_SLACK_SHARE = 64  # so much more goes than has to, so that not each store has to look


@cache
def _limit_bytes() -> int:
    return memory_limit().limit_bytes


def _is_gone(handle: int) -> bool:
    return hit.state(handle) in (lib.VRANGE_STATE_PURGED, lib.VRANGE_STATE_FREED)


class Books:
    """The entries of one cache, by key in `index`.

    They are memory that the kernel can't take, so there is a bound to them: `max_entries`, or what
    keys, entries and ghosts of all caches without it may have together (AUTO_SHARE).

    `hot` is its front: a value held there outlives the loss of its range, and its key goes when the
    front lets go of it. `keeper` enters most arrays, natively (store.c), and has the count of
    bytes in ranges and its limits.
    """

    _automatic: ClassVar[weakref.WeakSet[Books]] = weakref.WeakSet()
    _all_bytes: ClassVar[int] = 0

    def __init__(
        self,
        account: Account,
        lock: hit.Lock,
        flights: hit.Flights,
        hot: HotFront,
        *,
        ttl: float | None,
        max_bytes: int | None,
        max_entries: int | None,
        arena_bytes: int | None,
    ) -> None:
        self.lock = lock
        self.flights = flights
        self.hot = hot
        self.ttl = ttl
        self.arena = CacheArena(account, lock, arena_bytes)
        self.index: dict[Hashable, Entry] = {}
        self.keys_by_handle: dict[int, Hashable] = {}  # of entries with a range
        self.slabs_by_handle: dict[int, Slab] = {}
        self.packed = PackedValues(with_ttl=ttl is not None)
        self.ghosts = Ghosts()
        self.keeper = hit.Keeper(
            self.index,
            self.keys_by_handle,
            hot.values,
            self.ghosts.by_hash,
            self._sweep_after_keeping,
            lock,
            flights,
            PACKED_BYTES_MOST + 1,
        )
        if max_bytes is not None:
            self.keeper.max_bytes = self.keeper.bytes_most = min(max_bytes, sys.maxsize)
        if max_entries is not None:
            self.keeper.entries_most = max_entries
            self.keeper.books_most = _limit_bytes() // _GIVEN_SHARE
        else:
            self.keeper.books_most = _STEP_BYTES
            self._automatic.add(self)
        self._told_bytes = 0
        self._is_automatic = max_entries is None
        self._expired_swept = 0.0
        hot.let_go = self._hot_let_go
        lock.mend_by(self._mend)

    # ---- what there is -----------------------------------------------------------------------

    @hit.locked
    def __contains__(self, key: object) -> bool:
        entry = self.index.get(key)
        if entry is None or self._expires(entry) <= time.monotonic():
            return False
        return key in self.hot.values or not _is_gone(self.handle_of(entry))

    @hit.locked
    def keys(self) -> list[Hashable]:
        """The keys of all entries that are not known to be lost."""
        self._sweep_all()
        return list(self.index)

    @hit.locked
    def count(self) -> int:
        """How many entries are not known to be lost."""
        self._sweep_all()
        return len(self.index)

    def handle_of(self, entry: Entry) -> int:
        """The range that the value is in; 0 where that is gone."""
        if isinstance(entry, int):
            slab = self.packed.slab_of(entry)
            return 0 if slab is None else slab.handle
        return entry.handle

    def uses(self, key: Hashable) -> int:
        """How often the key's value was used, also one that is gone; in sixteenths."""
        before = self.index.get(key)
        if isinstance(before, hit.Entry):
            return int(lib.vrange_uses(before.handle))
        return self.ghosts.uses(key, hit.epoch(self.arena.opened()))

    def _expires(self, entry: Entry) -> float:
        return self.packed.expires(entry) if isinstance(entry, int) else entry.expires

    # ---- entering ----------------------------------------------------------------------------

    def enter(self, key: Hashable, entry: Entry) -> None:
        """The value under `key` is there from now on; what was there before goes."""
        # With a TTL the index is in the order of expiry.
        before = self.index.get(key)
        if before is None:
            self.keeper.key_bytes += hit.key_bytes(key)
        elif self.ttl is not None:
            del self.index[key]
        if key in self.hot.values:
            self.hot.discard(key)
        self.index[key] = entry
        if isinstance(entry, hit.Entry):
            self.keys_by_handle[entry.handle] = key
            self.keeper.bytes += in_pages(entry.nbytes)
        self.ghosts.forget(key)
        if before is not None:
            self._free(before)

    @hit.locked
    def enter_new(self, key: Hashable, entry: Entry, flight: Flight | None) -> bool:
        """As `enter`, of what `flight` computed: False where the key was set or forgotten since it
        began. None: nobody did, it is set, and what is being computed for the key is stale.
        ValueError once closed.
        """
        self.arena.check_open()
        if flight is None:
            self.flights.drop(key)
        elif flight.stale:
            return False
        self.enter(key, entry)
        self.keep_below_max()
        self.sweep()
        return True

    def add_slab(self, range_: hit.Entry, nbytes: int) -> Slab:
        """Takes on a fresh range of SLAB_BYTES for values as large as `nbytes`."""
        slab = self.packed.add_slab(range_.handle, nbytes)
        slab.range = range_
        self.slabs_by_handle[slab.handle] = slab
        self.keeper.bytes += SLAB_BYTES
        return slab

    # ---- letting one go ----------------------------------------------------------------------

    @hit.locked
    def forget(self, key: Hashable) -> bool:
        """Forgets an entry, and makes stale what is being computed for its key. False where there
        is none.
        """
        self.flights.drop(key)
        return self._remove(key)

    @hit.locked
    def forget_if(self, key: Hashable, entry: Entry | None) -> bool:
        """As `forget`, where the key has this very entry (None: none). False where it has not, and
        nothing was done.
        """
        if self.index.get(key) is not entry:
            return False
        self.flights.drop(key)
        self._remove(key)
        return True

    @hit.locked
    def remove_if(self, key: Hashable, entry: Entry) -> bool:
        """Lets the value go if the key has this very entry; False where it has not."""
        return self.index.get(key) is entry and self._remove(key)

    def _remove(self, key: Hashable) -> bool:
        entry = self.index.pop(key, None)
        self.ghosts.forget(key)
        if entry is None:
            return False
        self.keeper.key_bytes -= hit.key_bytes(key)
        self.hot.discard(key)
        self._free(entry)
        return True

    def drop_expired(self, key: Hashable) -> None:
        """Lets the key's value go if its time is over."""
        entry = self.index.get(key)
        if entry is not None and self._expires(entry) <= time.monotonic():
            self.remove_if(key, entry)

    @hit.locked
    def lose(self, key: Hashable, entry: Entry, *, purged: bool = True) -> None:
        """The entry was found purged when it was asked for, or can't be read for want of room."""
        if self.index.get(key) is not entry:
            return
        uses = 0
        if not isinstance(entry, int):
            uses = self._free(entry)
        elif (slab := self.packed.slab_of(entry)) is not None:
            self.lose_slab(slab, purged=purged)
        if self.index.get(key) is entry:
            self._forget_key(key, uses, purged=purged)

    @hit.locked
    def admit(self, key: Hashable, entry: Entry, value: Any, weight: int) -> None:
        """Lets the hot front hold the value, if the key still has this very entry."""
        if self.index.get(key) is entry:
            self.hot.admit(key, value, weight)

    def lose_slab(self, slab: Slab, *, purged: bool = True) -> None:
        """The slab was purged, or is to go: all that was in it goes."""
        del self.slabs_by_handle[slab.handle]
        pairs = self.packed.take_off(slab)
        uses = hit.forget(slab.handle, SLAB_BYTES) // max(1, len(pairs))
        self.keeper.bytes -= SLAB_BYTES
        for key, place in pairs:
            if self.index.get(key) == place and not self._outlives_its_range(key):
                self._forget_key(key, uses, purged=purged)

    def _hot_let_go(self, key: Hashable) -> None:
        """The hot front dropped a value: if its range went meanwhile, its key goes too."""
        entry = self.index.get(key)
        if entry is None:
            return
        if isinstance(entry, int):
            is_lost = self.packed.slab_of(entry) is None
        else:
            is_lost = entry.handle not in self.keys_by_handle
        if is_lost:
            self._forget_key(key, 0, purged=True)

    def _outlives_its_range(self, key: Hashable) -> bool:
        # With a TTL it may not: when a packed value expires is known only to its slab.
        return self.ttl is None and key in self.hot.values

    def _free(self, entry: Entry) -> int:
        """Gives an entry's place back; returns how often it was used, in sixteenths."""
        if isinstance(entry, int):
            emptied = self.packed.remove(entry)
            if emptied is not None and emptied.handle in self.slabs_by_handle:
                del self.slabs_by_handle[emptied.handle]
                hit.forget(emptied.handle, SLAB_BYTES)
                self.keeper.bytes -= SLAB_BYTES
            return 0
        if self.keys_by_handle.pop(entry.handle, _NO_KEY) is _NO_KEY:
            return 0
        self.keeper.bytes -= in_pages(entry.nbytes)
        return hit.forget(entry.handle, entry.nbytes)

    def _forget_key(self, key: Hashable, uses: int, *, purged: bool) -> None:
        del self.index[key]
        self.keeper.key_bytes -= hit.key_bytes(key)
        self.hot.discard(key)
        self.ghosts.remember(
            key, uses, hit.epoch(self.arena.address), purged=purged, entries=len(self.index)
        )

    # ---- letting many go ---------------------------------------------------------------------

    def sweep(self, *, purged: bool = True) -> bool:
        """Forgets some of what was lost while nobody held it. False: there was none."""
        if not self.arena.address:
            return False
        if self.ttl is not None and time.monotonic() > self._expired_swept + self.ttl / 8:
            self._sweep_expired()
        handles = hit.lost(self.arena.address)
        for handle in handles:
            slab = self.slabs_by_handle.get(handle)
            if slab is not None:
                self.lose_slab(slab, purged=purged)
                continue
            key = self.keys_by_handle.get(handle, _NO_KEY)
            entry = self.index.get(key)
            if isinstance(entry, hit.Entry) and entry.handle == handle:
                uses = self._free(entry)
                if not self._outlives_its_range(key):
                    self._forget_key(key, uses, purged=purged)
        return bool(handles)

    @hit.locked
    def _sweep_after_keeping(self) -> None:
        self.sweep()
        self.keep_below_max()

    def _sweep_expired(self) -> None:
        now = self._expired_swept = time.monotonic()
        expired = takewhile(lambda item: self._expires(item[1]) <= now, self.index.items())
        for key, _ in list(expired):
            self._remove(key)

    def _sweep_all(self, *, purged: bool = True) -> None:
        if self.ttl is not None:
            self._sweep_expired()
        while self.sweep(purged=purged):
            pass

    @hit.locked
    def make_room(self, nbytes: int) -> bool:
        """Lets go so that `nbytes` may fit; False where nothing is left that could go."""
        self.arena.check_open()
        # More than is needed at once: the arena may be in pieces.
        if self._shed(max(2 * nbytes, self.keeper.bytes // 64)):
            return True
        held = self.hot.bytes
        self.hot.clear()
        return held > 0 and self._shed(nbytes) > 0

    def keep_below_max(self) -> None:
        """Lets go of what is beyond max_bytes, as far as nobody holds it, and of entries beyond
        their bound.
        """
        if self.keeper.has_too_many:
            self._keep_few()
        excess = self.keeper.bytes - self.keeper.max_bytes
        if excess <= 0:
            return
        self._shed(excess)
        excess = self.keeper.bytes - self.keeper.max_bytes
        if excess > 0 and self.hot.bytes:
            self.hot.clear()
            self._shed(excess)

    # ---- as many as there may be -------------------------------------------------------------

    def _keep_few(self) -> None:
        keeper = self.keeper
        too_many = len(self.index) - keeper.entries_most
        if too_many > 0:
            self._evict(too_many + keeper.entries_most // (_SLACK_SHARE * 16))
        if keeper.books_bytes <= keeper.books_most:
            return
        if not self._is_automatic:
            self._evict_bytes(
                keeper.books_bytes - keeper.books_most + keeper.books_most // _SLACK_SHARE
            )
            return
        bound = _limit_bytes() // AUTO_SHARE
        self._tell_growth()
        if Books._all_bytes > bound:
            self._evict_among_all(bound)
        # Looked again once it has grown by a few entries.
        keeper.books_most = keeper.books_bytes + _STEP_BYTES

    def _tell_growth(self) -> None:
        # Not exact where threads meet, nor of caches that are gone: it only says when to count.
        now = self.keeper.books_bytes
        Books._all_bytes += now - self._told_bytes
        self._told_bytes = now

    def _evict_among_all(self, bound: int) -> None:
        sizes = {one: one.keeper.books_bytes for one in self._everyone()}
        excess = sum(sizes.values()) - bound
        if excess > 0:
            largest = max(sizes, key=sizes.__getitem__)
            # Another cache's lock is not waited for: that cache may be waiting for ours.
            wanted = excess + bound // _SLACK_SHARE
            if largest is self or largest.lock.run(0, lambda: largest._evict_bytes(wanted)) is None:
                self._evict_bytes(wanted)
        for one in sizes:
            one._told_bytes = one.keeper.books_bytes
        Books._all_bytes = sum(one._told_bytes for one in sizes)

    @classmethod
    def _everyone(cls) -> list[Books]:
        while True:
            try:
                return list(cls._automatic)
            except RuntimeError:
                continue  # one was made meanwhile, by another thread

    def _evict_bytes(self, excess: int) -> bool:
        """Lets ghosts and entries go that cost so much."""
        wanted = self.keeper.books_bytes - excess
        self.ghosts.forget_oldest(len(self.ghosts.by_hash) - len(self.index) // 2)
        while self.keeper.books_bytes > wanted and self.index:
            each = self.keeper.books_bytes / len(self.index)
            if not self._evict(int((self.keeper.books_bytes - wanted) / each) + 1):
                break
        return True

    def _evict(self, count: int) -> int:
        """Lets the least valuable entries go, about so many; how many went."""
        before = len(self.index)
        ranged = len(self.keys_by_handle)
        newest = next(reversed(self.index.values()))
        share = -(-count * ranged // before)
        if share * 2 <= ranged or ranged == before:
            self._evict_ranged(min(share, ranged), newest)
        self._evict_packed(count - before + len(self.index), newest)
        left = count - before + len(self.index)
        if left > 0:
            self._evict_ranged(min(left, len(self.keys_by_handle)), newest)
        if before - len(self.index) < count and self.hot.weights:
            self.hot.clear()  # what is left is held there
            self._evict_packed(count - before + len(self.index), newest)
        return before - len(self.index)

    def _evict_packed(self, count: int, newest: Entry) -> None:
        if count <= 0:
            return
        place = newest if isinstance(newest, int) else 0
        for key, found in self.packed.least_used(count, self.hot.values, place):
            if self.index.get(key) == found:
                self._drop_entry(key, found)

    def _evict_ranged(self, count: int, newest: Entry) -> None:
        """Of a sample of the oldest the least valuable go; the others are the youngest then."""
        if count <= 0:
            return
        sample = [
            (handle, key)
            for handle, key in islice(self.keys_by_handle.items(), max(_SAMPLE, 2 * count))
            if isinstance(newest, int) or handle != newest.handle
        ]
        sample.sort(key=lambda item: hit.worth(item[0]))
        for handle, key in sample[:count]:
            entry = self.index.get(key)
            if isinstance(entry, hit.Entry) and entry.handle == handle:
                self._drop_entry(key, entry)
        for handle, key in sample[count:]:
            if self.keys_by_handle.pop(handle, _NO_KEY) is not _NO_KEY:
                self.keys_by_handle[handle] = key

    def _drop_entry(self, key: Hashable, entry: Entry) -> None:
        """The cache itself lets it go. Of a small one nothing is remembered, as it has no uses."""
        uses = self._free(entry)
        if uses:
            self._forget_key(key, uses, purged=False)
        else:
            del self.index[key]
            self.keeper.key_bytes -= hit.key_bytes(key)
            self.hot.discard(key)

    def _shed(self, nbytes: int) -> int:
        """Lets the least valuable go, about `nbytes` of them; returns the bytes that went."""
        self._sweep_all()
        gone = int(lib.vrange_arena_shed(self.arena.native, nbytes))
        self._sweep_all(purged=False)
        return gone

    @hit.locked
    def discard(self, keys: tuple[Hashable, ...]) -> int:
        """Makes the kernel take the ranges of these keys, or all that nobody holds, now."""
        if keys:
            for key in keys:
                self.hot.discard(key)
                self._hot_let_go(key)
            found = [self.index.get(key) for key in keys]
            handles = {self.handle_of(entry) for entry in found if entry is not None}
        else:
            self.hot.clear()
            handles = {*self.keys_by_handle, *self.slabs_by_handle}
        return sum(lib.vrange_discard(handle) == lib.VRANGE_OK for handle in handles)

    @hit.locked
    def clear(self) -> None:
        """Forgets every entry, and makes stale what is being computed. What somebody holds stays
        until he lets go.
        """
        self.flights.drop_all()
        self.hot.forget_all()
        for handle in [*self.keys_by_handle, *self.slabs_by_handle]:
            lib.vrange_free(handle)  # others run meanwhile, unlike where the index drops it
        self.keys_by_handle.clear()
        self.slabs_by_handle.clear()
        self.packed.clear()
        self.index.clear()
        self.ghosts.clear()
        self.keeper.bytes = self.keeper.key_bytes = 0

    @hit.locked
    def close(self) -> None:
        """Forgets every entry and gives the arena back."""
        self.keeper.arena = 0
        self.clear()
        self.arena.close()

    def _mend(self) -> None:
        """Makes everything agree with the index again, after something that changed it did not come
        to its end: a handler of a signal raised, or memory ran out. Under the lock.

        Whatever was interrupted, each entry of the index is whole, or its range is gone; also one
        that was lost, as whoever was told of that may not have come to hear it.
        """
        self.hot.forget_all()
        self.packed.mend(self.index, _is_gone)
        self.slabs_by_handle.clear()
        self.slabs_by_handle.update({slab.handle: slab for slab in self.packed.slabs()})
        lost: list[Hashable] = []
        keys: dict[int, Hashable] = {}
        nbytes = SLAB_BYTES * len(self.slabs_by_handle)
        for key, entry in self.index.items():
            if _is_gone(self.handle_of(entry)):
                lost.append(key)
            elif isinstance(entry, hit.Entry):
                keys[entry.handle] = key
                nbytes += in_pages(entry.nbytes)
        for key in lost:
            del self.index[key]
        self.keys_by_handle.clear()
        self.keys_by_handle.update(keys)
        self.keeper.bytes = nbytes
        self.keeper.key_bytes = sum(map(hit.key_bytes, self.index))
