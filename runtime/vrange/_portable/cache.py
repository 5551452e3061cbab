"""VolatileCache without Linux: evicts the least recently used values above a bound in bytes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

import psutil

from vrange._cache.common import CommonCache
from vrange._cache.info import CacheInfo
from vrange._cache.kinds import kind_with
from vrange._cache.not_kept import warn
from vrange._cache.parameters import EvictionCause, checked_parameters, seconds_of_ttl
from vrange._cache.unstored import as_answered, as_own, copied
from vrange._portable.figures import Figures
from vrange._portable.kept import Kept, keep
from vrange._portable.listener import Listener
from vrange._portable.singleflight import Flight, SingleFlight
from vrange._portable.values import Values
from vrange.sizes import format_bytes

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")

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
    stale : float or timedelta, optional
        Accepted and ignored: callers wait for the computation.
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
    shared : str or bool, optional
        Processes share no cache here: each has its own, with a RuntimeWarning.
    below, tags : optional
        As on Linux.

    Notes
    -----
    Threads may share a cache.

    Examples
    --------
    >>> with VolatileCache(name="squares", max_bytes="1MiB") as squares:
    ...     squares.get_or_compute(12, lambda: 12 * 12)
    144

    """

    def __new__(
        cls, *args: Any, below: Any = None, tags: bool = False, **parameters: Any
    ) -> VolatileCache[K, V]:
        """Return an empty object, of the class with a lower tier or tags if it is to have them."""
        kind = kind_with(cls, cls, below, tags) if cls is VolatileCache else cls
        return super().__new__(kind)

    def __init__(
        self,
        *,
        name: str | None = None,
        ttl: float | timedelta | None = None,
        stale: float | timedelta | None = None,
        max_bytes: int | str | None = None,
        max_entries: int | None = None,
        hot_bytes: int | str = "auto",
        arena_bytes: int | str | None = None,
        timeout: float | timedelta | None = None,
        copy: bool = False,
        on_evict: Callable[[K, EvictionCause], object] | None = None,
        shared: str | bool = False,
        below: Any = None,
        tags: bool = False,
    ) -> None:
        if below is not None or tags is not False:
            raise TypeError(
                f"{type(self).__qualname__} can't have below= or tags=: make a VolatileCache"
            )
        if shared is not False:
            warn(
                "processes can't share a cache on this platform, and each has its own",
                RuntimeWarning,
            )
        given = checked_parameters(
            ttl=ttl,
            max_bytes=max_bytes,
            max_entries=max_entries,
            hot_bytes=hot_bytes,
            arena_bytes=arena_bytes,
            timeout=timeout,
            copy=copy,
            on_evict=on_evict,
            stale=stale,
        )
        super().__init__(name, given)
        self._ttl = float("inf") if given.ttl is None else given.ttl
        self._listener = Listener(on_evict)
        self._lock, self._quiet = self._listener.lock, self._listener.quiet
        most = given.max_bytes
        if most is None:
            most = psutil.virtual_memory().total // _SHARE_OF_MEMORY
        self._values = Values[K](most, max_entries, self._listener.note)
        self._figures = Figures()
        self._flights = SingleFlight(given.timeout, self._count_waited)
        self._closed = False

    # ---- lookups -----------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        found: V | object = self._look_up(key)
        return self._missing(key) if found is _ABSENT else found  # type: ignore[return-value]

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: V | T) -> V | T: ...
    def get(self, key: K, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        found = self._look_up(key)
        return default if found is _ABSENT else found

    def get_or_compute(
        self, key: K, compute: Callable[[], V], *, tags: str | Iterable[str] = ()
    ) -> V:
        """Return the value under `key`, or compute, cache and return it.

        One computation per key runs at a time, across threads and tasks. If `compute` raises,
        nothing is cached.
        """
        if tags:
            raise self._has_no_tags()
        stored = self._values.stored
        found = self._look_up(key)
        if found is not _ABSENT:
            return found  # type: ignore[no-any-return]
        if self._parameters.max_entries == 0:
            started = time.perf_counter()
            return self._keep(key, compute(), started)  # type: ignore[no-any-return]

        def lead(flight: Flight) -> Any:
            found = self._look_again(key, stored)
            if found is not _ABSENT:
                return found
            started = time.perf_counter()
            return self._keep(key, compute(), started, flight)

        led, answer = self._flights.fly(key, lead)
        self._listener.tell()
        return answer if led else self._own(key, answer)  # type: ignore[no-any-return]

    async def get_or_compute_async(
        self, key: K, compute: Callable[[], Awaitable[V]], *, tags: str | Iterable[str] = ()
    ) -> V:
        """Do the same for a coroutine function: other tasks run while it computes."""
        if tags:
            raise self._has_no_tags()
        stored = self._values.stored
        found = self._look_up(key)
        if found is not _ABSENT:
            return found  # type: ignore[no-any-return]
        if self._parameters.max_entries == 0:
            started = time.perf_counter()
            return self._keep(key, await compute(), started)  # type: ignore[no-any-return]

        async def lead(flight: Flight) -> Any:
            found = self._look_again(key, stored)
            if found is not _ABSENT:
                return found
            started = time.perf_counter()
            return self._keep(key, await compute(), started, flight)

        led, answer = await self._flights.fly_async(key, lead)
        self._listener.tell()  # the flight has landed: a listener may wait for a waiter
        return answer if led else self._own(key, answer)  # type: ignore[no-any-return]

    def _count_waited(self) -> None:
        # The lookup counted it as a miss.
        with self._lock:
            self._figures.misses -= 1
            self._figures.waited += 1

    def _look_up(self, key: Any) -> Any:
        """Return the value under `key`, or _ABSENT; count the request."""
        with self._lock:
            kept = self._find(key)
            if kept is None:
                self._figures.misses += 1
                return _ABSENT
            self._figures.hits += 1
        return kept.answer()

    def _peek(self, key: Any) -> Any:
        """Do the same without counting, and leave it to a later caller to tell the listener.

        The cache may be closed, since the call began.
        """
        with self._quiet:
            kept = self._values.find(key)
        return _ABSENT if kept is None else kept.answer()

    def _look_again(self, key: Any, stored: int) -> Any:
        """Return the value under `key`, if one may have been stored after the first lookup."""
        return _ABSENT if stored == self._values.stored else self._peek(key)

    def _find(self, key: Any) -> Kept | None:
        self._check_open()
        return self._values.find(key)

    def _own(self, key: Any, answer: Any) -> Any:
        """Return the answer for a caller that waited for the computation of another caller."""
        found = self._peek(key)
        if found is not _ABSENT:
            return found
        return copied(answer) if self._parameters.copy else answer

    # ---- storing -----------------------------------------------------------------------------

    def _keep(self, key: Any, value: Any, started: float, flight: Flight | None = None) -> Any:
        with self._quiet:
            self._figures.regenerated += 1
            self._figures.regenerate_seconds += time.perf_counter() - started
        copies = self._parameters.copy
        if flight is not None and (flight.stale or flight.skipped):
            flight.copies = copies
            return as_own(value) if copies else as_answered(value)
        answer = self._store(key, value, flight)
        if flight is not None and copies:
            with self._quiet:
                flight.copies = self._values.find(key) is None
        return answer

    def _store(
        self, key: Any, value: Any, flight: Flight | None = None, seconds: float | None = None
    ) -> Any:
        if self._parameters.max_entries == 0:
            self._check_open()
            return value
        found = self._source.code(value, lambda: self._keep_and_read(value))
        kept, answer = (None, value) if found is None else found
        expires = time.monotonic() + (self._ttl if seconds is None else seconds)
        with self._quiet:
            if flight is None:
                self._check_open()
                self._flights.drop(key)
            elif flight.stale or self._closed:
                return answer
            if kept is None or kept.nbytes > self._values.bytes_most:
                self._values.drop(key)
                self._figures.refused += 1
                self._listener.note(key, "refused")
            else:
                self._values.put(key, kept, expires)
        return answer

    def _keep_and_read(self, value: Any) -> tuple[Kept, Any]:
        kept = keep(value, self._source.homes, copies=self._parameters.copy)
        return kept, kept.answer()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"cache {self._name!r} is closed")

    def set(
        self,
        key: K,
        value: V,
        *,
        ttl: float | timedelta | None = None,
        tags: str | Iterable[str] = (),
    ) -> None:
        """Store `value` under `key` with a ttl of its own."""
        if tags:
            raise self._has_no_tags()
        hash(key)  # first: a key that can't be hashed fails, whatever the value is
        self._store(key, value, seconds=seconds_of_ttl(ttl))
        self._listener.tell()

    # ---- as a mapping ------------------------------------------------------------------------

    def __setitem__(self, key: K, value: V) -> None:
        hash(key)
        self._store(key, value)
        self._listener.tell()

    def __delitem__(self, key: K) -> None:
        with self._lock:
            self._flights.drop(key)
            if not self._values.drop(key):
                raise KeyError(key)

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V | T) -> V | T: ...
    def pop(self, key: K, default: Any = _ABSENT) -> Any:
        """Remove and return the value under `key`; if there is none, `default` or KeyError."""
        with self._lock:
            found = self._look_up(key)
            self._flights.drop(key)
            self._values.drop(key)
        if found is _ABSENT:
            found = default
        if found is _ABSENT:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return self._values.holds(key)

    def __len__(self) -> int:
        return len(self._keys())

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys())

    def _keys(self) -> list[K]:
        with self._lock:
            return self._values.keys()

    def clear(self) -> None:
        """Remove all entries and reset the figures."""
        self._clear_here()

    def _clear_here(self) -> None:
        with self._lock:
            self._flights.flights.drop_all()
            self._values.clear()
            self._figures = Figures()

    # ---- for a lower tier --------------------------------------------------------------------

    def _peek_here(self, key: Any, default: Any) -> Any:
        found = self._peek(key)
        return default if found is _ABSENT else found

    def _as_known(self, key: Any) -> Any:
        return key

    def _leads(self, key: Any) -> bool:
        return key in self._flights.under_way

    def _changes_of(self, key: Any) -> Any:
        return None

    def _store_from_below(
        self, key: Any, stored: Any, seconds: float | None, since: Any, leads: bool
    ) -> None:
        self._store(key, stored, seconds=seconds)

    def _room_for(self, nbytes: int) -> object:
        return None

    def _new(self, name: str | None) -> Any:
        return VolatileCache(name=name, **vars(self._parameters))

    # ---- all of it ---------------------------------------------------------------------------

    def info(self) -> CacheInfo:
        """Return the figures as on Linux. Every hit is a hot one, and nothing is ever purged."""
        with self._lock:
            return self._figures.read(self._name, self._values, self._parameters)

    def discard(self, *keys: K) -> int:
        """Remove these entries, or all of them. Return the number of removed entries."""
        with self._lock:
            return sum(self._values.drop(key, "purged") for key in keys or self._keys())

    def close(self) -> None:
        """Remove all entries. Any later use of the cache raises ValueError."""
        with self._lock:
            self._clear_here()
            self._closed = True

    def __repr__(self) -> str:
        if self._closed:
            return f"<{type(self).__name__} {self._name!r}, closed>"
        return (
            f"<{type(self).__name__} {self._name!r}, not volatile here: "
            f"{format_bytes(self._values.nbytes)}>"
        )
