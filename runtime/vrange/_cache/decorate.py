"""What decorating a function comes to, wherever it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vrange._cache.calls import Calls, MakeKey, refuse_unhashable
from vrange._cache.function import CachedClassMethod, CachedFunction, CachedStaticMethod
from vrange._cache.options import CachedOptions, check_decorated, name_of


@dataclass(frozen=True)
class Backend:
    """How a platform caches calls."""

    new_cache: Callable[..., Any]
    new_make_key: Callable[[Any, Callable[..., Any], CachedOptions], MakeKey]
    wrap: Callable[[Calls, CachedOptions], Any]  # of a function that is not a coroutine function


def decorate_or_wait(function: Any, options: CachedOptions, backend: Backend) -> Any:
    """Return the function, decorated, or a decorator if it is None or a number of entries."""
    if isinstance(function, int) and not isinstance(function, bool):
        function, options = None, options.but(maxsize=function)
    if function is None:
        return lambda function: decorate(function, options, backend)
    return decorate(function, options, backend)


def decorate(function: Any, options: CachedOptions, backend: Backend) -> Any:
    """Return the function, or class or static method, with its results cached."""
    if isinstance(function, classmethod):
        return CachedClassMethod(decorate(function.__func__, options, backend))
    if isinstance(function, staticmethod):
        return CachedStaticMethod(decorate(function.__func__, options, backend))
    check_decorated(function)
    if options.name is None:
        options = options.but(name=name_of(function))
    cache = backend.new_cache(**options.of_cache())
    make_key = backend.new_make_key(cache, function, options)
    calls = Calls(function, cache, make_key, options.as_dict())
    if inspect.iscoroutinefunction(function):
        return CachedFunction(calls, _answer_async(calls))
    return backend.wrap(calls, options)


def wrap_in_python(calls: Calls, options: CachedOptions) -> Any:
    """Return the function, decorated without native code."""
    function, cache, make_key = calls.function, calls.cache, calls.make_key

    def answer(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        try:
            return cache.get_or_compute(key, lambda: function(*args, **kwargs))
        except TypeError:
            refuse_unhashable(function, key)
            raise

    return CachedFunction(calls, answer)


def _answer_async(calls: Calls) -> Callable[..., Any]:
    function, cache, make_key = calls.function, calls.cache, calls.make_key

    async def answer(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        try:
            return await cache.get_or_compute_async(key, lambda: function(*args, **kwargs))
        except TypeError:
            refuse_unhashable(function, key)
            raise

    return answer
