"""VolatileCache: a mapping whose values the kernel may take unless the program holds them."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import (
    Awaitable,
    Callable,
    Hashable,
    Iterator,
)
from datetime import timedelta
from functools import cache, partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from vrange._cache.address_space import CacheArena
from vrange._cache.codec import Codec
from vrange._cache.info import CacheInfo
from vrange._cache.mapping import CacheMapping
from vrange._cache.not_kept import Source
from vrange._cache.options import check_max_entries, nanoseconds_of_ttl, seconds_of_timeout
from vrange._cache.waiting import answer_after, answer_async, led_here
from vrange._cgroup.limits import memory_limit
from vrange._core import hit, lib
from vrange._counters.account import Account
from vrange._ranges.set_limit import on_change
from vrange.sizes import format_bytes, parse_bytes

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_AUTO_SHARE = 10  # of the memory limit: hot values, and keys and entries, of all caches together
_BURIED_AT_ONCE = 32  # entries, between two looks at the clock
_BURY_SECONDS = 0.0005  # with the GIL held; after it other threads run for a moment
_BURY_PAUSE_SECONDS = 0.0002
_GIVEN_SHARE = 4  # of the memory limit: keys and entries of one cache with max_entries
_ABSENT = object()
_numbers = itertools.count(1)


class VolatileCache(CacheMapping[K, V], Generic[K, V]):
    """A mapping that uses the spare memory, and whose values the kernel may take.

    A value is volatile while the program does not hold it: the kernel takes it when memory runs
    short. It takes the least valuable values first: those that are seldom used, cheap to compute,
    or large. A value that the program holds is pinned, and stays. So a lookup of any key may raise
    KeyError at any time, whether the key was never set or its value was purged. Use
    `get_or_compute`, which computes the value again.

    Parameters
    ----------
    name : str, optional
        The label of the cache's metrics. The default is "cache-1", "cache-2", …
    ttl : float or timedelta, optional
        The seconds until a value expires. By default values never expire.
    max_bytes : int or str, optional
        The bytes that the cache may use for values, such as "64MiB". By default it uses all spare
        memory. Values that the program holds are not evicted to stay below the bound.
    max_entries : int, optional
        The number of entries that the cache may have; it evicts the least valuable first. Keys and
        entries, which the kernel can't take, use at most a quarter of the memory limit then. By
        default only their memory is bounded: a tenth of the memory limit for all caches together.
        With 0 the cache stores nothing: each request computes, and waits for no other caller.
    hot_bytes : int or str
        The bytes of values that the cache holds strongly, so that a hit costs as much as a lookup
        in a dict. The kernel can't take them. With "auto", all caches together hold a tenth of the
        memory limit, and less when less memory is free.
    arena_bytes : int or str, optional
        The address space to reserve at once. By default the cache reserves it in steps as it
        grows, up to twice the machine's memory, within the budget of all of vrange.
    timeout : float or timedelta, optional
        The seconds that a caller waits while another caller computes the same key. After that time
        it computes the value itself, and that value is not cached. By default it waits until the
        computation ends.
    copy : bool
        Whether each caller gets a value of its own, which it may change. Use it for libraries that
        write to arguments that they seem only to read.

    Raises
    ------
    TypeError
        For a key that can't be hashed.
    ValueError
        For a bad argument, and for any use after `close()`.

    Notes
    -----
    A hit returns ndarrays, also those in tuples, lists and dicts, as read-only views without a
    copy; a view pins its value while it lives. It returns bytes, str and numbers as themselves, and
    any other value that can be pickled as an equal object. Changing that object changes no other
    answer. The first answer has the same types, and is as writable, as later answers. A value that
    can't be kept is returned uncached, with a NotKeptWarning.

    A lookup that begins after a key was set or removed (`cache[key] = value`, `del`, `pop`,
    `clear`) returns the value that was set, or computes it again. A computation that began earlier
    stores nothing, and only lookups that began earlier get its value.

    Threads may share a cache; hits take no lock and keep the GIL. The child of a fork inherits the
    values that are held at that moment, by the program or in the hot front; other keys are misses
    there. If there is no room for a value, below the memory limit or in the cache, it counts as
    purged at once. That is not an error; `info().refused` counts such values.

    Examples
    --------
    >>> with VolatileCache(name="squares") as squares:
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
    ) -> None:
        ttl_ns = nanoseconds_of_ttl(ttl)
        check_max_entries(max_entries)
        self._timeout = seconds_of_timeout(timeout)
        self._parameters: dict[str, Any] = {
            "ttl": ttl,
            "max_bytes": max_bytes,
            "max_entries": max_entries,
            "hot_bytes": hot_bytes,
            "arena_bytes": arena_bytes,
            "timeout": timeout,
            "copy": copy,
        }
        self._max_entries = max_entries
        self._max_bytes = None if max_bytes is None else parse_bytes(max_bytes, "max_bytes")
        arena_size = None if arena_bytes is None else parse_bytes(arena_bytes, "arena_bytes")
        if arena_size == 0:
            raise ValueError("arena_bytes must be at least 1, but is 0")
        hot_limit = None if hot_bytes == "auto" else parse_bytes(hot_bytes, "hot_bytes")
        if self._max_bytes is not None:
            # Values that are held strongly can't be evicted to stay below max_bytes.
            half = self._max_bytes // 2
            hot_limit = half if hot_limit is None else min(hot_limit, half)
        self._account = Account(
            name if name is not None else f"cache-{next(_numbers)}", lib.VRANGE_KIND_CACHE
        )
        self._arena = CacheArena(self._account, arena_size)
        self._source = Source(self._account.name)
        codec = Codec(self._source, copies=copy)
        _follow_limit()
        self._core = hit.CacheCore(
            owner=self._account,
            account=self._account.address,
            name=self._account.name,
            open_arena=self._arena.open,
            encode=codec.encode,
            weigh=codec.weigh,
            wait=partial(answer_after, self._timeout),
            give_up=self._source.give_up,
            led=led_here,
            ttl_ns=ttl_ns,
            max_bytes=sys.maxsize if self._max_bytes is None else self._max_bytes,
            hot_bytes=hot_limit,
            max_entries=max_entries,
            copies=copy,
        )
        self._baseline = self._account.read()

    def _values_are_of(self, function: Callable[..., Any]) -> None:
        """Note the function that is decorated, for warnings."""
        self._source.is_function(function)

    # ---- lookups -----------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        found: Any = self._core.get(key, _ABSENT)
        return self._missing(key) if found is _ABSENT else found

    def get(self, key: K, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        return self._core.get(key, default)

    def get_or_compute(self, key: K, compute: Callable[[], V]) -> V:
        """Return the value under `key`, or call compute() and cache its result.

        One caller at a time computes a key, across threads and tasks. Other callers wait for its
        value, or get the exception that it raises; exceptions are not cached.

        Parameters
        ----------
        key : Hashable
            The key.
        compute : callable
            Called without arguments if there is no value.

        Returns
        -------
        object
            The value, also if there is no room to cache it.

        Notes
        -----
        If the key is set or removed during its computation, the result goes only to callers that
        began earlier, and is not cached. A computation that blocks until another thread has looked
        up the same key waits for ever, because that thread waits for the computation.

        Examples
        --------
        >>> cache = VolatileCache(name="squares")
        >>> cache.get_or_compute(12, lambda: 12 * 12)
        144
        >>> cache.close()

        """
        return self._core.get_or_compute(key, compute)  # type: ignore[no-any-return]

    async def get_or_compute_async(self, key: K, compute: Callable[[], Awaitable[V]]) -> V:
        """Return the value under `key`, or await compute() and cache its result.

        It does what `get_or_compute` does, for a coroutine function. Other tasks run meanwhile.

        Parameters
        ----------
        key : Hashable
            The key.
        compute : coroutine function
            Called without arguments if there is no value.

        Returns
        -------
        object
            The value, also if there is no room to cache it.

        """
        answer: V = await answer_async(self._core, key, compute, self._timeout)
        return answer

    def set(self, key: K, value: V, *, ttl: float | timedelta | None = None) -> None:
        """Store `value` under `key`, as `cache[key] = value` does, with a ttl of its own.

        Parameters
        ----------
        key, value : object
            As for `cache[key] = value`.
        ttl : float or timedelta, optional
            The seconds until this value expires. With `math.inf` it never expires. The default is
            the ttl of the cache.

        Examples
        --------
        >>> cache = VolatileCache(name="sessions")
        >>> cache.set("a", 1, ttl=60)
        >>> cache["a"]
        1
        >>> cache.close()

        """
        ttl_ns = nanoseconds_of_ttl(ttl)
        self._core.store(key, value, time.monotonic_ns() + ttl_ns if ttl_ns else 0, 0)

    # ---- as a mapping ------------------------------------------------------------------------

    def __setitem__(self, key: K, value: V) -> None:
        self._core.store(key, value, 0, 0)

    def __delitem__(self, key: K) -> None:
        if not self._core.remove(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        """Return whether the value seems to be there. It may be gone by the next lookup."""
        return self._core.contains(key)

    def __len__(self) -> int:
        """Return the number of entries, including values whose loss was not noticed yet."""
        return self._core.count()

    def __iter__(self) -> Iterator[K]:
        return iter(self._core.keys())

    def pop(self, key: K, default: Any = _ABSENT) -> Any:
        """Remove and return the value under `key`.

        Parameters
        ----------
        key : Hashable
            The key.
        default : object, optional
            Returned if there is no value.

        Raises
        ------
        KeyError
            If there is no value and no `default`.

        """
        found = self._core.pop(key, default)
        if found is _ABSENT:
            raise KeyError(key)
        return found

    def clear(self) -> None:
        """Remove all entries and reset the figures. Values that the program holds stay valid."""
        self._bury(self._core.clear())
        self._baseline = self._account.read()

    def copy(self, *, name: str | None = None) -> VolatileCache[K, V]:
        """Return a new cache with the same parameters and the values that are still there.

        Parameters
        ----------
        name : str, optional
            The label of its metrics. The default is as for a new cache.

        Returns
        -------
        VolatileCache
            The new cache. The ttl of its values starts again, with the ttl of the cache.

        """
        copy: VolatileCache[K, V] = VolatileCache(name=name, **self._parameters)
        copy.update(self)
        return copy

    # ---- all of it ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The label of this cache's metrics."""
        return self._account.name

    def info(self) -> CacheInfo:
        """Return the requests by outcome since the last clear, and the bytes by state.

        Returns
        -------
        CacheInfo
            The figures.

        """
        entries = self._core.count()  # sweeps, so that the bytes below are right
        before = self._baseline  # first: clear() may set a later one meanwhile
        now = self._account.read()
        hot_hits = now.hot_hits - before.hot_hits
        resident_hits = now.resident_hits - before.resident_hits
        waited = now.waited - before.waited
        return CacheInfo(
            name=self.name,
            hits=hot_hits + resident_hits + waited,
            hot_hits=hot_hits,
            resident_hits=resident_hits,
            misses=now.misses - before.misses,
            purged=now.purged - before.purged,
            entries=entries,
            pinned_bytes=now.pinned_bytes,
            idle_bytes=now.idle_bytes,
            offered_bytes=now.offered_bytes,
            purged_bytes=now.purged_bytes,
            hot_bytes=self._core.hot_bytes,
            max_bytes=self._max_bytes,
            evicted_bytes=now.evicted_total_bytes - before.evicted_total_bytes,
            purged_total_bytes=now.purged_total_bytes - before.purged_total_bytes,
            regenerated=now.regenerated - before.regenerated,
            regenerate_seconds=now.regenerate_seconds - before.regenerate_seconds,
            refused=now.refused - before.refused,
            max_entries=self._max_entries,
            index_bytes=self._core.index_bytes,
            waited=waited,
            object_bytes=self._core.object_bytes,
        )

    def discard(self, *keys: K) -> int:
        """Make the kernel take values now, for tests. Values that the program holds stay.

        Parameters
        ----------
        *keys : Hashable
            The keys of the values. The default is all keys. Small values share a range, so the
            values that share one with a value of these keys are lost as well.

        Returns
        -------
        int
            The number of ranges that were taken.

        """
        which = keys or None
        self._core.cool(which)
        handles = self._core.handles(which)
        return sum(lib.vrange_discard(handle) == lib.VRANGE_OK for handle in handles)

    def close(self) -> None:
        """Remove all entries and free the address space.

        Any later use of the cache raises ValueError. Arrays that the program holds stay valid until
        they die.
        """
        self._core.close()
        self._arena.close()

    def _bury(self, some_are_left: bool) -> None:
        """Free the cleared entries, in a thread of their own."""
        if some_are_left:
            threading.Thread(target=_bury, args=(self._core,), name="vrange-clear").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        """Return a bar of its requests by outcome, and a line of figures, for notebooks."""
        return self.info()._repr_html_()

    def __repr__(self) -> str:
        if self._core.closed:
            return f"<{type(self).__name__} {self.name!r}, closed>"
        now = self.info()
        return (
            f"<{type(self).__name__} {self.name!r}: {now.entries} entries, "
            f"{format_bytes(now.pinned_bytes)} pinned, {format_bytes(now.hot_bytes)} hot "
            f"({format_bytes(now.object_bytes)} in objects), "
            f"{format_bytes(now.idle_bytes)} idle, {format_bytes(now.offered_bytes)} offered>"
        )


def _bury(core: hit.CacheCore) -> None:
    lib.vrange_thread_name(b"vrange-clear")
    begun = time.monotonic()
    while core.bury(_BURIED_AT_ONCE):
        if time.monotonic() - begun > _BURY_SECONDS:
            # Without a pause, this thread would win the GIL back before other threads wake up.
            time.sleep(_BURY_PAUSE_SECONDS)
            begun = time.monotonic()


@cache
def _follow_limit() -> None:
    """Set the automatic bounds, now and whenever the program sets a limit."""
    on_change(_set_automatic_bounds)
    _set_automatic_bounds()


def _set_automatic_bounds() -> None:
    limit = memory_limit().limit_bytes
    share = limit // _AUTO_SHARE
    hit.set_hot_bytes(share)
    hit.set_index_bytes(share, limit // _GIVEN_SHARE)
