"""Calls of several functions in one cache, and of methods in the caches of their objects."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

from vrange._cache.calls import Calls, MakeKey
from vrange._cache.mapping import CacheMapping
from vrange._cache.options import CachedOptions, name_of


class _Owner:
    """The first part of a function's keys in a cache that other functions use too.

    It is equal only to itself. `cache_clear()` gives the function a new one, so a computation that
    began earlier stores its result under a key that is never looked up.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"


class SharedCalls(Calls):
    """Calls in an existing cache."""

    def __init__(
        self,
        function: Callable[..., Any],
        cache: Any,
        make_key: MakeKey,
        options: CachedOptions,
    ) -> None:
        super().__init__(function, cache, make_key, options)
        self._owner = _Owner(name_of(function))

    def make_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call in the cache."""
        return self._owner, self._make_key(args, kwargs)

    def cache_clear(self, *args: Any) -> None:
        """Remove the results of this function."""
        before, self._owner = self._owner, _Owner(name_of(self.function))
        _remove(self.cache, before)


class CallsOfObjects(Calls):
    """Calls of a method in the cache of its object, without the object in the key."""

    def __init__(
        self,
        function: Callable[..., Any],
        cache: Callable[[Any], Any],
        make_key: MakeKey,
        options: CachedOptions,
    ) -> None:
        super().__init__(function, None, make_key, options)
        self._find_cache = cache
        self._owner = _Owner(name_of(function))

    def make_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call in the cache of its object."""
        return self._owner, self._make_key(args[1:], kwargs)

    def cache_for(self, args: tuple[Any, ...]) -> Any:
        """Return the cache of the object that is the first argument."""
        if not args:
            name = getattr(self.function, "__qualname__", repr(self.function))
            raise TypeError(f"{name} caches by its first argument, and there is none")
        cache = self._find_cache(args[0])
        if not isinstance(cache, CacheMapping):
            raise TypeError(f"cache= must return a VolatileCache, not {cache!r}")
        return cache

    def cache_info(self, *args: Any) -> Any:
        """Return the figures of the cache of an object."""
        return self.cache_for(args).info()

    def cache_clear(self, *args: Any) -> None:
        """Remove the results of this method for an object."""
        _remove(self.cache_for(args), self._owner)


def _remove(cache: CacheMapping[Any, Any], owner: _Owner) -> None:
    for key in cache:
        if type(key) is tuple and key and key[0] is owner:
            with suppress(KeyError):  # purged since
                del cache[key]
