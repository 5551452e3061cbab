"""Decorated functions whose results the processes of a service share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vrange._cache.cache import VolatileCache
from vrange._cache.cached import blank_natively, wrap_natively
from vrange._cache.calls import Calls, refuse_unhashable
from vrange._cache.decorate import Backend, new_make_key_in_python
from vrange._service.flights import led_here

__all__ = ["BACKEND", "leave_uncached"]


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


def leave_uncached() -> None:
    """Let the result of the computation that runs here not be stored."""
    led = led_here.get()
    if led:
        led[-1].skipped = True


BACKEND = Backend(
    __name__, VolatileCache, new_make_key_in_python, _wrap, blank_natively, leave_uncached
)
