"""zarr 3: the tests that it ships for stores, on ours, and a CacheStore over it."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.experimental.cache_store import CacheStore
from zarr.storage import MemoryStore
from zarr.testing.store import StoreTests

from vrange.integrations.zarr import VolatileStore


class TestStore(StoreTests[VolatileStore, cpu.Buffer]):
    store_cls = VolatileStore
    buffer_cls = cpu.Buffer

    async def set(self, store: VolatileStore, key: str, value: Buffer) -> None:
        store._cache.set(key, value.as_numpy_array())

    async def get(self, store: VolatileStore, key: str) -> Buffer:
        return self.buffer_cls.from_array_like(store._cache.get(key))

    @pytest.fixture
    def store_kwargs(self) -> dict[str, Any]:
        return {"name": "chunks"}

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> VolatileStore:
        return asyncio.run(VolatileStore.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> VolatileStore:
        return VolatileStore(**store_kwargs)

    def test_store_eq(self, store: VolatileStore, store_kwargs: dict[str, Any]) -> None:
        # A name is a label: another store of that name may be of another array.
        assert store == store
        assert store != VolatileStore(**store_kwargs)
        assert store != store.with_read_only(True)

    def test_store_repr(self, store: VolatileStore) -> None:
        assert repr(store) == "VolatileStore('chunks')"

    def test_store_supports_writes(self, store: VolatileStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: VolatileStore) -> None:
        assert store.supports_listing


def test_an_array_is_read_through_the_cache_and_again_after_a_loss() -> None:
    source, chunks = MemoryStore(), VolatileStore("chunks")
    expected = np.arange(10_000).reshape(100, 100)
    written = zarr.create_array(source, shape=(100, 100), chunks=(10, 100), dtype=expected.dtype)
    written[:] = expected
    cached = CacheStore(source, cache_store=chunks)
    array = zarr.open_array(cached, mode="r")
    for _ in range(2):
        np.testing.assert_array_equal(array[:], expected)
    before = cached.cache_stats()["misses"]
    np.testing.assert_array_equal(array[:], expected)
    assert cached.cache_stats()["misses"] == before
    chunks._cache.mapping.discard()
    np.testing.assert_array_equal(array[:], expected)
    assert cached.cache_stats()["misses"] > before


def test_chunks_are_read_without_a_copy() -> None:
    async def main() -> None:
        store = await VolatileStore.open()
        await store.set("a", cpu.Buffer.from_bytes(bytes(1 << 16)))
        first, second = [await store.get("a") for _ in range(2)]
        assert first is not None
        assert second is not None
        assert np.shares_memory(first.as_numpy_array(), second.as_numpy_array())
        assert not first.as_numpy_array().flags.writeable

    asyncio.run(main())


def test_what_is_stored_does_not_change_with_the_array_it_came_from() -> None:
    async def main() -> None:
        store = await VolatileStore.open()
        array = np.zeros(100, "u1")
        await store.set("a", cpu.Buffer.from_array_like(array))
        array[:] = 9
        got = await store.get("a", default_buffer_prototype())
        assert got is not None
        assert not got.as_numpy_array().any()

    asyncio.run(main())


def test_a_pickled_store_is_the_same_here_and_a_new_one_after_it_is_gone() -> None:
    store = VolatileStore("chunks", max_bytes="1MiB")
    store._cache.set("a", np.zeros(3, "u1"))
    pickled = pickle.dumps(store)
    assert list(pickle.loads(pickled)._cache) == ["a"]
    del store
    again = pickle.loads(pickled)
    assert list(again._cache) == []
    assert again._cache.info().max_bytes == 1 << 20


def test_a_bad_option_is_refused() -> None:
    with pytest.raises(TypeError, match="typo"):
        VolatileStore(typo=1)
