"""What caches and @cached take, checked alike wherever they run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

_FOREVER_SECONDS = 3e9  # a century; in nanoseconds it and a clock fit into 64 bits
_TTL_TAKEN = "a positive number of seconds, a timedelta or None"


def seconds_of_ttl(ttl: object) -> float | None:
    """Return the seconds of a `ttl`, or None. Raise TypeError or ValueError for anything else."""
    if ttl is None:
        return None
    if isinstance(ttl, timedelta):
        seconds = ttl.total_seconds()
    elif isinstance(ttl, int | float) and not isinstance(ttl, bool):
        seconds = ttl
    else:
        raise ValueError(f"ttl must be {_TTL_TAKEN}, not {ttl!r}")
    if not seconds > 0:
        raise ValueError(f"ttl must be {_TTL_TAKEN}, not {ttl!r}")
    return seconds


def nanoseconds_of_ttl(ttl: object) -> int:
    """Return the nanoseconds of a `ttl`; 0 if it is None."""
    seconds = seconds_of_ttl(ttl)
    return 0 if seconds is None else max(1, int(min(seconds, _FOREVER_SECONDS) * 1e9))


def check_max_entries(max_entries: object) -> None:
    """Raise TypeError or ValueError for anything but None or a positive int."""
    if max_entries is None:
        return
    if not isinstance(max_entries, int) or isinstance(max_entries, bool):
        raise TypeError(f"max_entries must be an int or None, not {max_entries!r}")
    if max_entries < 1:
        raise ValueError(f"max_entries must be at least 1, but is {max_entries}")


@dataclass(kw_only=True)
class CachedOptions:
    """The parameters of @cached."""

    name: str | None = None
    key: Callable[..., Hashable] | None = None
    typed: bool = False
    ttl: float | timedelta | None = None
    max_bytes: int | str | None = None
    max_entries: int | None = None
    maxsize: int | None = None
    hot_bytes: int | str = "auto"

    def __post_init__(self) -> None:
        """Check what is known already; sizes and names are checked by the cache."""
        if self.key is not None and not callable(self.key):
            raise TypeError(f"key must be callable or None, not {self.key!r}")
        seconds_of_ttl(self.ttl)
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
        """Return those of the cache."""
        names = "name", "ttl", "max_bytes", "max_entries", "hot_bytes"
        return {name: getattr(self, name) for name in names}

    def but(self, **others: Any) -> CachedOptions:
        """Return the same options, except for these."""
        return replace(self, **others)

    def as_dict(self) -> dict[str, Any]:
        """Return all of them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def check_decorated(function: object) -> None:
    """Raise TypeError for anything whose results can't be cached."""
    if not callable(function):
        raise TypeError(f"cached decorates a callable, not {function!r}")
    kind = ""
    if inspect.isgeneratorfunction(function):
        kind = "a generator function"
    elif inspect.isasyncgenfunction(function):
        kind = "an asynchronous generator function"
    if kind:
        raise TypeError(
            f"{function!r} is {kind}: the generator that it returns yields its items once, so it "
            "can't be cached. Return a list or a tuple"
        )


def name_of(function: Any) -> str:
    """Return what a decorated function's cache is called: module and name, cut to 63 bytes."""
    module = getattr(function, "__module__", "") or ""
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    # The end tells more than the beginning.
    return f"{module}.{qualname}".encode()[-63:].decode(errors="ignore")
