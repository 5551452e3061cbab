"""VolatileCache: a mapping whose values the kernel may take while nobody holds them."""

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
from vrange._ranges.limit import on_change
from vrange.sizes import format_bytes, parse_bytes

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_AUTO_SHARE = 10  # hot values, and keys and entries, of all caches: this part of the memory limit
_BURIED_AT_ONCE = 32  # entries, between two looks at the clock
_BURY_SECONDS = 0.0005  # with the GIL held; after it other threads run for a moment
_BURY_PAUSE_SECONDS = 0.0002
_GIVEN_SHARE = 4  # keys and entries of one cache with max_entries, however many those are
_ABSENT = object()
_numbers = itertools.count(1)


class VolatileCache(CacheMapping[K, V], Generic[K, V]):
    """A mapping that uses what memory is spare, and whose values may be gone when asked for again.

    A value that nobody holds is volatile: the kernel takes it when memory runs short, the least
    valuable first (by use, by what computing it took, by byte). A value that somebody holds is
    pinned, and stays. So any key may raise KeyError at any time, whether it was never set or was
    purged; `get_or_compute` is the way to use it.

    Values: ndarrays, and those in tuples, lists and dicts, come back without a copy and read-only,
    as views whose life is the pin; bytes and str come back as themselves; everything else that can
    be pickled comes back equal, and changing it changes no other answer. The first answer is what
    later ones are. What can't be kept is returned all the same, with a NotKeptWarning.

    Whoever asks after a key was set or forgotten (`cache[key] = value`, `del`, `pop`, `clear`) gets
    what was set or has it computed anew: a computation that began before stores nothing, and its
    value goes only to those who asked before.

    Parameters
    ----------
    name : what labels the metrics; by default "cache-1", "cache-2", …
    ttl : seconds, or a timedelta, until a value expires; None: never.
    max_bytes : bytes or "64MiB" that the cache may have in ranges; None: all that is spare. What
        somebody holds is not let go for it.
    max_entries : how many entries the cache may have; the least valuable go first. None: as many as
        keys and entries of all caches may have in a tenth of the memory limit, which the kernel
        can't take. Of a cache with max_entries they have a quarter of it at most.
    hot_bytes : how much the cache holds strongly, so that a hit costs what a dict costs; these
        bytes the kernel can't take. "auto": a tenth of the memory limit for all caches
        together, and less when less is free.
    arena_bytes : address space to reserve at once; None: in steps as the cache grows, up to twice
        the machine's memory and within the budget of all of vrange.
    timeout : seconds, or a timedelta, that a caller waits for another's computation of the same
        key; after that it computes itself, and what it computes is not cached. None: until the end.
    copy : whether each caller gets a value of its own, which it may change; for libraries that
        write to what they only seem to read.

    Notes
    -----
    Threads may share a cache; hits take no lock and keep the GIL. The child of a fork has what
    somebody holds at that moment, and the hot front; other keys are misses there. A value for which
    there is no room, below the memory limit or in the cache, is not stored, as if it had been
    purged at once; `info().refused` counts them. Storing is then no error. Raises TypeError for
    unhashable keys, ValueError for bad arguments and once closed.

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
            # What is held strongly can't be let go to stay below max_bytes.
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

    # ---- asking ------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        found: Any = self._core.get(key, _ABSENT)
        return self._missing(key) if found is _ABSENT else found

    def get(self, key: K, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        return self._core.get(key, default)

    def get_or_compute(self, key: K, compute: Callable[[], V]) -> V:
        """Return the value under `key`, or call compute() and cache what it returns.

        One computation per key at a time, across threads and tasks; the others wait for it, and
        share what it raises, which is not cached. A value for which there is no room is returned
        all the same. What is computed while the key is set or forgotten goes to those who asked
        before, and is not cached. A computation that waits for a thread which asks for the same key
        waits for ever.
        """
        return self._core.get_or_compute(key, compute)  # type: ignore[no-any-return]

    async def get_or_compute_async(self, key: K, compute: Callable[[], Awaitable[V]]) -> V:
        """Do the same with a coroutine function: other tasks run while it computes."""
        answer: V = await answer_async(self._core, key, compute, self._timeout)
        return answer

    def set(self, key: K, value: V, *, ttl: float | timedelta | None = None) -> None:
        """Store `value` under `key`, as `cache[key] = value` does, with a ttl of its own.

        Parameters
        ----------
        key, value : object
            As for `cache[key] = value`.
        ttl : float or timedelta, optional
            The seconds until this value expires; `math.inf` is never. The default is the ttl of
            the cache.

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
        """Whether the value seems to be there; it may be gone by the time it is asked for."""
        return self._core.contains(key)

    def __len__(self) -> int:
        """How many entries there are; some may have been taken without anybody noticing yet."""
        return self._core.count()

    def __iter__(self) -> Iterator[K]:
        return iter(self._core.keys())

    def pop(self, key: K, default: Any = _ABSENT) -> Any:
        """Remove and return the value under `key`; without one, `default`, or raise KeyError."""
        found = self._core.pop(key, default)
        if found is _ABSENT:
            raise KeyError(key)
        return found

    def clear(self) -> None:
        """Forget every entry and count anew. Values that are held stay valid."""
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
            The new cache. Values with a ttl have the whole ttl of the cache before them.

        """
        copy: VolatileCache[K, V] = VolatileCache(name=name, **self._parameters)
        copy.update(self)
        return copy

    # ---- all of it ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What labels this cache's metrics."""
        return self._account.name

    def info(self) -> CacheInfo:
        """Return the requests by outcome since it was made or cleared, and its bytes by state."""
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
            index_bytes=self._core.book_bytes,
            waited=waited,
            object_bytes=self._core.object_bytes,
        )

    def discard(self, *keys: K) -> int:
        """Make the kernel take these entries' ranges now, or all that are not held; for tests.

        A small value's range is shared: others go with it. Returns how many ranges went.
        """
        which = keys or None
        self._core.cool(which)
        handles = self._core.handles(which)
        return sum(lib.vrange_discard(handle) == lib.VRANGE_OK for handle in handles)

    def close(self) -> None:
        """Forget every entry and give the address space back.

        Using the cache then raises ValueError. Arrays that are held stay valid until they die.
        """
        self._core.close()
        self._arena.close()

    def _bury(self, some_are_left: bool) -> None:
        """Give back what was cleared, in a thread of its own."""
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
            # Without a pause this thread would win the GIL back before the others are awake.
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
    hit.set_book_bytes(share, limit // _GIVEN_SHARE)
