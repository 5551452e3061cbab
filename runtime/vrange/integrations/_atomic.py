"""What frameworks ask of a cache beside a mapping: atomic changes, and a ttl of each entry.

A `VolatileCache` is safe among threads, but reading a value and storing another one are two steps.
Here both are done under a lock of the key. Lookups take no lock. The lock is of this process: where
processes share a cache, changes are atomic among the threads of each. Values are pickled under it,
so the pickling of a value must not wait for another thread that uses the cache; it may use the
cache itself.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from numbers import Number
from typing import Any

from vrange import CacheInfo, VolatileCache

# What a user may set in a framework's configuration; the rest is the framework's.
OPTIONS = ("max_bytes", "max_entries", "hot_bytes", "arena_bytes", "copy")
WITH_SHARED = (*OPTIONS, "shared")

_ABSENT: Any = object()
_LOCKS = 16  # stores of different keys rarely wait for each other
# Begins the tuple in which a number with a ttl is stored: a change must know when it expires.
_NUMBER = "vrange.integrations: a number"

_all: weakref.WeakSet[AtomicCache] = weakref.WeakSet()
_named: dict[tuple[str, tuple[tuple[str, Any], ...]], AtomicCache] = {}
_lock = threading.RLock()  # a signal handler may ask for a cache, too


def named(name: str, options: Mapping[str, Any], accepted: Iterable[str] = OPTIONS) -> AtomicCache:
    """Return the cache of this process with that name and these options; make it if need be."""
    key = (name, tuple(sorted(options.items())))
    with _lock:
        cache = _named.get(key)
        if cache is None:
            cache = _named[key] = AtomicCache(name, options, accepted)
        return cache


class AtomicCache:
    """A cache with atomic changes. A ttl is in seconds: None for ever, and not above 0 at once.

    Parameters
    ----------
    name : str or None
        The label of its metrics.
    options : mapping
        Options of `VolatileCache`. Each caller gets a value of its own, unless `copy` is False.
    accepted : iterable of str
        Which options there may be.

    Attributes
    ----------
    mapping : VolatileCache
        The cache itself. A number is stored as a tuple there.

    Raises
    ------
    TypeError
        For any other option.

    """

    def __init__(
        self, name: str | None, options: Mapping[str, Any], accepted: Iterable[str] = OPTIONS
    ) -> None:
        unknown = sorted(set(options) - set(accepted))
        if unknown:
            raise TypeError(
                f"vrange takes the options {', '.join(accepted)}, not {', '.join(unknown)}"
            )
        self.mapping: VolatileCache[Any, Any] = VolatileCache(
            name=name, **{"copy": True, **options}
        )
        self.forget_locks()
        _all.add(self)

    def forget_locks(self) -> None:
        """Make new locks: in the child of a fork, nobody will release those of other threads."""
        # Reentrant: a signal handler or a finalizer may use the cache within a change.
        self._locks = [threading.RLock() for _ in range(_LOCKS)]

    def locked(self, key: Any) -> AbstractContextManager[Any]:
        """Return the lock under which this key changes."""
        return self._locks[hash(key) % _LOCKS]

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        return _value_of(self.mapping.get(key, default))

    def __contains__(self, key: object) -> bool:
        return key in self.mapping

    def __iter__(self) -> Iterator[Any]:
        return iter(self.mapping)

    def set(self, key: Any, value: Any, ttl: float | None = None) -> bool:
        """Store a value, and return whether it was kept. If not, there is no value any more."""
        with self.locked(key):  # a change that has read the value before must not store after this
            if ttl is not None and ttl <= 0:
                self.mapping.pop(key, None)
                return True
            if _is_number(value):
                value = (_NUMBER, value, None if ttl is None else time.monotonic() + ttl)
            self.mapping.set(key, value, ttl=ttl)
            return key in self.mapping

    def add(self, key: Any, value: Any, ttl: float | None = None) -> bool:
        """Store a value unless there is one, and return whether there was none."""
        with self.locked(key):
            if self.mapping.get(key, _ABSENT) is not _ABSENT:
                return False
            self.set(key, value, ttl)
            return True

    def touch(self, key: Any, ttl: float | None) -> bool:
        """Let a value expire `ttl` seconds from now, and return whether there is one."""
        with self.locked(key):
            value = self.get(key, _ABSENT)
            if value is _ABSENT:
                return False
            self.set(key, value, ttl)
            return True

    def change(
        self, key: Any, changed: Callable[[Any], Any], ttl: float | None, initial: Any = _ABSENT
    ) -> Any:
        """Store changed(value), and return it.

        A number keeps the time at which it expires. Any other value, and `initial`, which is what
        is changed where there is no value, gets `ttl`. KeyError if there is neither.
        """
        with self.locked(key):
            stored = self.mapping.get(key, initial)
            if stored is _ABSENT:
                raise KeyError(key)
            value = changed(_value_of(stored))
            if _is_number_with_deadline(stored):
                deadline = stored[2]
                ttl = None if deadline is None else deadline - time.monotonic()
            self.set(key, value, ttl)
            return value

    def delete(self, key: Any) -> bool:
        """Remove a value, and return whether there was one."""
        with self.locked(key):
            try:
                del self.mapping[key]
            except KeyError:
                return False
            return True

    def clear(self) -> None:
        """Remove all values: a change that has begun ends before, so that it stores nothing."""
        self._clear_under(self._locks)

    def _clear_under(self, locks: Sequence[AbstractContextManager[Any]]) -> None:
        # Nested `with` statements, because an interrupt between two steps of an ExitStack would
        # leave a lock locked.
        if not locks:
            self.mapping.clear()
            return
        with locks[0]:
            self._clear_under(locks[1:])

    def info(self) -> CacheInfo:
        """Return the figures of the cache."""
        return self.mapping.info()


def _is_number(value: object) -> bool:
    # What looks like a stored number is stored as one, so that it comes back as it was.
    return isinstance(value, Number) or _is_number_with_deadline(value)


def _is_number_with_deadline(stored: object) -> bool:
    return type(stored) is tuple and len(stored) == 3 and stored[0] == _NUMBER


def _value_of(stored: Any) -> Any:
    return stored[1] if _is_number_with_deadline(stored) else stored


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for cache in list(_all):
        cache.forget_locks()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
