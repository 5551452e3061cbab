"""Flask-Caching over vrange.

::

    app.config["CACHE_TYPE"] = "vrange.integrations.flask.VolatileCache"
    app.config["CACHE_OPTIONS"] = {"name": "pages", "max_bytes": "1GiB"}  # if you like
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Flask
from flask_caching.backends.base import BaseCache

from vrange.integrations._atomic import WITH_SHARED, AtomicCache

__all__ = ["VolatileCache"]

_ABSENT = object()


class VolatileCache(BaseCache):
    """A cache of one `flask_caching.Cache` and app. A timeout of 0 means that a value stays.

    Parameters
    ----------
    default_timeout : int
        CACHE_DEFAULT_TIMEOUT.
    ignore_delete_many_errors : bool
        Whether `delete_many` goes on where there is no value.
    name : str, optional
        The label of its metrics.
    **options : object
        `max_bytes`, `max_entries`, `hot_bytes`, `arena_bytes`, `copy` and `shared`. With
        `copy=False` arrays are read-only and are not copied. With `shared=True` and a name, all
        workers of a service have one cache.

    """

    def __init__(
        self,
        default_timeout: int = 300,
        ignore_delete_many_errors: bool = False,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors)
        self._cache = AtomicCache(name, options, WITH_SHARED)

    @classmethod
    def factory(
        cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> VolatileCache:
        """Return the cache that the configuration of an app describes."""
        return cls(*args, **kwargs)

    def _ttl(self, timeout: int | timedelta | None) -> float | None:
        given = self.default_timeout if timeout is None else timeout
        seconds = given.total_seconds() if isinstance(given, timedelta) else given
        return None if seconds == 0 else seconds

    def get(self, key: str) -> Any:
        """Return the value under `key`, or None."""
        return self._cache.get(key)

    def has(self, key: str) -> bool:
        """Return whether there is a value under `key`."""
        return self._cache.get(key, _ABSENT) is not _ABSENT

    def set(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        """Store a value, and return whether it was kept."""
        return self._cache.set(key, value, self._ttl(timeout))

    def add(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        """Store a value unless there is one, and return whether there was none."""
        return self._cache.add(key, value, self._ttl(timeout))

    def delete(self, key: str) -> bool:
        """Remove the value under `key`, and return whether there was one."""
        return self._cache.delete(key)

    def inc(self, key: str, delta: int = 1) -> Any:
        """Add to the number under `key`, 0 if there is none, and return the sum."""
        return self._cache.change(
            key, lambda value: (value or 0) + delta, self._ttl(None), initial=0
        )

    def dec(self, key: str, delta: int = 1) -> Any:
        """Subtract from the number under `key`, 0 if there is none, and return the difference."""
        return self.inc(key, -delta)

    def clear(self) -> bool:
        """Remove all values."""
        self._cache.clear()
        return True
