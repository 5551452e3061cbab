"""dogpile.cache over vrange.

::

    region = make_region().configure("vrange.volatile", arguments={"name": "users"})
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from dogpile.cache.api import NO_VALUE, CacheBackend, CacheMutex

from vrange.integrations._atomic import WITH_SHARED, AtomicCache

__all__ = ["VolatileBackend"]


class VolatileBackend(CacheBackend):
    """The backend "vrange.volatile": a cache of one region.

    Parameters
    ----------
    arguments : dict
        `name`, the label of its metrics; `ttl`, the seconds after which a value is removed, beside
        the region's `expiration_time`; and `max_bytes`, `max_entries`, `hot_bytes`, `arena_bytes`,
        `copy`, `shared`. Callers may change what they get, unless `copy` is False. With `shared`
        True and a name, all workers of a service have one cache; their threads create a value once
        in each.

    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        options = dict(arguments)
        self._ttl = options.pop("ttl", None)
        self._cache = AtomicCache(options.pop("name", None), options, WITH_SHARED)
        self._mutexes = _Mutexes()

    def get_mutex(self, key: str) -> CacheMutex:
        """Return the mutex of a key: one thread of this process creates its value."""
        return self._mutexes.of(key)

    def get(self, key: str) -> Any:
        """Return the value under `key`, or NO_VALUE."""
        return self._cache.get(key, NO_VALUE)

    def get_multi(self, keys: Iterable[str]) -> list[Any]:
        """Return the values under `keys`, with NO_VALUE where there is none."""
        return [self.get(key) for key in keys]

    def set(self, key: str, value: Any) -> None:
        """Store a value."""
        self._cache.set(key, value, self._ttl)

    def set_multi(self, mapping: Mapping[str, Any]) -> None:
        """Store values."""
        for key, value in mapping.items():
            self.set(key, value)

    def delete(self, key: str) -> None:
        """Remove the value under `key`, if there is one."""
        self._cache.delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        """Remove the values under `keys`."""
        for key in keys:
            self.delete(key)


class _Mutex(CacheMutex):
    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, wait: bool = True) -> bool:
        return self._lock.acquire(wait)

    def release(self) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()


class _Mutexes:
    """The mutexes that somebody has; the child of a fork begins with none."""

    def __init__(self) -> None:
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        self._lock = threading.RLock()
        self._by_key: WeakValueDictionary[str, _Mutex] = WeakValueDictionary()

    def of(self, key: str) -> _Mutex:
        with self._lock:
            mutex = self._by_key.get(key)
            if mutex is None:
                mutex = self._by_key[key] = _Mutex()
            return mutex


_all: WeakSet[_Mutexes] = WeakSet()


def _after_fork_in_child() -> None:
    for mutexes in list(_all):
        mutexes.forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
