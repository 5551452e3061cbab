"""Decorated functions whose results the processes of a service share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from vrange._cache.cache import VolatileCache
from vrange._cache.cached import blank_natively, wrap_natively
from vrange._cache.calls import Calls, MakeKey, refuse_unhashable
from vrange._cache.decorate import Backend
from vrange._cache.options import CachedOptions
from vrange._service.flights import led_here

__all__ = ["BACKEND"]


class _Named:
    """Separates positional from keyword arguments in a key. Its name stands for it."""


def _new_make_key(cache: object, function: Callable[..., Any], options: CachedOptions) -> MakeKey:
    """Return a function that makes the key of a call, of parts that other processes know."""
    key, typed = options.key, options.typed
    if key is not None:
        return lambda args, kwargs: key(*args, **kwargs)

    def make_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        named = (_Named, *kwargs.items()) if kwargs else ()
        types = tuple(map(type, (*args, *kwargs.values()))) if typed else ()
        return (*args, *named, *types)

    return make_key


def _wrap(calls: Calls, function: Callable[..., Any], into: Any) -> Any:
    cache = calls.cache

    def answer(key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return cache.get_or_compute(key, lambda: function(*args, **kwargs))
        except TypeError:
            refuse_unhashable(calls.function, key)
            raise

    decorated = wrap_natively(calls, function, into)
    decorated.share(cache.reads, calls.make_key, answer)
    return decorated


def _leave_uncached() -> None:
    led = led_here.get()
    if led:
        led[-1].skipped = True


BACKEND = Backend(__name__, VolatileCache, _new_make_key, _wrap, blank_natively, _leave_uncached)
