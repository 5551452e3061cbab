"""A zarr 3 store whose chunks the kernel may take: the cache of a slower store.

::

    store = CacheStore(remote, cache_store=vrange.integrations.zarr.VolatileStore("chunks"))
    array = zarr.open_array(store)
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any
from weakref import WeakValueDictionary

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from vrange.integrations._atomic import AtomicCache

__all__ = ["VolatileStore"]

# Unpickled in this process, a store has the values of the one that was pickled.
_by_token: WeakValueDictionary[str, AtomicCache] = WeakValueDictionary()


class VolatileStore(Store):
    """A store in this process, whose values may be gone at any time.

    Parameters
    ----------
    name : str, optional
        The label of its metrics.
    read_only : bool
        Whether writing is refused.
    **options : object
        `max_bytes`, `max_entries`, `hot_bytes`, `arena_bytes`.

    Notes
    -----
    Use it as the `cache_store` of `zarr.experimental.cache_store.CacheStore`, which reads from the
    other store what is gone. By itself it is no place for data. Chunks are read without a copy. A
    store that is unpickled in another process is empty there.
    """

    supports_writes: bool = True
    supports_deletes: bool = True
    supports_listing: bool = True

    def __init__(self, name: str | None = None, *, read_only: bool = False, **options: Any) -> None:
        super().__init__(read_only=read_only)
        self._made: tuple[str, str | None, dict[str, Any]] = (uuid.uuid4().hex, name, options)
        self._cache = _by_token[self._made[0]] = AtomicCache(name, {"copy": False, **options})

    def with_read_only(self, read_only: bool = False) -> VolatileStore:
        """Return a store with the same values that may be written, or not."""
        store: VolatileStore = type(self).__new__(type(self))
        store.__setstate__({**self.__getstate__(), "read_only": read_only, "open": False})
        return store

    def __getstate__(self) -> dict[str, Any]:
        return {"made": self._made, "read_only": self.read_only, "open": self._is_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Store.__init__(self, read_only=state["read_only"])
        self._is_open = state["open"]
        self._made = token, name, options = state["made"]
        cache = _by_token.get(token)
        if cache is None:
            cache = _by_token[token] = AtomicCache(name, {"copy": False, **options})
        self._cache = cache

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, VolatileStore)
            and self._cache is other._cache
            and self.read_only == other.read_only
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"VolatileStore({self._cache.info().name!r})"

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes under `key`, without a copy, or None."""
        return self.get_sync(key, prototype=prototype, byte_range=byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """See `get`."""
        self._is_open = True
        value = self._cache.get(key)
        if value is None:
            return None
        prototype = prototype or default_buffer_prototype()
        return prototype.buffer.from_array_like(value[_slice_of(byte_range, len(value))])

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return parts of values, with None where there is no value."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Return whether there are bytes under `key`."""
        return self._cache.get(key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Store bytes."""
        self.set_sync(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """See `set`."""
        self._check_writable()
        self._is_open = True
        self._cache.set(key, _bytes_of(value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Store bytes unless there are some."""
        self._check_writable()
        self._is_open = True
        self._cache.add(key, _bytes_of(value))

    async def delete(self, key: str) -> None:
        """Remove the bytes under `key`, if there are some."""
        self.delete_sync(key)

    def delete_sync(self, key: str) -> None:
        """See `delete`."""
        self._check_writable()
        self._is_open = True
        self._cache.delete(key)

    async def clear(self) -> None:
        """Remove everything."""
        self._check_writable()
        self._cache.clear()

    async def list(self) -> AsyncIterator[str]:
        """Yield the keys."""
        for key in self._cache:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin with `prefix`."""
        for key in self._cache:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield what is in the directory `prefix`: keys, and directories once."""
        begin = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        inside = (key[len(begin) :] for key in self._cache if key.startswith(begin))
        for name in dict.fromkeys(rest.partition("/")[0] for rest in inside):
            yield name


def _bytes_of(value: Buffer) -> Any:
    if not isinstance(value, Buffer):
        raise TypeError(f"a value must be a zarr Buffer, not {type(value).__name__}")
    return value.as_numpy_array()


def _slice_of(request: ByteRequest | None, size: int) -> slice:
    match request:
        case None:
            return slice(None)
        case RangeByteRequest(start, end):
            return slice(start, end)
        case OffsetByteRequest(offset):
            return slice(offset, None)
        case SuffixByteRequest(suffix):
            return slice(max(0, size - suffix), None)
    raise ValueError(f"Unexpected byte_range, got {request!r}")
