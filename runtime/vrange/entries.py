"""What a cache has in ranges: storing values, reading them back, and letting them go.

A large value has a range of its own, a small one a slot in a slab (packed.py). Reading takes no
lock: a handle or a place that is out of date is recognised as such, natively by its generation and
here by looking again whether the key still stands for the very same entry. Whatever changes the
books is done under the cache's lock.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Hashable
from itertools import takewhile
from typing import Any

from vrange._core import ffi, hit, lib
from vrange.account import Account
from vrange.cache_arena import CacheArena, in_pages
from vrange.codec import ARRAY, PACKED_BYTES_MOST, Large, Small, decode_small, encode
from vrange.errors import ArenaFullError
from vrange.ghosts import Ghosts
from vrange.hot import HotFront
from vrange.packed import SLAB_BYTES, PackedValues, Slab
from vrange.sizes import format_bytes
from vrange.weigh import weigh

_NEVER = float("inf")
_NO_KEY = object()
_HITS_PER_CONTEST = 4  # as in native/recall.c
_HEAVIER_UNPICKLED = 16  # a pickled int of 2 bytes is an object of 28 and a pointer


class Absent:
    """Why there is no value: `outcome` is what the request counts as."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: int) -> None:
        self.outcome = outcome


MISS = Absent(lib.VRANGE_REQUEST_MISS)
PURGED = Absent(lib.VRANGE_REQUEST_PURGED)


Entry = hit.Entry | int  # with a range of its own, or a place among the packed values


def _is_gone(handle: int) -> bool:
    return hit.state(handle) in (lib.VRANGE_STATE_PURGED, lib.VRANGE_STATE_FREED)


class Entries:
    """The entries of one cache, by key in `index`, which others may look into. `hot` is its front:
    a value held there outlives the loss of its range, and its key goes when the front lets go of
    it.
    """

    def __init__(
        self,
        account: Account,
        lock: threading.RLock,
        hot: HotFront,
        *,
        ttl: float | None,
        max_bytes: int | None,
        arena_bytes: int | None,
    ) -> None:
        self._account = account
        self._lock = lock
        self._hot = hot
        self._ttl = ttl
        self._arena = CacheArena(account, lock, arena_bytes)
        self.index: dict[Hashable, Entry] = {}
        # Answers most hits, natively; `recall` the others.
        admit = None if hot.never_holds else self._admit
        self.recaller = hit.Recaller(self.index, lock, hot.weights, admit, MISS, account.address)
        self._keys: dict[int, Hashable] = {}  # by handle, of entries with a range
        self._slabs: dict[int, Slab] = {}  # by handle
        self._packed = PackedValues(with_ttl=ttl is not None)
        self._ghosts = Ghosts()
        # Stores most arrays, natively; `_store_slowly` what remains.
        self.keeper = hit.Keeper(
            self.index,
            self._keys,
            hot.values,
            self._ghosts.by_hash,
            self._sweep_after_keeping,
            lock,
            PACKED_BYTES_MOST + 1,
        )
        if max_bytes is not None:
            self.keeper.max_bytes = self.keeper.bytes_most = min(max_bytes, sys.maxsize)
        self._contests = 0
        self._cost_ns = 0  # of the last computation: what a slab's values are taken to cost
        self._expired_swept = 0.0

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._arena.closed

    # ---- reading -----------------------------------------------------------------------------

    def recall(self, key: Hashable) -> Any:
        """The value in its range, or an Absent, where `recaller` did not answer. A value found is
        offered to the hot front.
        """
        while True:
            entry = self.index.get(key)
            if entry is None:
                return self.why_absent(key)
            try:
                value = self._read(entry)
            except MemoryError:
                raise
            except Exception as error:
                self._give_up(key, entry, error)
                continue
            if self.index.get(key) is not entry:
                continue  # replaced while it was read, and a packed place may have a new tenant
            if value is not PURGED:
                self._admit(key, entry, value)
                return value
            self._lose(key, entry)

    def why_absent(self, key: Hashable) -> Absent:
        """What to say of a key that has no entry. ValueError once closed."""
        if self._arena.closed:
            self._arena.check_open()
        return PURGED if self._ghosts.was_purged(key) else MISS

    def _give_up(self, key: Hashable, entry: Entry, error: Exception) -> None:
        """Forgets what was pickled and can't be unpickled: it would fail at every request."""
        with self._lock:
            if self.index.get(key) is not entry:
                return
            self.remove(key)
        warnings.warn(
            f"the value under {key!r} was pickled and can't be unpickled ({error!r}), so it is "
            "computed at each request",
            RuntimeWarning,
            stacklevel=4,
        )

    def _read(self, entry: Entry) -> Any:
        if isinstance(entry, int):
            packed = self._packed.read(entry)
            return PURGED if packed is None else decode_small(*packed)
        lease = hit.pin(entry.handle, entry.nbytes)
        return PURGED if lease is None else entry.decode(lease)

    def _admit(self, key: Hashable, entry: Entry, value: Any) -> None:
        """Offers a value that was read to the hot front. Where that is full, the recaller asks only
        for what is used more than what is held longest.
        """
        if self._hot.limit == 0:
            self.recaller.front_is_full = True
            return
        if isinstance(entry, int):
            weight = sys.getsizeof(value, 64)
            if type(value) not in (bytes, str):
                weight *= _HEAVIER_UNPICKLED
        else:
            if entry.weight < 0:
                # What was unpickled is looked at, once.
                itself = sys.getsizeof(value) if entry.array else weigh(value)
                entry.weight = itself + (in_pages(entry.nbytes) if entry.views else 0)
            weight = entry.weight
        was_full = self.recaller.front_is_full
        has_room = self._hot.has_room_for(weight)
        self.recaller.front_is_full = not has_room
        if not has_room and isinstance(entry, int):
            # How often a packed value is used is not known; but others go for it.
            self._contests += 1
            if self._contests % _HITS_PER_CONTEST:
                return
        elif not has_room and not was_full:
            return
        with self._lock:
            if self.index.get(key) is entry:
                self._hot.admit(key, value, weight)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            entry = self.index.get(key)
            if entry is None or self._expires(entry) <= time.monotonic():
                return False
            if key in self._hot.values:
                return True
            return not _is_gone(self._handle_of(entry))

    def keys(self) -> list[Hashable]:
        """The keys of all entries that are not known to be lost."""
        with self._lock:
            self._sweep_all()
            return list(self.index)

    def __len__(self) -> int:
        with self._lock:
            self._sweep_all()
            return len(self.index)

    def _expires(self, entry: Entry) -> float:
        return self._packed.expires(entry) if isinstance(entry, int) else entry.expires

    def _handle_of(self, entry: Entry) -> int:
        if isinstance(entry, int):
            slab = self._packed.slab_of(entry)
            return 0 if slab is None else slab.handle
        return entry.handle

    # ---- storing -----------------------------------------------------------------------------

    def store(self, key: Hashable, value: Any, cost_ns: int) -> Any:
        """Stores a value that took `cost_ns` to compute (0: not known).

        Returns what the caller is to have: of an ndarray the view that is stored, so that the
        memory is not held twice, or of a small one a copy; else the value itself. TypeError for a
        key that can't be hashed or a value that can't be pickled, ArenaFullError where no room can
        be made.
        """
        kept = self.keeper(key, value, cost_ns)
        return self._store_slowly(key, value, cost_ns) if kept is None else kept

    def keep(self, key: Hashable, value: Any, cost_ns: int) -> Any:
        """As `store`, of what was computed: without room for it, it is not cached this time."""
        try:
            return self.store(key, value, cost_ns)
        except ArenaFullError:
            return value

    def _store_slowly(self, key: Hashable, value: Any, cost_ns: int) -> Any:
        hash(key)  # what can't be a key must fail before anything is stored
        encoded = encode(value)
        if not self._arena.address:
            self._arena.open()
            self.keeper.bytes_most = min(self.keeper.bytes_most, self._arena.nbytes)
            if self._ttl is None:
                self.keeper.arena = self._arena.address
        if cost_ns:
            self._cost_ns = cost_ns
        expires = _NEVER if self._ttl is None else time.monotonic() + self._ttl
        if isinstance(encoded, Small):
            self._store_small(key, encoded, expires)
            # As it comes back from now on, read-only: what the caller made is his own.
            return decode_small(encoded.kind, encoded.data) if encoded.kind == ARRAY else value
        size = in_pages(encoded.nbytes)
        if size > self.keeper.bytes_most:
            self._refuse(size)
        lease = self._store_range(encoded, cost_ns, self._uses(key))
        handle = hit.handle(lease)
        entry = hit.Entry(
            handle, encoded.nbytes, encoded.decode, encoded.views, encoded.is_array, expires
        )
        with self._lock:
            if self._arena.closed:
                hit.forget(handle, encoded.nbytes)
                lease.release()  # what is raised keeps this frame alive
                self._arena.check_open()
            self._replace(key, entry)
            self._keys[handle] = key
            self.keeper.bytes += size
            self._keep_below_max()
            if self._ttl is not None:
                self._sweep()
            elif lost := hit.lost(self._arena.address):
                self._forget_lost(lost, purged=True)
        return encoded.decode(lease) if encoded.is_array else value

    def _store_small(self, key: Hashable, encoded: Small, expires: float) -> None:
        with self._lock:
            self._arena.check_open()
            self._sweep()
            while True:
                slab = self._packed.slab_with_room(len(encoded.data))
                if slab is None:
                    slab = self._add_slab(len(encoded.data))
                place = self._packed.write(slab, key, encoded.kind, encoded.data, expires)
                if place is not None:
                    break
                self._lose_slab(slab, purged=True)
            self._replace(key, place)
            self._keep_below_max()

    def _add_slab(self, nbytes: int) -> Slab:
        if self.keeper.bytes_most < SLAB_BYTES:
            self._refuse(SLAB_BYTES)
        handle = ffi.new("uint64_t *")
        while lib.vrange_allocate(self._arena.native, SLAB_BYTES, handle) < 0:
            if not self._make_room(SLAB_BYTES):
                raise self._arena.full(SLAB_BYTES)
        if self._cost_ns:
            lib.vrange_set_cost(handle[0], self._cost_ns)
        lib.vrange_release(handle[0])
        slab = self._packed.add_slab(handle[0], nbytes)
        self._slabs[slab.handle] = slab
        self.keeper.bytes += SLAB_BYTES
        return slab

    def _store_range(self, encoded: Large, cost_ns: int, uses: int) -> hit.Lease:
        while True:
            try:
                return hit.store(self._arena.opened(), encoded.parts, cost_ns, uses)
            except MemoryError:
                if not self._make_room(encoded.nbytes):
                    raise self._arena.full(encoded.nbytes) from None

    def _replace(self, key: Hashable, entry: Entry) -> None:
        # With a TTL the index is in the order of expiry.
        before = self.index.get(key) if self._ttl is None else self.index.pop(key, None)
        if key in self._hot.values:
            self._hot.discard(key)
        self.index[key] = entry
        self._ghosts.forget(key)
        if before is not None:
            self._free(before)

    def _uses(self, key: Hashable) -> int:
        before = self.index.get(key)
        if isinstance(before, hit.Entry):
            return int(lib.vrange_uses(before.handle))
        return self._ghosts.uses(key, hit.epoch(self._arena.opened()))

    # ---- letting go --------------------------------------------------------------------------

    def remove(self, key: Hashable) -> bool:
        """Forgets an entry; False where there is none."""
        with self._lock:
            entry = self.index.pop(key, None)
            self._ghosts.forget(key)
            if entry is None:
                return False
            self._hot.discard(key)
            self._free(entry)
            return True

    def drop_expired(self, key: Hashable) -> None:
        """Forgets the key's entry if its time is over."""
        entry = self.index.get(key)
        if entry is None or self._expires(entry) > time.monotonic():
            return
        with self._lock:
            if self.index.get(key) is entry:
                self.remove(key)

    def hot_let_go(self, key: Hashable) -> None:
        """The hot front dropped a value: if its range went meanwhile, its key goes too."""
        entry = self.index.get(key)
        if entry is None:
            return
        if isinstance(entry, int):
            is_lost = self._packed.slab_of(entry) is None
        else:
            is_lost = entry.handle not in self._keys
        if is_lost:
            self._forget_key(key, 0, purged=True)

    def discard(self, keys: tuple[Hashable, ...]) -> int:
        """Makes the kernel take the ranges of these keys, or all that nobody holds, now."""
        with self._lock:
            if keys:
                for key in keys:
                    self._hot.discard(key)
                    self.hot_let_go(key)
                found = [self.index.get(key) for key in keys]
                handles = {self._handle_of(entry) for entry in found if entry is not None}
            else:
                self._hot.clear()
                handles = {*self._keys, *self._slabs}
            return sum(lib.vrange_discard(handle) == lib.VRANGE_OK for handle in handles)

    def clear(self) -> None:
        """Forgets every entry. What somebody holds stays until he lets go."""
        with self._lock:
            self.index.clear()
            self._hot.clear()
            for handle in [*self._keys, *self._slabs]:
                lib.vrange_free(handle)
            self._keys.clear()
            self._slabs.clear()
            self._packed.clear()
            self._ghosts.clear()
            self.keeper.bytes = 0

    def close(self) -> None:
        """Forgets every entry and gives the arena back."""
        with self._lock:
            self.clear()
            self.keeper.arena = 0
            self._arena.close()

    def _free(self, entry: Entry) -> int:
        """Gives an entry's place back; returns how often it was used, in sixteenths."""
        if isinstance(entry, int):
            emptied = self._packed.remove(entry)
            if emptied is not None and emptied.handle in self._slabs:
                del self._slabs[emptied.handle]
                hit.forget(emptied.handle, SLAB_BYTES)
                self.keeper.bytes -= SLAB_BYTES
            return 0
        if self._keys.pop(entry.handle, _NO_KEY) is _NO_KEY:
            return 0
        self.keeper.bytes -= in_pages(entry.nbytes)
        return hit.forget(entry.handle, entry.nbytes)

    def _lose(self, key: Hashable, entry: Entry) -> None:
        """The entry was found purged when it was asked for."""
        with self._lock:
            if self.index.get(key) is not entry:
                return
            uses = 0
            if not isinstance(entry, int):
                uses = self._free(entry)
            elif (slab := self._packed.slab_of(entry)) is not None:
                self._lose_slab(slab, purged=True)
            if self.index.get(key) is entry:
                self._forget_key(key, uses, purged=True)

    def _lose_slab(self, slab: Slab, *, purged: bool) -> None:
        del self._slabs[slab.handle]
        pairs = self._packed.take_off(slab)
        uses = hit.forget(slab.handle, SLAB_BYTES) // max(1, len(pairs))
        self.keeper.bytes -= SLAB_BYTES
        for key, place in pairs:
            if self.index.get(key) == place and not self._outlives_its_range(key):
                self._forget_key(key, uses, purged=purged)

    def _outlives_its_range(self, key: Hashable) -> bool:
        # With a TTL it may not: when a packed value expires is known only to its slab.
        return self._ttl is None and key in self._hot.values

    def _forget_key(self, key: Hashable, uses: int, *, purged: bool) -> None:
        del self.index[key]
        self._hot.discard(key)
        self._ghosts.remember(
            key, uses, hit.epoch(self._arena.address), purged=purged, entries=len(self.index)
        )

    def _sweep(self, *, purged: bool = True) -> bool:
        """Forgets some of what was lost while nobody held it. False: there was none."""
        if not self._arena.address:
            return False
        if self._ttl is not None and time.monotonic() > self._expired_swept + self._ttl / 8:
            self._sweep_expired()
        handles = hit.lost(self._arena.address)
        self._forget_lost(handles, purged=purged)
        return bool(handles)

    def _sweep_after_keeping(self) -> None:
        with self._lock:
            self._sweep()
            self._keep_below_max()

    def _forget_lost(self, handles: list[int], *, purged: bool) -> None:
        for handle in handles:
            slab = self._slabs.get(handle)
            if slab is not None:
                self._lose_slab(slab, purged=purged)
                continue
            key = self._keys.get(handle, _NO_KEY)
            entry = self.index.get(key)
            if isinstance(entry, hit.Entry) and entry.handle == handle:
                uses = self._free(entry)
                if not self._outlives_its_range(key):
                    self._forget_key(key, uses, purged=purged)

    def _sweep_expired(self) -> None:
        now = self._expired_swept = time.monotonic()
        expired = takewhile(lambda item: self._expires(item[1]) <= now, self.index.items())
        for key, _ in list(expired):
            self.remove(key)

    def _sweep_all(self, *, purged: bool = True) -> None:
        if self._ttl is not None:
            self._sweep_expired()
        while self._sweep(purged=purged):
            pass

    def _shed(self, nbytes: int) -> int:
        """Lets the least valuable go, about `nbytes` of them; returns the bytes that went."""
        self._sweep_all()
        gone = int(lib.vrange_arena_shed(self._arena.native, nbytes))
        self._sweep_all(purged=False)
        return gone

    def _make_room(self, nbytes: int) -> bool:
        """Lets go so that `nbytes` may fit; False where nothing is left that could go."""
        with self._lock:
            self._arena.check_open()
            # More than is needed at once: the arena may be in pieces.
            if self._shed(max(2 * nbytes, self.keeper.bytes // 64)):
                return True
            held = self._hot.bytes
            self._hot.clear()
            return held > 0 and self._shed(nbytes) > 0

    def _keep_below_max(self) -> None:
        excess = self.keeper.bytes - self.keeper.max_bytes
        if excess <= 0:
            return
        self._shed(excess)
        excess = self.keeper.bytes - self.keeper.max_bytes
        if excess > 0 and self._hot.bytes:
            self._hot.clear()
            self._shed(excess)

    def _refuse(self, size: int) -> None:
        """Raises: what could never fit must not make others go first."""
        if size <= self.keeper.max_bytes:
            raise self._arena.full(size)
        raise ArenaFullError(
            f"{format_bytes(size)} is more than max_bytes of cache "
            f"{self._account.name!r}, {format_bytes(self.keeper.max_bytes)}"
        )
