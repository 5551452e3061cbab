"""aiocache over vrange.

::

    cache = vrange.integrations.aiocache.VolatileCache(namespace="users", ttl=60)

    @aiocache.cached(cache=vrange.integrations.aiocache.VolatileCache, ttl=60)
    async def user(number): ...
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

from vrange.integrations._atomic import WITH_SHARED, AtomicCache

__all__ = ["VolatileCache"]

_ABSENT = object()


class VolatileCache(BaseCache):
    """A cache in this process, as `aiocache.SimpleMemoryCache`, whose values the kernel may take.

    Parameters
    ----------
    serializer : aiocache.serializers.BaseSerializer, optional
        The default leaves values to vrange, which keeps a copy of each.
    name : str, optional
        The label of its metrics.
    options : dict, optional
        `max_bytes`, `max_entries`, `hot_bytes`, `arena_bytes`, `copy`, `shared`. Callers may change
        what they get, unless `copy` is False. With `shared` True and a name, all workers of a
        service have one cache.
    **kwargs : object
        Those of `aiocache.base.BaseCache`: namespace, ttl, timeout, plugins, key_builder.

    """

    NAME = "vrange"

    def __init__(
        self,
        serializer: Any = None,
        name: str | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(serializer=serializer or NullSerializer(), **kwargs)
        self._cache = AtomicCache(name, options or {}, WITH_SHARED)

    @classmethod
    def parse_uri_path(cls, path: str) -> dict[str, Any]:
        """Return the arguments in the path of an address: there are none."""
        return {}

    async def _get(self, key: Any, encoding: str = "utf-8", _conn: Any = None) -> Any:
        return self._cache.get(key)

    async def _gets(self, key: Any, encoding: str = "utf-8", _conn: Any = None) -> Any:
        return self._cache.get(key)

    async def _multi_get(
        self, keys: Iterable[Any], encoding: str = "utf-8", _conn: Any = None
    ) -> list[Any]:
        return [self._cache.get(key) for key in keys]

    async def _set(
        self, key: Any, value: Any, ttl: Any = None, _cas_token: Any = None, _conn: Any = None
    ) -> Any:
        with self._cache.locked(key):
            if _cas_token is not None and _cas_token != self._cache.get(key):
                return 0
            self._cache.set(key, value, ttl or None)
            return True

    async def _multi_set(self, pairs: Iterable[Any], ttl: Any = None, _conn: Any = None) -> bool:
        for key, value in pairs:
            self._cache.set(key, value, ttl or None)
        return True

    async def _add(self, key: Any, value: Any, ttl: Any = None, _conn: Any = None) -> bool:
        if not self._cache.add(key, value, ttl or None):
            raise ValueError(f"Key {key} already exists, use .set to update the value")
        return True

    async def _exists(self, key: Any, _conn: Any = None) -> bool:
        return self._cache.get(key, _ABSENT) is not _ABSENT

    async def _increment(self, key: Any, delta: int, _conn: Any = None) -> int:
        def increased(value: Any) -> int:
            try:
                return int(value) + delta
            except ValueError:
                raise TypeError("Value is not an integer") from None

        total: int = self._cache.change(key, increased, None, initial=0)
        return total

    async def _expire(self, key: Any, ttl: Any, _conn: Any = None) -> bool:
        return self._cache.touch(key, ttl or None)

    async def _delete(self, key: Any, _conn: Any = None) -> int:
        return int(self._cache.delete(key))

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        if not namespace:
            self._cache.clear()
            return True
        for key in list(self._cache):
            if str(key).startswith(namespace):
                self._cache.delete(key)
        return True

    async def _raw(
        self, command: str, *args: Any, encoding: str = "utf-8", _conn: Any = None, **kwargs: Any
    ) -> Any:
        return getattr(self._cache.mapping, command)(*args, **kwargs)

    async def _redlock_release(self, key: Any, value: Any) -> int:
        with self._cache.locked(key):
            if self._cache.get(key) != value:
                return 0
            return int(self._cache.delete(key))
