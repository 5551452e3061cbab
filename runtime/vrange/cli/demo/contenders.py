"""The volatile cache and its usual alternatives, behind one interface."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from vrange._cache.cache import VolatileCache
from vrange.cli.demo.material import Key, Value

__all__ = ["Cache", "Dict", "Lru", "Volatile"]


class Cache(Protocol):
    """The interface that the demo needs of a cache."""

    def get(self, key: Key, compute: Callable[[], Value]) -> Value:
        """Return the value of `key`, and compute it if it is missing."""

    def counts(self) -> tuple[int, int]:
        """Return how many requests were hits, and how many found a purged value."""

    def bytes_by_state(self) -> dict[str, int]:
        """Return the bytes of values by state; "kept" if the cache has no states."""

    def discard(self, key: Key) -> None:
        """Make the kernel reclaim the value of `key`, if it can."""


class Volatile:
    """A VolatileCache with default options."""

    def __init__(self) -> None:
        self.cache: VolatileCache[Key, Value] = VolatileCache(name="demo")

    def get(self, key: Key, compute: Callable[[], Value]) -> Value:  # noqa: D102
        return self.cache.get_or_compute(key, compute)

    def counts(self) -> tuple[int, int]:  # noqa: D102
        info = self.cache.info()
        return info.hits, info.purged

    def bytes_by_state(self) -> dict[str, int]:  # noqa: D102
        info = self.cache.info()
        return {
            "pinned": info.pinned_bytes,
            "idle": info.idle_bytes,
            "offered": info.offered_bytes,
            "purged": info.purged_bytes,
            "hot": info.hot_bytes,
        }

    def discard(self, key: Key) -> None:  # noqa: D102
        self.cache.discard(key)


class Lru:
    """Evicts the least recently used values above `max_bytes`; if None, evicts nothing."""

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._bytes = 0
        self._hits = 0

    def get(self, key: Key, compute: Callable[[], Value]) -> Value:  # noqa: D102
        value = self._values.get(key)
        if value is not None:
            self._hits += 1
            if self._max_bytes is not None:
                self._values.move_to_end(key)
            return value
        value = self._values[key] = compute()
        self._bytes += _size(value)
        while self._max_bytes is not None and self._bytes > self._max_bytes:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= _size(dropped)
        return value

    def counts(self) -> tuple[int, int]:  # noqa: D102
        return self._hits, 0

    def bytes_by_state(self) -> dict[str, int]:  # noqa: D102
        return {"kept": self._bytes}

    def discard(self, key: Key) -> None:  # noqa: D102
        raise TypeError("an ordinary cache has nothing that the kernel could reclaim")


class Dict(Lru):
    """An unbounded dict."""

    def __init__(self) -> None:
        super().__init__(None)


def _size(value: Value) -> int:
    return len(value) if isinstance(value, bytes) else value.nbytes
