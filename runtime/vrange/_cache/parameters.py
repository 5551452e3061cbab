"""The parameters of a cache and their checks, for all platforms."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from numbers import Real
from typing import Any, Literal

from vrange.sizes import parse_bytes

_FOREVER_SECONDS = 3e9  # a century; in nanoseconds, added to a clock, it fits into 64 bits
_TTL_TAKEN = "a positive number of seconds, a timedelta or None"

# Why the cache removed an entry, for `on_evict` (native/python/cache/listener.h).
EvictionCause = Literal["evicted", "expired", "purged", "refused"]
Listener = Callable[[Any, EvictionCause], object]


def seconds_of_ttl(ttl: object, name: str = "ttl") -> float | None:
    """Return the seconds of a `ttl`, or None. Raise TypeError or ValueError for anything else."""
    if ttl is None:
        return None
    if isinstance(ttl, timedelta):
        seconds = ttl.total_seconds()
    elif isinstance(ttl, Real) and not isinstance(ttl, bool):
        seconds = _seconds(ttl)
    else:
        raise ValueError(f"{name} must be {_TTL_TAKEN}, not {ttl!r}")
    if not seconds > 0:
        raise ValueError(f"{name} must be {_TTL_TAKEN}, not {ttl!r}")
    return seconds


def seconds_of_timeout(timeout: object) -> float | None:
    """Return the seconds of a `timeout`, or None. Raise ValueError for anything else."""
    if timeout is None:
        return None
    if isinstance(timeout, timedelta):
        timeout = timeout.total_seconds()
    seconds = _seconds(timeout) if isinstance(timeout, Real) else -1
    if isinstance(timeout, bool) or not seconds >= 0:
        raise ValueError(
            f"timeout must be a number of seconds, a timedelta or None, not {timeout!r}"
        )
    return min(seconds, threading.TIMEOUT_MAX)


def _seconds(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def nanoseconds_of_ttl(ttl: object) -> int:
    """Return the nanoseconds of a `ttl`; 0 if it is None."""
    seconds = seconds_of_ttl(ttl)
    return 0 if seconds is None else max(1, int(min(seconds, _FOREVER_SECONDS) * 1e9))


def check_max_entries(max_entries: object) -> None:
    """Raise TypeError or ValueError for anything but None or an int of at least 0."""
    if max_entries is None:
        return
    if not isinstance(max_entries, int) or isinstance(max_entries, bool):
        raise TypeError(f"max_entries must be an int or None, not {max_entries!r}")
    if max_entries < 0:
        raise ValueError(f"max_entries must be at least 0, but is {max_entries}")
    if max_entries > sys.maxsize:
        raise ValueError(f"max_entries must be at most {sys.maxsize}, but is {max_entries}")


def is_coroutine_function(function: object) -> bool:
    """Return whether calls return coroutines; `function` may also be an object with `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call_of(function))


def call_of(function: object) -> object:
    """Return the function that a call of an object runs; None for a class."""
    if isinstance(function, type):
        return None
    return getattr(type(function), "__call__", None)  # noqa: B004 - it is not only tested


def check_times(ttl: object, stale: object) -> None:
    """Raise TypeError or ValueError for seconds that are none, and for `stale` without a `ttl`."""
    lives = seconds_of_ttl(ttl)
    if seconds_of_ttl(stale, "stale") is not None and lives is None:
        raise ValueError(
            f"stale={stale!r} says how long after its ttl a value is still answered: give a ttl"
        )


def check_on_evict(on_evict: object) -> None:
    """Raise TypeError for anything but None or a callable that returns no coroutine."""
    if on_evict is not None and not callable(on_evict):
        raise TypeError(f"on_evict must be callable or None, not {on_evict!r}")
    if is_coroutine_function(on_evict):
        raise TypeError(
            f"on_evict must be an ordinary function, not a coroutine function: {on_evict!r} would "
            "never be awaited. Give a function that starts a task"
        )


@dataclass(frozen=True, kw_only=True)
class CacheParameters:
    """The checked parameters of a cache, without its name: times in seconds, sizes in bytes."""

    ttl: float | None
    max_bytes: int | None
    max_entries: int | None
    hot_bytes: int | Literal["auto"]
    arena_bytes: int | None
    timeout: float | None
    copy: bool
    on_evict: Listener | None
    stale: float | None


def checked_parameters(
    *,
    ttl: object,
    max_bytes: int | str | None,
    max_entries: int | None,
    hot_bytes: int | str,
    arena_bytes: int | str | None,
    timeout: object,
    copy: bool,
    on_evict: Listener | None,
    stale: object,
) -> CacheParameters:
    """Return the parameters of a cache. Raise TypeError or ValueError for a bad one."""
    check_max_entries(max_entries)
    check_on_evict(on_evict)
    check_times(ttl, stale)
    if arena_bytes is not None:
        arena_bytes = parse_bytes(arena_bytes, "arena_bytes")
        if arena_bytes == 0:
            raise ValueError("arena_bytes must be at least 1, but is 0")
    return CacheParameters(
        ttl=seconds_of_ttl(ttl),
        max_bytes=None if max_bytes is None else parse_bytes(max_bytes, "max_bytes"),
        max_entries=max_entries,
        hot_bytes="auto" if hot_bytes == "auto" else parse_bytes(hot_bytes, "hot_bytes"),
        arena_bytes=arena_bytes,
        timeout=seconds_of_timeout(timeout),
        copy=copy,
        on_evict=on_evict,
        stale=seconds_of_ttl(stale, "stale"),
    )
