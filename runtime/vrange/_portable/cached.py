"""@cached without Linux, on top of the bounded cache."""

from __future__ import annotations

from typing import Any

from vrange._cache.decorate import (
    Backend,
    blank_in_python,
    decorate_or_wait,
    new_make_key_in_python,
    wrap_in_python,
)
from vrange._cache.options import CachedOptions
from vrange._portable.cache import VolatileCache
from vrange._portable.singleflight import led_here


def _leave_uncached() -> None:
    flight = led_here.get()
    if flight is not None:
        flight.skipped = True


BACKEND = Backend(
    __name__,
    VolatileCache,
    new_make_key_in_python,
    wrap_in_python,
    blank_in_python,
    _leave_uncached,
)


def cached(function: Any = None, /, **options: Any) -> Any:
    """Cache a function's results, with the same parameters and attributes as on Linux.

    Examples
    --------
    >>> @cached
    ... def square(n):
    ...     return n * n
    >>> square(12), square(12), square.cache_info().hits
    (144, 144, 1)

    """
    return decorate_or_wait(function, CachedOptions(**options), BACKEND)
