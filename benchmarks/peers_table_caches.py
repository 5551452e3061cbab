"""The caches of the table in docs/caches.md: how each decorates a function, and its options.

Each is used as its documentation begins, without a bound on entries. Where a library does more on
request, the option is a decorator of its own, with the label that the table shows.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Function = Callable[..., Any]
TTL_SECONDS = 0.2
UNBOUNDED = 1 << 30  # entries, where a cache must have a number


@dataclass
class Decorated:
    """A cached function, and what forgets all its results."""

    call: Function
    clear: Callable[[], object]


Decorator = Callable[[Function, str], Decorated]  # the str: a directory, for caches on disk


@dataclass
class Cache:
    """One column of the table."""

    decorate: Decorator
    options: dict[str, tuple[str, Decorator]] = field(default_factory=dict)  # by property


def vrange_cached(function: Function, directory: str, **options: Any) -> Decorated:
    import vrange

    call: Any = vrange.cached(**options)(function)
    return Decorated(call, call.cache_clear)


def lru_cache(function: Function, directory: str) -> Decorated:
    call = functools.lru_cache(maxsize=None)(function)
    return Decorated(call, call.cache_clear)


def _cachetools(function: Function, values: Any, **options: Any) -> Decorated:
    import cachetools

    decorator: Any = cachetools.cached(values, **options)
    call = decorator(function)
    return Decorated(call, call.cache_clear)


def cachetools_lru(function: Function, directory: str) -> Decorated:
    import cachetools

    return _cachetools(function, cachetools.LRUCache(UNBOUNDED), lock=threading.Lock())


def cachetools_condition(function: Function, directory: str) -> Decorated:
    import cachetools

    values: Any = cachetools.LRUCache(UNBOUNDED)
    return _cachetools(function, values, condition=threading.Condition())


def cachetools_ttl(function: Function, directory: str) -> Decorated:
    import cachetools

    values: Any = cachetools.TTLCache(UNBOUNDED, TTL_SECONDS)
    return _cachetools(function, values, lock=threading.Lock())


def cachebox_lru(function: Function, directory: str, **options: Any) -> Decorated:
    import cachebox

    values: Any = cachebox.LRUCache(0)
    call = cachebox.cached(values, **options)(function)
    return Decorated(call, values.clear)


def cachebox_deep(function: Function, directory: str) -> Decorated:
    import cachebox

    return cachebox_lru(function, directory, postprocess=cachebox.postprocess_deepcopy)


def cachebox_ttl(function: Function, directory: str) -> Decorated:
    import cachebox

    values: Any = cachebox.TTLCache(0, TTL_SECONDS)
    return Decorated(cachebox.cached(values)(function), values.clear)


def diskcache_memoize(function: Function, directory: str, **options: Any) -> Decorated:
    import diskcache

    values: Any = diskcache.Cache(directory)
    return Decorated(values.memoize(name="function", **options)(function), values.clear)


def diskcache_barrier(function: Function, directory: str) -> Decorated:
    import diskcache

    values: Any = diskcache.Cache(directory)
    memoized = values.memoize(name="function")(function)
    return Decorated(diskcache.barrier(values, diskcache.Lock)(memoized), values.clear)


def joblib_memory(
    function: Function, directory: str, mmap_mode: str | None = None, **options: Any
) -> Decorated:
    import joblib

    memory = joblib.Memory(directory, verbose=0, mmap_mode=mmap_mode)
    call = memory.cache(function, **options)
    return Decorated(call, lambda: call.clear(warn=False))


def joblib_expires(function: Function, directory: str) -> Decorated:
    import joblib

    expires = joblib.expires_after(seconds=TTL_SECONDS)
    return joblib_memory(function, directory, cache_validation_callback=expires)


CACHES: dict[str, Cache] = {
    "vrange": Cache(
        vrange_cached,
        {
            "mutation": ("copy=True", functools.partial(vrange_cached, copy=True)),
            "ttl": ("ttl=", functools.partial(vrange_cached, ttl=TTL_SECONDS)),
        },
    ),
    "functools.lru_cache": Cache(lru_cache),
    "cachetools": Cache(
        cachetools_lru,
        {
            "stampede": ("condition=", cachetools_condition),
            "invalidation": ("condition=", cachetools_condition),
            "ttl": ("TTLCache", cachetools_ttl),
        },
    ),
    "cachebox": Cache(
        cachebox_lru,
        {
            "mutation": ("postprocess_deepcopy", cachebox_deep),
            "ttl": ("TTLCache", cachebox_ttl),
        },
    ),
    "diskcache": Cache(
        diskcache_memoize,
        {
            "stampede": ("barrier", diskcache_barrier),
            "ttl": ("expire=", functools.partial(diskcache_memoize, expire=TTL_SECONDS)),
        },
    ),
    "joblib.Memory": Cache(
        joblib_memory,
        {
            "array": ("mmap_mode", functools.partial(joblib_memory, mmap_mode="r")),
            "ttl": ("expires_after", joblib_expires),
        },
    ),
}
