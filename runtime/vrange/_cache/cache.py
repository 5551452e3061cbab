"""VolatileCache: a mapping whose values the kernel may take while nobody holds them."""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import (
    Awaitable,
    Callable,
    Hashable,
    ItemsView,
    Iterator,
    MutableMapping,
    ValuesView,
)
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from vrange._cache.hot_front import HotFront
from vrange._cache.index import Books
from vrange._cache.info import CacheInfo
from vrange._cache.lookup import MISS, PURGED, Absent, Recall
from vrange._cache.options import check_max_entries, check_ttl
from vrange._cache.singleflight import Flight, SingleFlight
from vrange._cache.store import Keep
from vrange._core import hit, lib
from vrange._counters.account import Account
from vrange.errors import ArenaFullError
from vrange.sizes import format_bytes, parse_bytes

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_RESIDENT = lib.VRANGE_REQUEST_RESIDENT
_KIND = lib.VRANGE_KIND_CACHE
_numbers = itertools.count(1)


class VolatileCache(MutableMapping[K, V], Generic[K, V]):
    """A mapping that uses what memory is spare, and whose values may be gone when asked for again.

    A value that nobody holds is volatile: the kernel takes it when memory runs short, the least
    valuable first (by use, by what computing it took, by byte). A value that somebody holds is
    pinned, and stays. So any key may raise KeyError at any time, whether it was never set or was
    purged; `get_or_compute` is the way to use it.

    Values: ndarrays come back without a copy and read-only, as views whose life is the pin; bytes
    and str come back as themselves; everything else that can be pickled comes back equal, with its
    large buffers uncopied and read-only. As with functools.cache, treat what you get as shared: do
    not change it.

    Whoever asks after a key was set or forgotten (`cache[key] = value`, `del`, `pop`, `clear`) gets
    what was set or has it computed anew: a computation that began before stores nothing, and its
    value goes only to those who asked before.

    Parameters
    ----------
    name : what labels the metrics; by default "cache-1", "cache-2", …
    ttl : seconds until a value expires; None: never.
    max_bytes : bytes or "64MiB" that the cache may have in ranges; None: all that is spare. What
        somebody holds is not let go for it.
    max_entries : how many entries the cache may have; the least valuable go first. None: as many as
        keys and entries of all caches may have in a tenth of the memory limit, which the kernel
        can't take. Of a cache with max_entries they have a quarter of it at most.
    hot_bytes : how much the cache holds strongly, so that a hit costs what a dict costs; these
        bytes the kernel can't take. "auto": 32 MiB, and a tenth of the memory limit for all caches.
    arena_bytes : address space to reserve; None: twice the machine's memory.

    Notes
    -----
    Threads may share a cache; hits take no lock and keep the GIL. The child of a fork has what
    somebody holds at that moment, and the hot front; other keys are misses there. A value for which
    there is no room, below the memory limit or in the cache, is not stored, as if it had been
    purged at once; `info().refused` counts them. Storing is then no error. Raises TypeError for
    unhashable keys and values that can't be pickled, ValueError for bad arguments and once closed.

    Examples
    --------
    >>> with VolatileCache(name="squares") as squares:
    ...     squares.get_or_compute(12, lambda: 12 * 12)
    144

    """

    _all: ClassVar[weakref.WeakSet[VolatileCache[Any, Any]]] = weakref.WeakSet()

    def __init__(
        self,
        *,
        name: str | None = None,
        ttl: float | None = None,
        max_bytes: int | str | None = None,
        max_entries: int | None = None,
        hot_bytes: int | str = "auto",
        arena_bytes: int | str | None = None,
    ) -> None:
        check_ttl(ttl)
        check_max_entries(max_entries)
        self._ttl = ttl
        self._max_entries = max_entries
        self._max_bytes = None if max_bytes is None else parse_bytes(max_bytes, "max_bytes")
        arena_size = None if arena_bytes is None else parse_bytes(arena_bytes, "arena_bytes")
        if arena_size == 0:
            raise ValueError("arena_bytes must be at least 1, but is 0")
        hot_limit = None if hot_bytes == "auto" else parse_bytes(hot_bytes, "hot_bytes")
        if self._max_bytes is not None:
            # What is held strongly can't be let go to stay below max_bytes.
            half = self._max_bytes // 2
            hot_limit = half if hot_limit is None else min(hot_limit, half)
        self._account = Account(name if name is not None else f"cache-{next(_numbers)}", _KIND)
        self._lock = hit.Lock(ArenaFullError)  # which is raised before anything is changed
        self._flights = SingleFlight()
        self._hot = HotFront(hot_limit, self._lock, self._account.hot_word())
        self._books = Books(
            self._account,
            self._lock,
            self._flights.flights,
            self._hot,
            ttl=ttl,
            max_bytes=self._max_bytes,
            max_entries=max_entries,
            arena_bytes=arena_size,
        )
        self._recall = Recall(self._books, self._account)
        self._keep = Keep(self._books, self._account)
        # Computes most of what is nowhere, natively; `_compute` the rest.
        self._leader = hit.Leader(
            self._books.keeper,
            self._keep.declined,
            self._flights.flights,
            MISS,
            self._account.address,
        )
        self._baseline = self._account.read()
        self._all.add(self)

    # ---- asking ------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        found: V | Absent = self._look_up(key)
        if isinstance(found, Absent):
            raise KeyError(key)
        return found

    def get_or_compute(self, key: K, compute: Callable[[], V]) -> V:
        """The value under `key`, or what compute() returns, which is then cached.

        One computation per key at a time, across threads and tasks; the others wait for it, and
        get its value or the exception that it raised, which is not cached. A value for which there
        is no room is returned all the same. A computation that waits for a thread which asks for
        the same key waits for ever.
        """
        value: V | Absent = self._look_up_quickly(key)
        if value is MISS:
            value = self._leader(key, compute)
        if isinstance(value, Absent):
            value = self._recall_slowly(key)
        return self._compute(key, value, compute) if isinstance(value, Absent) else value

    async def get_or_compute_async(self, key: K, compute: Callable[[], Awaitable[V]]) -> V:
        """As get_or_compute, for a coroutine function: other tasks run while it computes."""
        found: V | Absent = self._look_up(key)
        if not isinstance(found, Absent):
            return found
        return await self._compute_async(key, found, compute)

    def _look_up(self, key: Hashable) -> Any:
        """The value or an Absent; counts the request."""
        value = self._look_up_quickly(key)
        return self._recall_slowly(key) if value is MISS else value

    def _look_up_quickly(self, key: Hashable) -> Any:
        """The same without a close look: MISS, uncounted, also where there may be a value."""
        if self._ttl is not None:
            self._books.drop_expired(key)
        value = self._hot.values.get(key, MISS)
        if value is MISS:
            return self._recall.natively(key)
        self._recall.natively.count_hot(key)
        return value

    def _recall_slowly(self, key: Hashable) -> Any:
        value = self._recall.slowly(key)
        outcome = value.outcome if type(value) is Absent else _RESIDENT
        hit.count(self._account.address, outcome)
        return value

    def _compute(self, key: Hashable, absent: Absent, compute: Callable[[], V]) -> V:
        asked = time.perf_counter_ns()

        def lead(flight: Flight) -> V:
            if key in self._books.index:  # perhaps computed between our look and our turn
                found: V | Absent = self._recall.slowly(key)
                if not isinstance(found, Absent):
                    return found
            stopwatch = hit.Stopwatch()
            value = compute()
            return self._keep_computed(key, absent, value, asked, *stopwatch.stop(), flight)

        value: V = self._flights.fly(key, lead)
        return value

    async def _compute_async(
        self, key: Hashable, absent: Absent, compute: Callable[[], Awaitable[V]]
    ) -> V:
        asked = time.perf_counter_ns()

        async def lead(flight: Flight) -> V:
            found: V | Absent = self._recall.slowly(key)
            if not isinstance(found, Absent):
                return found
            started = time.perf_counter_ns()
            value = await compute()
            passed = time.perf_counter_ns() - started
            return self._keep_computed(key, absent, value, asked, passed, passed, flight)

        value: V = await self._flights.fly_async(key, lead)
        return value

    def _keep_computed(
        self,
        key: Hashable,
        absent: Absent,
        value: V,
        asked: int,
        took: int,
        cost: int,
        flight: Flight,
    ) -> V:
        kept: V = self._keep.computed(key, value, cost, flight)
        waited = time.perf_counter_ns() - asked if absent is PURGED else 0
        hit.regenerated(self._account.address, _KIND, took, waited)
        return kept

    # ---- as a mapping ------------------------------------------------------------------------

    def __setitem__(self, key: K, value: V) -> None:
        try:
            self._keep.store(key, value, 0)
        except BaseException:
            with suppress(TypeError):  # unhashable
                self._books.forget(key)  # what it had is not what it was to have
            raise

    def __delitem__(self, key: K) -> None:
        if not self._books.forget(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        """Whether the value seems to be there; it may be gone by the time it is asked for."""
        return key in self._books

    def __len__(self) -> int:
        """How many entries there are; some may have been taken without anybody noticing yet."""
        return self._books.count()

    def __iter__(self) -> Iterator[K]:
        return iter(cast(list[K], self._books.keys()))

    def items(self) -> ItemsView[K, V]:
        """The entries that are still there when the iteration comes to them."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """The values that are still there when the iteration comes to them."""
        return _Values(self)

    def pop(self, key: K, default: Any = MISS) -> Any:
        """Removes and returns the value under `key`; where there is none, `default` or KeyError."""
        while True:
            entry = self._books.index.get(key)
            found = self._look_up(key)
            if not isinstance(found, Absent) and entry is None:
                continue  # set meanwhile
            if self._books.forget_if(key, None if isinstance(found, Absent) else entry):
                break
        if not isinstance(found, Absent):
            return found
        if default is MISS:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Removes and returns some entry that is still there. KeyError where there is none."""
        for key in self:
            try:
                return key, self.pop(key)
            except KeyError:
                continue  # purged since
        raise KeyError(f"cache {self.name!r} is empty")

    def clear(self) -> None:
        """Forgets every entry and counts anew. What somebody holds stays until he lets go."""
        self._books.clear()
        self._baseline = self._account.read()

    # A cache is equal to itself only: comparing values would read, and so pin, all of them.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    # ---- all of it ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What labels this cache's metrics."""
        return self._account.name

    def info(self) -> CacheInfo:
        """What was asked and answered since it was made or cleared, and its bytes by state."""
        entries = self._books.count()  # sweeps, so that the bytes below are right
        before = self._baseline  # first: clear() may set a later one meanwhile
        now = self._account.read()
        hot_hits = now.hot_hits - before.hot_hits
        resident_hits = now.resident_hits - before.resident_hits
        return CacheInfo(
            name=self.name,
            hits=hot_hits + resident_hits,
            hot_hits=hot_hits,
            resident_hits=resident_hits,
            misses=now.misses - before.misses,
            purged=now.purged - before.purged,
            entries=entries,
            pinned_bytes=now.pinned_bytes,
            idle_bytes=now.idle_bytes,
            offered_bytes=now.offered_bytes,
            purged_bytes=now.purged_bytes,
            hot_bytes=self._hot.bytes,
            max_bytes=self._max_bytes,
            evicted_bytes=now.evicted_total_bytes - before.evicted_total_bytes,
            purged_total_bytes=now.purged_total_bytes - before.purged_total_bytes,
            regenerated=now.regenerated - before.regenerated,
            regenerate_seconds=now.regenerate_seconds - before.regenerate_seconds,
            refused=now.refused - before.refused,
            max_entries=self._max_entries,
            index_bytes=self._books.keeper.books_bytes,
        )

    def discard(self, *keys: K) -> int:
        """Makes the kernel take these entries' ranges now, or all that nobody holds; for tests.

        A small value's range is shared: others go with it. Returns how many ranges went.
        """
        return self._books.discard(keys)

    def close(self) -> None:
        """Forgets every entry and gives the address space back. Using the cache then is a
        ValueError.

        Arrays that somebody holds stay valid until they die.
        """
        self._books.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._books.arena.closed:
            return f"<VolatileCache {self.name!r}, closed>"
        now = self.info()
        return (
            f"<VolatileCache {self.name!r}: {now.entries} entries, "
            f"{format_bytes(now.pinned_bytes)} pinned ({format_bytes(now.hot_bytes)} hot), "
            f"{format_bytes(now.idle_bytes)} idle, {format_bytes(now.offered_bytes)} offered>"
        )


class _Items(ItemsView[Any, Any]):
    """Skips what is gone, where the base would raise KeyError."""

    _mapping: VolatileCache[Any, Any]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for key in self._mapping:
            found = self._mapping._look_up(key)
            if not isinstance(found, Absent):
                yield key, found


class _Values(ValuesView[Any]):
    """Likewise."""

    _mapping: VolatileCache[Any, Any]

    def __iter__(self) -> Iterator[Any]:
        for _, value in self._mapping.items():
            yield value


# A lock that another thread holds while this one forks would stay locked in the child for ever,
# over books half written. So fork waits for every cache.
_held_for_fork: list[VolatileCache[Any, Any]] = []
_fork_lock = threading.Lock()  # of the list, and of who may collect locks


def _before_fork() -> None:
    _fork_lock.acquire()
    for cache in list(VolatileCache._all):
        cache._lock.acquire()
        _held_for_fork.append(cache)


def _after_fork() -> None:
    while _held_for_fork:
        _held_for_fork.pop()._lock.release()
    _fork_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
