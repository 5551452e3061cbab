"""VolatileCache without Linux: evicts the least recently used values above a bound in bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from datetime import timedelta
from typing import Any, Generic, TypeVar

import psutil

from vrange._cache.common import CommonCache
from vrange._cache.info import CacheInfo
from vrange._cache.parameters import EvictionCause, checked_parameters, seconds_of_ttl
from vrange._cache.unstored import as_answered, as_own
from vrange._portable.kept import Kept, keep
from vrange._portable.listener import TellingLock
from vrange._portable.singleflight import Flight, SingleFlight
from vrange.sizes import format_bytes

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SHARE_OF_MEMORY = 10  # by default, a cache has at most 1/10 of the machine's memory
_ABSENT = object()


class VolatileCache(CommonCache[K, V], Generic[K, V]):
    """A mapping with the interface of Linux's class of the same name, and an ordinary bound.

    No kernel reclaims from it, so it has a fixed size. Beyond that size it evicts the least
    recently used values. Answers are as on Linux: arrays are read-only, and changing an answer
    changes no other answer.

    Parameters
    ----------
    name : str, optional
        The cache's name.
    ttl : float or timedelta, optional
        The seconds after which a value expires.
    max_bytes : int or str, optional
        The size of the cache. The default is a tenth of the machine's memory.
    max_entries : int, optional
        The number of entries that the cache may have. By default only their bytes are bounded.
    timeout : float or timedelta, optional
        The seconds that a caller waits while another caller computes the same key. After that
        time it computes the value itself.
    hot_bytes, arena_bytes : int or str, optional
        Accepted and ignored.
    copy : bool, optional
        Whether each caller gets a value of its own, which it may change.
    on_evict : callable, optional
        Called with the key and the cause of each entry that the cache removed by itself.

    Notes
    -----
    Threads may share a cache.

    Examples
    --------
    >>> with VolatileCache(name="squares", max_bytes="1MiB") as squares:
    ...     squares.get_or_compute(12, lambda: 12 * 12)
    144

    """

    def __init__(
        self,
        *,
        name: str | None = None,
        ttl: float | timedelta | None = None,
        max_bytes: int | str | None = None,
        max_entries: int | None = None,
        hot_bytes: int | str = "auto",
        arena_bytes: int | str | None = None,
        timeout: float | timedelta | None = None,
        copy: bool = False,
        on_evict: Callable[[K, EvictionCause], object] | None = None,
    ) -> None:
        given = checked_parameters(
            ttl=ttl,
            max_bytes=max_bytes,
            max_entries=max_entries,
            hot_bytes=hot_bytes,
            arena_bytes=arena_bytes,
            timeout=timeout,
            copy=copy,
            on_evict=on_evict,
        )
        super().__init__(name, given)
        self._bound = given.max_bytes
        if self._bound is None:
            self._bound = psutil.virtual_memory().total // _SHARE_OF_MEMORY
        self._ttl = float("inf") if given.ttl is None else given.ttl
        self._lock = TellingLock(on_evict)
        self._values: OrderedDict[K, tuple[Kept, int, float]] = OrderedDict()
        self._flights = SingleFlight(given.timeout, self._count_waited)
        self._closed = False
        self._bytes = 0
        self._forget_counts()

    def _forget_counts(self) -> None:
        self._hits = self._misses = self._evicted_bytes = self._regenerated = 0
        self._refused = self._waited = 0
        self._regenerate_seconds = 0.0

    # ---- lookups -----------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        found: V | object = self._look_up(key)
        return self._missing(key) if found is _ABSENT else found  # type: ignore[return-value]

    def get_or_compute(self, key: K, compute: Callable[[], V]) -> V:
        """Return the value under `key`, or compute, cache and return it.

        One computation per key runs at a time, across threads and tasks. If `compute` raises,
        nothing is cached.
        """
        found = self._look_up(key)
        if self._parameters.max_entries == 0:
            started = time.perf_counter()
            return self._keep(key, compute(), started)  # type: ignore[no-any-return]
        value: V = self._compute(key, compute) if found is _ABSENT else found
        return value

    async def get_or_compute_async(self, key: K, compute: Callable[[], Awaitable[V]]) -> V:
        """Do the same for a coroutine function: other tasks run while it computes."""
        found = self._look_up(key)
        if found is not _ABSENT:
            return found  # type: ignore[no-any-return]
        if self._parameters.max_entries == 0:
            started = time.perf_counter()
            return self._keep(key, await compute(), started)  # type: ignore[no-any-return]

        leads = False

        async def lead(flight: Flight) -> Any:
            nonlocal leads
            leads = True
            found = self._peek(key)
            if found is not _ABSENT:
                return found
            started = time.perf_counter()
            return self._keep(key, await compute(), started, flight)

        answer = await self._flights.fly_async(key, lead)
        self._lock.tell()  # the flight has landed: a listener may wait for a waiter
        return answer if leads else self._own(key, answer)  # type: ignore[no-any-return]

    def _count_waited(self) -> None:
        # The lookup counted it as a miss.
        with self._lock:
            self._misses -= 1
            self._waited += 1

    def _look_up(self, key: Any) -> Any:
        found = self._peek(key)
        with self._lock:
            if found is _ABSENT:
                self._misses += 1
            else:
                self._hits += 1
        return found

    def _peek(self, key: Any) -> Any:
        with self._lock.quietly():
            self._check_open()
            entry = self._values.get(key)
            if entry is None:
                return _ABSENT
            if entry[2] <= time.monotonic():
                self._drop(key, "expired")
                return _ABSENT
            self._values.move_to_end(key)
            kept = entry[0]
        return kept.answer()

    def _compute(self, key: Any, compute: Callable[[], Any]) -> Any:
        leads = False

        def lead(flight: Flight) -> Any:
            nonlocal leads
            leads = True
            found = self._peek(key)
            if found is not _ABSENT:
                return found
            started = time.perf_counter()
            return self._keep(key, compute(), started, flight)

        answer = self._flights.fly(key, lead)
        self._lock.tell()
        return answer if leads else self._own(key, answer)

    def _own(self, key: Any, answer: Any) -> Any:
        """Return the answer for a caller that waited for the computation of another caller."""
        found = self._peek(key)
        return answer if found is _ABSENT else found

    def _keep(self, key: Any, value: Any, started: float, flight: Flight | None = None) -> Any:
        with self._lock.quietly():
            self._regenerated += 1
            self._regenerate_seconds += time.perf_counter() - started
        return self._store(key, value, flight)

    def _store(
        self, key: Any, value: Any, flight: Flight | None = None, seconds: float | None = None
    ) -> Any:
        hash(key)
        if self._parameters.max_entries == 0:
            self._check_open()
            return value
        if flight is not None and (flight.stale or flight.skipped):
            return as_own(value) if self._parameters.copy else as_answered(value)
        found = self._source.code(value, lambda: self._keep_and_read(value))
        kept, answer = (None, value) if found is None else found
        expires = time.monotonic() + (self._ttl if seconds is None else seconds)
        with self._lock.quietly():
            self._check_open()
            if flight is None:
                self._flights.drop(key)
            elif flight.stale:
                return answer
            assert self._bound is not None
            self._drop(key)
            if kept is None or kept.nbytes > self._bound:
                self._refused += 1
                self._lock.note(key, "refused")
                return answer
            size = kept.nbytes
            while self._values and (
                self._bytes + size > self._bound
                or len(self._values) == self._parameters.max_entries
            ):
                evicted, (_, gone, _) = self._values.popitem(last=False)
                self._bytes -= gone
                self._evicted_bytes += gone
                self._lock.note(evicted, "evicted")
            self._values[key] = (kept, size, expires)
            self._bytes += size
        return answer

    def _keep_and_read(self, value: Any) -> tuple[Kept, Any]:
        kept = keep(value, self._source.homes, copies=self._parameters.copy)
        return kept, kept.answer()

    def _drop(self, key: Any, cause: EvictionCause | None = None) -> bool:
        entry = self._values.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]
            if cause is not None:
                self._lock.note(key, cause)
        return entry is not None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"cache {self._name!r} is closed")

    def set(self, key: K, value: V, *, ttl: float | timedelta | None = None) -> None:
        """Store `value` under `key` with a ttl of its own."""
        self._store(key, value, seconds=seconds_of_ttl(ttl))
        self._lock.tell()

    # ---- as a mapping ------------------------------------------------------------------------

    def __setitem__(self, key: K, value: V) -> None:
        self._store(key, value)
        self._lock.tell()

    def __delitem__(self, key: K) -> None:
        with self._lock:
            self._flights.drop(key)
            if not self._drop(key):
                raise KeyError(key)

    def pop(self, key: K, default: Any = _ABSENT) -> Any:
        """Remove and return the value under `key`; if there is none, `default` or KeyError."""
        with self._lock:
            found = self._look_up(key)
            self._flights.drop(key)
            self._drop(key)
        if found is _ABSENT:
            found = default
        if found is _ABSENT:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        with self._lock:
            entry = self._values.get(key)  # type: ignore[arg-type]
            return entry is not None and entry[2] > time.monotonic()

    def __len__(self) -> int:
        return len(self._keys())

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys())

    def _keys(self) -> list[K]:
        with self._lock:
            now = time.monotonic()
            for key in [key for key, entry in self._values.items() if entry[2] <= now]:
                self._drop(key, "expired")
            return list(self._values)

    def clear(self) -> None:
        """Remove all entries and reset the figures."""
        with self._lock:
            self._flights.flights.drop_all()
            self._values.clear()
            self._bytes = 0
            self._forget_counts()

    def _new(self, name: str | None) -> Any:
        return VolatileCache(name=name, **vars(self._parameters))

    # ---- all of it ---------------------------------------------------------------------------

    def info(self) -> CacheInfo:
        """Return the figures as on Linux. Every hit is a hot one, and nothing is ever purged."""
        with self._lock:
            entries = len(self._keys())
            return CacheInfo(
                name=self._name,
                hits=self._hits + self._waited,
                hot_hits=self._hits,
                resident_hits=0,
                misses=self._misses,
                purged=0,
                entries=entries,
                pinned_bytes=self._bytes,
                idle_bytes=0,
                offered_bytes=0,
                purged_bytes=0,
                hot_bytes=self._bytes,
                max_bytes=self._parameters.max_bytes,
                evicted_bytes=self._evicted_bytes,
                purged_total_bytes=0,
                regenerated=self._regenerated,
                regenerate_seconds=self._regenerate_seconds,
                refused=self._refused,
                waited=self._waited,
                max_entries=self._parameters.max_entries,
                object_bytes=0,  # all of them count as pinned
            )

    def discard(self, *keys: K) -> int:
        """Remove these entries, or all of them. Return the number of removed entries."""
        with self._lock:
            return sum(self._drop(key, "purged") for key in keys or self._keys())

    def close(self) -> None:
        """Remove all entries. Any later use of the cache raises ValueError."""
        with self._lock:
            self.clear()
            self._closed = True

    def __repr__(self) -> str:
        if self._closed:
            return f"<{type(self).__name__} {self._name!r}, closed>"
        return (
            f"<{type(self).__name__} {self._name!r}, not volatile here: "
            f"{format_bytes(self._bytes)}>"
        )
