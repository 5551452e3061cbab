"""VolatileCache: a mapping whose values the kernel may take unless the program holds them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from vrange._cache.address_space import CacheArena
from vrange._cache.background_release import bury
from vrange._cache.codec import Codec
from vrange._cache.figures import Figures
from vrange._cache.fit_limits import fit_limits
from vrange._cache.info import CacheInfo
from vrange._cache.kinds import kind_with, shared_kind
from vrange._cache.make_core import make_core
from vrange._cache.native_flights import answer_async
from vrange._cache.over_tier import OverTier
from vrange._cache.parameters import EvictionCause, checked_parameters, nanoseconds_of_ttl
from vrange._core import lib
from vrange._counters.account import Account
from vrange.sizes import format_bytes

if TYPE_CHECKING:
    from vrange.tiers.stores import Tier

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")

_ABSENT = object()


class VolatileCache(OverTier[K, V], Generic[K, V]):
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
    stale : float or timedelta, optional
        The seconds after its ttl for which a value is still answered, while it is computed again in
        the background. By default callers wait for the computation. See Notes.
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
    on_evict : callable, optional
        Called with the key and the cause of each entry that the cache removed by itself: "evicted",
        "expired", "purged" (the kernel took it) or "refused" (its value could not be stored). See
        Notes.
    shared : str or bool
        The name under which the processes of a service have one cache: those with one
        `VRANGE_SERVICE`, or of one process group. With True that is `name`. Keys must be of types
        that are equal by content, and values must be picklable. `max_bytes`, `max_entries` and the
        figures are those of each process. See docs/services.md.
    below : str, PathLike or Tier, optional
        Where values are kept too, so that a restarted process is not cold: a directory, a
        `diskcache.Cache`, a Redis client, or an object with the methods of `vrange.tiers.Tier`.
        Needs a `name`, by which a later process finds the values. See docs/tiers.md.
    tags : bool
        Whether values may have tags, so that `discard_tag` removes all values with one. With
        `below` they may.

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

    With `stale`, `get_or_compute`, `get_or_compute_async` and decorated functions return a value
    whose ttl has passed at once, for so many seconds more. The first such call computes it again in
    a thread, or in a task of its event loop; at most 8 threads at a time, for all caches. So a
    function that you give must not read variables that change after the call. If the computation
    fails, the thread or the loop reports the exception, and a later call tries again. `cache[key]`,
    `get` and `in` can't compute, so they never find a stale value.

    `on_evict` runs in the thread whose lookup, store, `len`, `info` or iteration notices that the
    entry is gone, outside all locks, and may use the cache. What the program removes or replaces
    does not call it. An Exception that it raises goes to `sys.unraisablehook`.

    Threads may share a cache; hits take no lock and keep the GIL. The child of a fork inherits the
    values that are held at that moment, by the program or in the hot front. It reads all others in
    the memory of its parent, as long as the parent has them. If there is no room for a value, below
    the memory limit or in the cache, it counts as purged at once. That is not an error;
    `info().refused` counts such values.

    Examples
    --------
    >>> with VolatileCache(name="squares") as squares:
    ...     squares.get_or_compute(12, lambda: 12 * 12)
    144

    """

    _codec_kind = Codec

    _calls_are_native = True  # decorated functions ask the core, with no method of this class

    def __new__(
        cls,
        *args: Any,
        shared: str | bool = False,
        below: Any = None,
        tags: bool = False,
        **parameters: Any,
    ) -> Self:
        """Return an empty object, of the class of shared caches if it is to be shared."""
        if cls is not VolatileCache:
            return super().__new__(cls)
        base = cls if shared is False else shared_kind()
        # The processes of a service look at the age of a value in Python.
        ages = shared is not False and parameters.get("stale") is not None
        blank: Self = super().__new__(kind_with(cls, base, below, tags or ages))
        return blank

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
        below: str | os.PathLike[str] | Tier | None = None,
        tags: bool = False,
    ) -> None:
        if shared is not False:
            raise TypeError(f"{type(self).__qualname__} can't be shared: make a VolatileCache")
        if below is not None or tags is not False:
            raise TypeError(
                f"{type(self).__qualname__} can't have below= or tags=: make a VolatileCache"
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
        self._account = Account(self._name, lib.VRANGE_KIND_CACHE)
        self._arena = CacheArena(self._account, given.arena_bytes)
        self._core = make_core(self._account, self._arena, self._source, given, self._codec_kind)
        self._figures = Figures(self._account)
        fit_limits(self)

    # ---- lookups -----------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        found: Any = self._core.get(key, _ABSENT)
        return self._missing(key) if found is _ABSENT else found

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: V | T) -> V | T: ...
    def get(self, key: K, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        return self._core.get(key, default)

    def get_or_compute(
        self, key: K, compute: Callable[[], V], *, tags: str | Iterable[str] = ()
    ) -> V:
        """Return the value under `key`, or call compute() and cache its result.

        One caller at a time computes a key, across threads and tasks. Other callers wait for its
        value, or get the exception that it raises; exceptions are not cached.

        Parameters
        ----------
        key : Hashable
            The key.
        compute : callable
            Called without arguments if there is no value.
        tags : str or iterable of str
            The tags of the value, if it is computed: see `discard_tag`.

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
        if tags:
            raise self._has_no_tags()
        return self._core.get_or_compute(key, compute)  # type: ignore[no-any-return]

    async def get_or_compute_async(
        self, key: K, compute: Callable[[], Awaitable[V]], *, tags: str | Iterable[str] = ()
    ) -> V:
        """Return the value under `key`, or await compute() and cache its result.

        It does what `get_or_compute` does, for a coroutine function. Other tasks run meanwhile.

        Parameters
        ----------
        key : Hashable
            The key.
        compute : coroutine function
            Called without arguments if there is no value. It may return any awaitable, such as a
            task.
        tags : str or iterable of str
            The tags of the value, if it is computed.

        Returns
        -------
        object
            The value, also if there is no room to cache it.

        Raises
        ------
        TypeError
            If `compute` returns what can't be awaited.

        """
        if tags:
            raise self._has_no_tags()
        answer: V = await answer_async(self._core, key, compute, self._parameters.timeout)
        return answer

    def set(
        self,
        key: K,
        value: V,
        *,
        ttl: float | timedelta | None = None,
        tags: str | Iterable[str] = (),
    ) -> None:
        """Store `value` under `key`, as `cache[key] = value` does, with a ttl of its own.

        Parameters
        ----------
        key, value : object
            As for `cache[key] = value`.
        ttl : float or timedelta, optional
            The seconds until this value expires. With `math.inf` it never expires. The default is
            the ttl of the cache.
        tags : str or iterable of str
            The tags of the value: see `discard_tag`.

        Examples
        --------
        >>> cache = VolatileCache(name="sessions")
        >>> cache.set("a", 1, ttl=60)
        >>> cache["a"]
        1
        >>> cache.close()

        """
        if tags:
            raise self._has_no_tags()
        self._core.store(key, value, self._expiry(nanoseconds_of_ttl(ttl)), 0)

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

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V | T) -> V | T: ...
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
        if self._core.clear():
            bury(self._core)
        self._figures.start()

    def _new(self, name: str | None) -> VolatileCache[K, V]:
        return VolatileCache(name=name, **vars(self._parameters))

    # ---- all of it ---------------------------------------------------------------------------

    def info(self) -> CacheInfo:
        """Return the requests by outcome since the last clear, and the bytes by state.

        Returns
        -------
        CacheInfo
            The figures.

        """
        return self._figures.read(self._core, self._parameters)

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

        Any later use of the cache raises ValueError. A call that has begun returns its value.
        Arrays that the program holds stay valid until they die.
        """
        some_are_left = self._core.close()
        self._arena.close()
        if some_are_left:
            bury(self._core)

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
