"""@cached without Linux, on top of the bounded cache."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

from vrange._cache.options import check_decorated, name_of
from vrange._portable.cache import VolatileCache


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
    """Cache a function's results, with the same parameters and attributes as on Linux.

    Examples
    --------
    >>> @cached
    ... def square(n):
    ...     return n * n
    >>> square(12), square(12), square.cache_info().hits
    (144, 144, 1)

    """
    parameters = {
        "name": name,
        "key": key,
        "typed": typed,
        "ttl": ttl,
        "max_bytes": max_bytes,
        "max_entries": max_entries,
        "hot_bytes": hot_bytes,
    }
    if function is None:
        return lambda function: _decorate(function, parameters)
    return _decorate(function, parameters)


def _decorate(function: Any, parameters: dict[str, Any]) -> Any:
    make_key = parameters["key"]
    check_decorated(function, make_key)
    if parameters["name"] is None:
        parameters["name"] = name_of(function)
    options = {k: parameters[k] for k in ("name", "ttl", "max_bytes", "max_entries", "hot_bytes")}
    cache: VolatileCache[Hashable, Any] = VolatileCache(**options)
    typed = parameters["typed"]

    def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        if make_key is not None:
            return make_key(*args, **kwargs)  # type: ignore[no-any-return]
        return functools._make_key(args, kwargs, typed)

    def answer(*args: Any, **kwargs: Any) -> Any:
        return cache.get_or_compute(key_of(args, kwargs), lambda: function(*args, **kwargs))

    async def answer_async(*args: Any, **kwargs: Any) -> Any:
        key = key_of(args, kwargs)
        return await cache.get_or_compute_async(key, lambda: function(*args, **kwargs))

    is_async = inspect.iscoroutinefunction(function)
    decorated: Any = functools.update_wrapper(answer_async if is_async else answer, function)
    decorated.cache = cache
    decorated.cache_info = cache.info
    decorated.cache_clear = cache.clear
    decorated.cache_parameters = parameters.copy
    return decorated
