"""The caches that are compared, each as a decorator of a function of one key.

Bounds are numbers of entries, since most of these caches take that; None means no bound.
"""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Callable
from typing import Any

Function = Callable[[Any], Any]


def plain_dict(function: Function, entries: int | None) -> Function:
    """Cache without a library, in a dict: the floor of a hit. It has no bound."""
    assert entries is None
    values: dict[Any, Any] = {}

    def call(key: Any) -> Any:
        try:
            return values[key]
        except KeyError:
            value = values[key] = function(key)
            return value

    return call


def lru_cache(function: Function, entries: int | None) -> Function:
    return functools.lru_cache(maxsize=entries)(function)


def cachetools_lru(function: Function, entries: int | None) -> Function:
    import cachetools

    call: Function = cachetools.cached(cachetools.LRUCache(entries or 1 << 30))(function)
    return call


def cachetools_locked(function: Function, entries: int | None) -> Function:
    import cachetools

    values: Any = cachetools.LRUCache(entries or 1 << 30)
    call: Function = cachetools.cached(values, lock=threading.Lock())(function)
    return call


def cachebox_lru(function: Function, entries: int | None) -> Function:
    import cachebox

    call: Function = cachebox.cached(cachebox.LRUCache(entries or 0))(function)
    return call


def diskcache_memoize(function: Function, entries: int | None) -> Function:
    """Cache on disk, bounded by diskcache itself at 1 GB. Hits return copies of the values."""
    import diskcache

    assert entries is None
    directory = tempfile.TemporaryDirectory(prefix="diskcache-")
    memoized = diskcache.Cache(directory.name).memoize()(function)
    memoized.directory = directory  # removed with the function
    call: Function = memoized
    return call


def vrange_cached(function: Function, entries: int | None) -> Function:
    import vrange

    assert entries is None
    return vrange.cached(function)


PEERS: dict[str, Callable[[Function, int | None], Function]] = {
    "vrange": vrange_cached,
    "dict": plain_dict,
    "lru_cache": lru_cache,
    "cachetools": cachetools_lru,
    "cachetools, locked": cachetools_locked,
    "cachebox": cachebox_lru,
    "diskcache": diskcache_memoize,
}

# Bounds for a benchmark in which nothing is to be evicted: what must have one gets an ample one.
ENTRIES = dict.fromkeys(("lru_cache", "cachetools", "cachetools, locked", "cachebox"), 2000000)
