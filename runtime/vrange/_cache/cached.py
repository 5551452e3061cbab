"""@cached: functools.cache, with values that the kernel may take while they are not held."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from vrange._cache.by_value import reduce_function
from vrange._cache.cache import VolatileCache
from vrange._cache.calls import Calls, MakeKey, refuse_unhashable
from vrange._cache.decorate import Backend, blank_in_python, decorate_or_wait
from vrange._cache.function import (
    CachedClassMethod,
    CachedFunction,
    CachedMethod,
    CachedStaticMethod,
)
from vrange._cache.native_flights import led_here
from vrange._cache.options import CachedOptions
from vrange._cache.parameters import EvictionCause
from vrange._cache.refresh import leave_unrenewed
from vrange._core import hit
from vrange._counters.account import NAME_BYTES_MOST

if TYPE_CHECKING:
    from vrange.tiers.stores import Tier

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

CachedFunction.register(hit.CachedFunction)
hit.use_in_calls(CachedMethod, reduce_function, refuse_unhashable)


def _new_make_key(
    cache: VolatileCache[Any, Any], function: Callable[..., Any], options: CachedOptions
) -> MakeKey:
    return hit.CachedFunction(cache._core, function, options.key, options.typed).make_key


def wrap_natively(calls: Calls, function: Callable[..., Any], into: Any) -> Any:
    """Return the function, decorated by native code."""
    options = calls.options
    is_plain = type(calls) is Calls and not options.ignore
    key = options.key if is_plain else lambda *args, **kwargs: calls.make_key(args, kwargs)
    decorated: Any = hit.CachedFunction(calls.cache._core, None) if into is None else into
    decorated.fill(function, key, options.typed)
    functools.update_wrapper(decorated, calls.function)
    decorated.cache = calls.cache
    decorated._calls = calls
    for attribute in (
        calls.cache_info,
        calls.cache_clear,
        calls.cache_discard,
        calls.cache_contains,
        calls.cache_parameters,
        calls.cache._repr_html_,
    ):
        setattr(decorated, attribute.__name__, attribute)
    return decorated


def blank_natively(kind: type, cache: Any) -> Any:
    """Return an empty decorated function."""
    if kind is hit.CachedFunction:
        return hit.CachedFunction(cache._core, None)
    return blank_in_python(kind, cache)


def _leave_uncached() -> None:
    # If this call computes because its wait would never end, it has no flight of its own. Then it
    # calls off the flight around it, whose result is not cached either.
    flight = led_here.get()
    if flight is not None:
        flight.call_off()
    else:
        leave_unrenewed()


BACKEND = Backend(
    __name__,
    VolatileCache,
    _new_make_key,
    wrap_natively,
    blank_natively,
    _leave_uncached,
    NAME_BYTES_MOST,
)


class CachedDecorator(Protocol):
    """The decorator that `cached` returns if it is called with parameters."""

    @overload
    def __call__(self, function: classmethod[S, P, R], /) -> CachedClassMethod[S, P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, R], /
    ) -> CachedStaticMethod[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...


@overload
def cached(function: classmethod[S, P, R], /) -> CachedClassMethod[S, P, R]: ...
@overload
def cached(  # type: ignore[overload-overlap]
    function: staticmethod[P, R], /
) -> CachedStaticMethod[P, R]: ...
@overload
def cached(function: Callable[P, R], /) -> CachedFunction[P, R]: ...
@overload
def cached(
    at_most: int | None = None,  # entries, as in lru_cache(128)
    /,
    *,
    name: str | None = None,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    ttl: float | timedelta | None = None,
    stale: float | timedelta | None = None,
    max_bytes: int | str | None = None,
    max_entries: int | None = None,
    maxsize: int | None = None,
    hot_bytes: int | str = "auto",
    ignore: str | Iterable[str] = (),
    skip: Callable[[Any], object] | None = None,
    timeout: float | timedelta | None = None,
    copy: bool = False,
    on_evict: Callable[[Any, EvictionCause], object] | None = None,
    shared: bool | str = False,
    below: str | os.PathLike[str] | Tier | None = None,
    tags: str | Iterable[str] | Callable[..., str | Iterable[str]] | None = None,
) -> CachedDecorator: ...
@overload
def cached(
    *,
    cache: VolatileCache[Any, Any] | Callable[[Any], VolatileCache[Any, Any]],
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    ignore: str | Iterable[str] = (),
    skip: Callable[[Any], object] | None = None,
    tags: str | Iterable[str] | Callable[..., str | Iterable[str]] | None = None,
) -> CachedDecorator: ...
def cached(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    ttl: float | timedelta | None = None,
    stale: float | timedelta | None = None,
    max_bytes: int | str | None = None,
    max_entries: int | None = None,
    maxsize: int | None = None,
    hot_bytes: int | str = "auto",
    ignore: str | Iterable[str] = (),
    cache: VolatileCache[Any, Any] | Callable[[Any], VolatileCache[Any, Any]] | None = None,
    skip: Callable[[Any], object] | None = None,
    timeout: float | timedelta | None = None,
    copy: bool = False,
    on_evict: Callable[[Any, EvictionCause], object] | None = None,
    shared: bool | str = False,
    below: str | os.PathLike[str] | Tier | None = None,
    tags: str | Iterable[str] | Callable[..., str | Iterable[str]] | None = None,
) -> Any:
    """Cache a function's results in memory that the kernel may take back.

    Use it as functools.cache or functools.lru_cache, on functions, coroutine functions and
    methods. A result that the kernel took is computed again, so it must be harmless to call the
    function again.

    Parameters
    ----------
    function : callable
        The function. Without it, `cached` returns a decorator. An int in its place is
        `max_entries`, as in `lru_cache(128)`.
    name : str, optional
        The label of the cache's metrics. The default is the function's module and name, cut to
        63 bytes.
    key : callable, optional
        Called with the arguments of a call; returns its key. By default the arguments are the key.
    typed : bool
        Whether arguments of different types, such as 3 and 3.0, always have different keys.
    ttl, stale, max_bytes, max_entries, hot_bytes, timeout, copy, on_evict
        As for VolatileCache. `on_evict` gets the key of a call.
    ignore : str or iterable of str
        The names of parameters that do not change the result, such as "session". They are not part
        of the key.
    cache : VolatileCache or callable, optional
        An existing cache, which several functions may share. Or a function that returns a cache
        for the first argument: `cached(cache=attrgetter("cache"))` decorates a method whose objects
        each have a cache. `cache_info()` then reports on the whole cache, and `cache_clear()`
        removes the results of this function only.
    skip : callable, optional
        Called with each computed result. If it returns a true value, the result is returned and not
        cached.
    shared : bool or str
        Whether the processes of a service have one cache for the function. They find it by the
        function's module, name, file and code, or by the name that is given. Arguments must be of
        types that are equal by content: see docs/services.md.
    below : str, PathLike or Tier, optional
        Where results are kept too, so that a restarted process is not cold: a directory, a
        `diskcache.Cache`, a Redis client, or an object with the methods of `vrange.tiers.Tier`. A
        later process finds them by `name`, or else by the function's module, name, file and code.
        See docs/tiers.md.
    tags : str, iterable of str, or callable, optional
        The tags of the results, so that `function.cache.discard_tag(tag)` removes all results with
        one. A callable gets the arguments of a call.
    maxsize : int, optional
        Another name of `max_entries`. As for lru_cache, 0 caches nothing, and a negative number
        is 0.

    Returns
    -------
    CachedFunction
        The function, with `cache_info()`, `cache_clear()`, `cache_discard(*args)`,
        `cache_contains(*args)`, `cache_parameters()`, `cache` (the VolatileCache itself) and
        `__wrapped__`.

    Raises
    ------
    TypeError
        If `function` is not callable, or is a generator function. A call with arguments that can't
        be hashed raises it, too.

    Notes
    -----
    Of calls with equal arguments, one computes at a time, across threads and tasks. The other calls
    wait for its result, or get its exception; exceptions are not cached. A call after
    `cache_clear()` is computed again. On a method, `self` is part of the key, so the cache keeps
    the object alive.

    A result that can't be kept, such as an open file, is returned uncached, with a NotKeptWarning
    that names the function and the type.

    Examples
    --------
    >>> @cached
    ... def square(n):
    ...     return n * n
    >>> square(12), square(12)
    (144, 144)
    >>> square.cache_info().hits
    1

    """
    options = CachedOptions(
        name=name,
        key=key,
        typed=typed,
        ttl=ttl,
        stale=stale,
        max_bytes=max_bytes,
        max_entries=max_entries,
        maxsize=maxsize,
        hot_bytes=hot_bytes,
        ignore=ignore,
        cache=cache,
        skip=skip,
        timeout=timeout,
        copy=copy,
        on_evict=on_evict,
        shared=shared,
        below=below,
        tags=tags,
    )
    return decorate_or_wait(function, options, BACKEND)
