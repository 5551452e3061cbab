"""@cached: functools.cache, with values that the kernel may take while nobody holds them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, overload

from vrange._cache.cache import VolatileCache
from vrange._cache.options import check_decorated, name_of
from vrange._core import hit

F = TypeVar("F", bound=Callable[..., Any])


CachedFunction = hit.CachedFunction


def _make_async(
    function: Callable[..., Awaitable[Any]],
    cache: VolatileCache[Hashable, Any],
    key: Callable[..., Hashable] | None,
    typed: bool,
) -> Callable[..., Awaitable[Any]]:
    make_key = CachedFunction(cache._core, function, key, typed).make_key

    async def answer(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        return await cache.get_or_compute_async(key, lambda: function(*args, **kwargs))

    return answer


@overload
def cached(function: F, /) -> F: ...
@overload
def cached(
    *,
    name: str | None = None,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    ttl: float | None = None,
    max_bytes: int | str | None = None,
    max_entries: int | None = None,
    hot_bytes: int | str = "auto",
) -> Callable[[F], F]: ...
def cached(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    ttl: float | None = None,
    max_bytes: int | str | None = None,
    max_entries: int | None = None,
    hot_bytes: int | str = "auto",
) -> Any:
    """Cache a function's results in memory that the kernel may take back.

    Use it as functools.cache, on functions, coroutine functions and methods (whose `self` is part
    of the key, and is kept alive by it). Calls with equal arguments are computed once at a time,
    whatever the number of threads or tasks; those who wait get the exception, too, and it is not
    cached. A call after `cache_clear()` is computed anew. The function has to be one that may be
    computed again: that is what happens to results the kernel took.

    Parameters
    ----------
    name : what labels the metrics; by default the function's module and name, cut to 63 bytes.
    key : called with the arguments; returns what the result is cached under. By default the
        arguments.
    typed : whether 3 and 3.0 are cached apart.
    ttl, max_bytes, max_entries, hot_bytes : as for VolatileCache.

    The function gets `cache_info()`, `cache_clear()`, `cache_parameters()`, `cache` (the
    VolatileCache itself) and `__wrapped__`. Raises TypeError for what is not callable, and when
    called with unhashable arguments or a result that can't be pickled.

    >>> @cached
    ... def square(n):
    ...     return n * n
    >>> square(12), square(12)
    (144, 144)
    >>> square.cache_info().hits
    1

    """
    if function is None:
        return lambda function: _decorate(
            function, name, key, typed, ttl, max_bytes, max_entries, hot_bytes
        )
    return _decorate(function, name, key, typed, ttl, max_bytes, max_entries, hot_bytes)


def _decorate(
    function: Any,
    name: str | None,
    key: Callable[..., Hashable] | None,
    typed: bool,
    ttl: float | None,
    max_bytes: int | str | None,
    max_entries: int | None,
    hot_bytes: int | str,
) -> Any:
    check_decorated(function, key)
    if name is None:
        name = name_of(function)
    cache: VolatileCache[Hashable, Any] = VolatileCache(
        name=name,
        ttl=ttl,
        max_bytes=max_bytes,
        max_entries=max_entries,
        hot_bytes=hot_bytes,
    )
    decorated: Any
    if inspect.iscoroutinefunction(function):
        decorated = _make_async(function, cache, key, typed)
    else:
        decorated = CachedFunction(cache._core, function, key, typed)
    functools.update_wrapper(decorated, function)
    parameters = {
        "name": name,
        "key": key,
        "typed": typed,
        "ttl": ttl,
        "max_bytes": max_bytes,
        "max_entries": max_entries,
        "hot_bytes": hot_bytes,
    }
    decorated.cache = cache
    decorated.cache_info = cache.info
    decorated.cache_clear = cache.clear
    decorated.cache_parameters = parameters.copy
    return decorated
