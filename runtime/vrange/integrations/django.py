"""Django's cache framework over vrange.

::

    CACHES = {"default": {"BACKEND": "vrange.integrations.django.Cache", "LOCATION": "pages"}}
"""

from __future__ import annotations

import pickle
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from vrange.integrations._atomic import WITH_SHARED, named

__all__ = ["Cache"]

_ABSENT = object()


class Cache(BaseCache):
    """A cache of this process. All its threads share what has the same LOCATION and OPTIONS.

    With `"OPTIONS": {"shared": True}` all workers of a service share it.

    Notes
    -----
    OPTIONS are `max_bytes`, `max_entries` (Django's `MAX_ENTRIES` is taken, too), `hot_bytes`,
    `arena_bytes`, `copy` and `shared`. Values are isolated as in Django's own backends: a caller
    that changes one changes it for itself. With `"copy": False`, arrays are read-only and are not
    copied.
    Unlike Django's own backends it has no default for `MAX_ENTRIES`: the values use spare memory.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = dict(params.get("OPTIONS", {}))
        options.pop("CULL_FREQUENCY", None)  # the least valuable are evicted, one by one
        most = options.pop("MAX_ENTRIES", None)
        if most is not None:
            options.setdefault("max_entries", int(most))
        self._cache = named(location or "django", options, WITH_SHARED)

    def _ttl(self, timeout: Any) -> float | None:
        ttl: float | None = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return ttl

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Return the value under `key`, or `default`."""
        return self._cache.get(self.make_and_validate_key(key, version=version), default)

    def has_key(self, key: str, version: int | None = None) -> bool:
        """Return whether there is a value under `key`."""
        return self.get(key, _ABSENT, version) is not _ABSENT

    def set(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Store a value. Raise what pickling it raises, as Django's own backends do."""
        key = self.make_and_validate_key(key, version=version)
        if not self._cache.set(key, value, self._ttl(timeout)):
            _raise_unless_picklable(value)

    def add(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Store a value unless there is one, and return whether there was none."""
        key = self.make_and_validate_key(key, version=version)
        added = self._cache.add(key, value, self._ttl(timeout))
        if added and key not in self._cache:
            _raise_unless_picklable(value)
        return added

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Set when the value under `key` expires, and return whether there is one."""
        key = self.make_and_validate_key(key, version=version)
        return self._cache.touch(key, self._ttl(timeout))

    def delete(self, key: str, version: int | None = None) -> bool:
        """Remove the value under `key`, and return whether there was one."""
        return self._cache.delete(self.make_and_validate_key(key, version=version))

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> Any:
        """Add to the number under `key`, which expires when it would have expired before."""
        made = self.make_and_validate_key(key, version=version)
        try:
            return self._cache.change(made, lambda value: value + delta, self.default_timeout)
        except KeyError:
            raise ValueError(f"Key '{key}' not found") from None

    def clear(self) -> None:
        """Remove all values of this LOCATION, whatever their prefix and version."""
        self._cache.clear()

    # Nothing here waits for a network, so a coroutine needs no thread to wait in.

    async def aget(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """See `get`."""
        return self.get(key, default, version)

    async def ahas_key(self, key: str, version: int | None = None) -> bool:
        """See `has_key`."""
        return self.has_key(key, version)

    async def aset(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """See `set`."""
        self.set(key, value, timeout, version)

    async def aadd(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """See `add`."""
        return self.add(key, value, timeout, version)

    async def atouch(
        self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """See `touch`."""
        return self.touch(key, timeout, version)

    async def adelete(self, key: str, version: int | None = None) -> bool:
        """See `delete`."""
        return self.delete(key, version)

    async def aincr(self, key: str, delta: int = 1, version: int | None = None) -> Any:
        """See `incr`."""
        return self.incr(key, delta, version)

    async def aclear(self) -> None:
        """See `clear`."""
        self.clear()


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


def _raise_unless_picklable(value: Any) -> None:
    """Raise what pickling raises. The pickle is kept nowhere: there may be no room for it."""
    pickle.Pickler(_Nowhere(), 5, buffer_callback=lambda buffer: None).dump(value)
