"""Decorated functions whose results the processes of a service share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from vrange._cache.cache import VolatileCache
from vrange._cache.calls import MakeKey
from vrange._cache.decorate import Backend, blank_in_python, wrap_in_python
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


def _leave_uncached() -> None:
    led = led_here.get()
    if led:
        led[-1].skipped = True


BACKEND = Backend(
    __name__, VolatileCache, _new_make_key, wrap_in_python, blank_in_python, _leave_uncached
)
