"""@cached without Linux, on top of the bounded cache."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

from vrange._cache.calls import MakeKey
from vrange._cache.decorate import Backend, decorate_or_wait, wrap_in_python
from vrange._cache.options import CachedOptions
from vrange._portable.cache import VolatileCache


def _new_make_key(cache: object, function: Callable[..., Any], options: CachedOptions) -> MakeKey:
    key, typed = options.key, options.typed

    def make_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        if key is not None:
            return key(*args, **kwargs)
        return functools._make_key(args, kwargs, typed)

    return make_key


_BACKEND = Backend(VolatileCache, _new_make_key, wrap_in_python)


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
    return decorate_or_wait(function, CachedOptions(**options), _BACKEND)
