"""Decorates functions: the part that is the same on all platforms."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from vrange._cache.calls import Calls, MakeKey, refuse_unhashable
from vrange._cache.function import (
    CachedClassMethod,
    CachedFunction,
    CachedFunctionOfObjects,
    CachedStaticMethod,
    NamedArguments,
)
from vrange._cache.ignore import ignoring
from vrange._cache.mapping import CacheMapping
from vrange._cache.options import CachedOptions, check_decorated, name_of
from vrange._cache.parameters import is_coroutine_function
from vrange._cache.shared import CallsOfObjects, SharedCalls
from vrange._cache.shared_name import (
    check_shared_name,
    name_with_function,
    shared_name_of,
    take_shared_name,
)


@dataclass(frozen=True)
class Backend:
    """The functions with which a platform caches calls."""

    module: str  # the module that has this object as BACKEND
    new_cache: Callable[..., Any]
    new_make_key: Callable[[Any, Callable[..., Any], CachedOptions], MakeKey]  # takes the cache
    # Takes the function that computes, unless it is a coroutine function, and a blank or None.
    wrap: Callable[[Calls, Callable[..., Any], Any], Any]
    blank: Callable[[Any, Any], Any]  # takes the type of a decorated function, and its cache
    leave_uncached: Callable[[], object]  # the running computation's result is not cached
    name_bytes_most: int | None = None  # of a cache's name; None: any number

    def __reduce__(self) -> tuple[Any, ...]:
        return _backend_of, (self.module,)

    def calls_of(self, function: Any, options: CachedOptions, cache: Any) -> Calls:
        """Return the calls of a function, in its own cache or in the cache of the options."""
        kind = Calls
        if options.cache is not None:
            cache = options.cache
            kind = SharedCalls if isinstance(cache, CacheMapping) else CallsOfObjects
            if getattr(cache, "_backend", None) is not None:
                raise TypeError(
                    "a cache that processes share can't be given as cache=: write "
                    "cached(shared=True) or cached(shared='name') for each function"
                )
            if getattr(cache, "_below", None) is not None:
                raise TypeError(
                    "a cache with a lower tier can't be given as cache=: write cached(below=...) "
                    "for each function"
                )
        new_make_key = new_make_key_in_python if kind is CallsOfObjects else self.new_make_key
        make_key = new_make_key(cache, function, options)
        if options.ignore:
            drops_first = kind is CallsOfObjects
            make_key = ignoring(make_key, function, options.ignore, drops_first=drops_first)
        return kind(function, cache, make_key, options)

    def wrap_calls(self, calls: Calls, into: Any = None) -> Any:
        """Return the decorated function: `into`, if that is given."""
        calls.backend = self
        function, skip = calls.function, calls.options.skip
        is_async = is_coroutine_function(function)
        if skip is not None:
            function = (_skipping_async if is_async else _skipping)(function, skip, self)
        if isinstance(calls, CallsOfObjects):
            answer = (_answer_async if is_async else _answer)(calls, function)
            return _initialised(CachedFunctionOfObjects, into, calls, answer)
        if is_async:
            return _initialised(CachedFunction, into, calls, _answer_async(calls, function))
        if getattr(calls.cache, "_answers_in_python", False):
            return wrap_in_python(calls, function, into)
        if getattr(calls.cache, "_calls_are_native", False):
            through = getattr(calls.cache, "_compute_through", None)
            function = function if through is None else through(calls, function)
        return self.wrap(calls, function, into)


def _backend_of(module: str) -> Any:
    return importlib.import_module(module).BACKEND


def _initialised(
    kind: type[CachedFunction[Any, Any]], into: Any, calls: Calls, answer: Callable[..., Any]
) -> Any:
    decorated: Any = kind.__new__(kind) if into is None else into
    decorated.__init__(calls, answer)
    return decorated


def decorate_or_wait(function: Any, options: CachedOptions, backend: Backend) -> Any:
    """Return the decorated function, or a decorator if `function` is None or an int."""
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
    cache = None
    if options.cache is None:
        if options.below is not None and options.below_name is None:
            options = options.but(below_name=_name_below(function, options))
        if options.name is None:
            options = options.but(name=name_of(function))
        if options.shared is True:
            options = options.but(shared=shared_name_of(function, backend.name_bytes_most))
        if isinstance(options.shared, str):
            check_shared_name(options.shared, function)
        cache = backend.new_cache(**options.of_cache())
        if isinstance(options.shared, str):
            take_shared_name(options.shared, function, cache)
        cache._values_are_of(function)
        backend = getattr(cache, "_backend", backend)
    return backend.wrap_calls(backend.calls_of(function, options, cache))


def _name_below(function: Any, options: CachedOptions) -> str:
    """Return the name by which a later process finds a function's values in the lower tier."""
    if isinstance(options.shared, str):
        return options.shared
    if options.name is not None:
        # The name of a metric may be that of several functions, whose results differ.
        return name_with_function(options.name, function)
    return shared_name_of(function, None, "name")


def wrap_in_python(calls: Calls, function: Callable[..., Any], into: Any) -> Any:
    """Return the function, decorated without native code."""
    return _initialised(CachedFunction, into, calls, _answer(calls, function))


def blank_in_python(kind: Any, cache: object) -> Any:
    """Return an empty decorated function."""
    return kind.__new__(kind)


def new_make_key_in_python(
    cache: object, function: Callable[..., Any], options: CachedOptions
) -> MakeKey:
    """Return a function that makes the key of a call, without native code."""
    key, typed = options.key, options.typed
    if key is not None:
        return lambda args, kwargs: key(*args, **kwargs)

    def make_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        named = (NamedArguments, *kwargs.items()) if kwargs else ()
        types = tuple(map(type, (*args, *kwargs.values()))) if typed else ()
        return (*args, *named, *types)

    return make_key


def _answer(calls: Calls, function: Callable[..., Any]) -> Callable[..., Any]:
    def answer(*args: Any, **kwargs: Any) -> Any:
        cache, key = calls.cache_for(args), calls.make_key(args, kwargs)
        try:
            tags = calls.tags_of(args, kwargs)
            return cache.get_or_compute(key, lambda: function(*args, **kwargs), **tags)
        except TypeError:
            refuse_unhashable(calls.function, key)
            raise

    return answer


def _answer_async(calls: Calls, function: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(*args: Any, **kwargs: Any) -> Any:
        cache, key = calls.cache_for(args), calls.make_key(args, kwargs)
        try:
            tags = calls.tags_of(args, kwargs)
            return await cache.get_or_compute_async(key, lambda: function(*args, **kwargs), **tags)
        except TypeError:
            refuse_unhashable(calls.function, key)
            raise

    return answer


def _skipping(
    function: Callable[..., Any], skip: Callable[[Any], object], backend: Backend
) -> Callable[..., Any]:
    def compute(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        if skip(value):
            backend.leave_uncached()
        return value

    return compute


def _skipping_async(
    function: Callable[..., Any], skip: Callable[[Any], object], backend: Backend
) -> Callable[..., Any]:
    async def compute(*args: Any, **kwargs: Any) -> Any:
        value = await function(*args, **kwargs)
        if skip(value):
            backend.leave_uncached()
        return value

    return compute
