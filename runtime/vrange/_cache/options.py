"""The parameters of @cached and their checks, for all platforms."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

from vrange._cache.mapping import CacheMapping
from vrange._cache.parameters import (
    Listener,
    call_of,
    check_max_entries,
    check_on_evict,
    check_times,
    seconds_of_timeout,
)


def names_of(given: object, rule: str = "ignore must be names of parameters") -> tuple[str, ...]:
    """Return the names that were given: one, or several. The rule is for the message."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Iterable):
        raise TypeError(f"{rule}, not {given!r}")
    names = tuple(dict.fromkeys(names))
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{rule}, not {given!r}")
    return names


_OF_CACHE = (
    "name",
    "ttl",
    "stale",
    "max_bytes",
    "max_entries",
    "maxsize",
    "hot_bytes",
    "timeout",
    "copy",
    "on_evict",
    "shared",
    "below",
    "below_name",
)


@dataclass(kw_only=True)
class CachedOptions:
    """The parameters of @cached."""

    name: str | None = None
    key: Callable[..., Hashable] | None = None
    typed: bool = False
    ttl: float | timedelta | None = None
    stale: float | timedelta | None = None
    max_bytes: int | str | None = None
    max_entries: int | None = None
    maxsize: int | None = None
    hot_bytes: int | str = "auto"
    ignore: Any = ()  # names of parameters; a tuple once it was checked
    cache: Any = None
    skip: Callable[[Any], object] | None = None
    timeout: float | timedelta | None = None
    copy: bool = False
    on_evict: Listener | None = None
    shared: bool | str = False  # a name, once the function is known
    below: Any = None
    below_name: str | None = None  # set once the function is known
    tags: Any = None  # names, or a function of a call's arguments that returns them

    def __post_init__(self) -> None:
        """Check the parameters, except sizes and names, which the cache checks."""
        for name in "key", "skip":
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable or None, not {function!r}")
        self.ignore = names_of(self.ignore)
        if self.tags is not None and not callable(self.tags):
            self.tags = names_of(self.tags, "tags must be a str, several, or a function")
        if self.key is not None and self.ignore:
            raise TypeError("ignore belongs to the default key: leave it out, or do without key=")
        if self.cache is not None:
            self._check_with_cache()
        check_times(self.ttl, self.stale)
        seconds_of_timeout(self.timeout)
        check_on_evict(self.on_evict)
        if not isinstance(self.shared, bool | str):
            raise TypeError(f"shared must be True, False or a name, not {self.shared!r}")
        if isinstance(self.maxsize, int) and self.maxsize < 0:
            self.maxsize = 0  # as for lru_cache
        check_max_entries(self.max_entries)
        check_max_entries(self.maxsize)
        if self.max_entries is None:
            self.max_entries = self.maxsize
        elif self.maxsize not in (None, self.max_entries):
            raise TypeError(
                f"maxsize is another name of max_entries, but they are {self.maxsize!r} and "
                f"{self.max_entries!r}"
            )
        self.maxsize = self.max_entries

    def of_cache(self) -> dict[str, Any]:
        """Return the parameters of the cache."""
        given = {name: getattr(self, name) for name in _OF_CACHE if name != "maxsize"}
        if self.below is None:
            del given["below"], given["below_name"]
        if self.tags is not None:
            given["tags"] = True
        return given

    def _check_with_cache(self) -> None:
        if not isinstance(self.cache, CacheMapping) and not callable(self.cache):
            raise TypeError(
                "cache must be a VolatileCache or a function of an object that returns one, not "
                f"{self.cache!r}"
            )
        for field in fields(self):
            if field.name in _OF_CACHE and getattr(self, field.name) != field.default:
                raise TypeError(f"{field.name} belongs to the cache, which exists: set it there")

    def but(self, **others: Any) -> CachedOptions:
        """Return the same options with these changes."""
        return replace(self, **others)

    def as_dict(self) -> dict[str, Any]:
        """Return all parameters."""
        names = (field.name for field in fields(self) if field.name != "below_name")
        return {name: getattr(self, name) for name in names}


def check_decorated(function: object) -> None:
    """Raise TypeError for an object that @cached can't decorate."""
    if not callable(function):
        raise TypeError(f"cached decorates a callable, not {function!r}")
    kind = ""
    functions = function, call_of(function)
    if any(map(inspect.isgeneratorfunction, functions)):
        kind = "a generator function"
    elif any(map(inspect.isasyncgenfunction, functions)):
        kind = "an asynchronous generator function"
    if kind:
        raise TypeError(
            f"{function!r} is {kind}: the generator that it returns yields its items once, so it "
            "can't be cached. Return a list or a tuple"
        )


def name_of(function: Any) -> str:
    """Return the name of a decorated function's cache: module and name, cut to 63 bytes."""
    module = getattr(function, "__module__", "") or ""
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    # The end identifies a function better than the beginning.
    return f"{module}.{qualname}".encode()[-63:].decode(errors="ignore")
