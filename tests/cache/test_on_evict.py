"""The listener of a cache hears of each entry that the cache removed by itself, and why."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from listening import Heard

import vrange
from vrange._cache.parameters import EvictionCause
from vrange._core import hit


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_causes_have_one_list() -> None:
    assert get_args(EvictionCause) == hit.CAUSES


# ---- causes --------------------------------------------------------------------------------------


def test_an_entry_that_exceeds_max_entries_is_evicted(heard: Heard) -> None:
    with vrange.VolatileCache[int, int](max_entries=3, on_evict=heard) as cache:
        for i in range(10):
            cache[i] = i
        assert {cause for _, cause in heard} == {"evicted"}
        assert sorted(heard.of("evicted") + list(cache)) == list(range(10))


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_value_that_exceeds_max_bytes_is_evicted(heard: Heard, size: int) -> None:
    count = 20 if size > 2048 else 5000
    with vrange.VolatileCache[int, bytes](max_bytes="512KiB", on_evict=heard) as cache:
        for i in range(count):
            cache[i] = bytes(size)
        left = list(cache)
        assert 0 < len(left) < count
        assert {cause for _, cause in heard} == {"evicted"}
        assert sorted(heard.of("evicted") + left) == list(range(count))


def test_an_expired_entry_is_told_at_its_lookup(heard: Heard) -> None:
    with vrange.VolatileCache[str, int](ttl=0.001, on_evict=heard) as cache:
        cache["a"] = 1
        time.sleep(0.01)
        assert cache.get("a") is None
        assert heard == [("a", "expired")]


@pytest.mark.parametrize("notice", [len, list, lambda cache: cache.info()])
def test_an_expired_entry_is_told_by_a_sweep(heard: Heard, notice: Callable[[Any], object]) -> None:
    with vrange.VolatileCache[str, int](on_evict=heard) as cache:
        cache.set("a", 1, ttl=0.001)
        cache.set("b", 2, ttl=0.002)
        cache["c"] = 3
        time.sleep(0.01)
        notice(cache)
        assert heard == [("a", "expired"), ("b", "expired")]


def test_an_expired_entry_is_told_by_a_store(heard: Heard) -> None:
    with vrange.VolatileCache[str, int](on_evict=heard) as cache:
        cache.set("a", 1, ttl=0.001)
        time.sleep(0.01)
        cache["b"] = 2
        assert heard == [("a", "expired")]


def test_removing_an_expired_entry_tells_of_it(heard: Heard) -> None:
    with vrange.VolatileCache[str, int](ttl=0.001, on_evict=heard) as cache:
        cache["a"] = cache["b"] = 1
        time.sleep(0.01)
        with pytest.raises(KeyError):
            del cache["a"]
        assert cache.pop("b", None) is None
        assert heard == [("a", "expired"), ("b", "expired")]


@pytest.mark.parametrize("value", [b"a", np.zeros(100_000), {"a": [1, 2]}], ids=type)
def test_a_purged_entry_is_told_at_its_lookup(heard: Heard, value: Any) -> None:
    with vrange.VolatileCache[str, Any](hot_bytes=0, on_evict=heard) as cache:
        cache["a"] = value
        cache.discard()
        assert heard == []
        assert cache.get("a") is None
        assert heard == [("a", "purged")]
        assert cache.get("a") is None
        assert len(heard) == 1


def test_a_purged_entry_is_told_by_a_sweep(heard: Heard) -> None:
    with vrange.VolatileCache[int, Any](on_evict=heard) as cache:
        for i in range(200):
            cache[i] = np.full(1000, i)
        cache.discard()
        assert len(cache) == 0
        assert sorted(heard) == [(i, "purged") for i in range(200)]


def test_a_hot_value_whose_range_was_taken_has_not_left_yet(heard: Heard) -> None:
    with vrange.VolatileCache[str, Any](on_evict=heard) as cache:
        cache["a"] = {"b": 1}
        cache["t"] = "x" * 5000
        assert cache["t"] == cache["t"]  # hot from now on
        for handle in cache._core.handles(None):
            vrange._core.lib.vrange_discard(handle)
        assert len(cache) == 1
        assert heard == [("a", "purged")]
        cache.discard()
        assert len(cache) == 0
        assert sorted(heard) == [("a", "purged"), ("t", "purged")]


def test_a_value_without_room_is_refused(heard: Heard) -> None:
    with vrange.VolatileCache[str, Any](max_bytes="64KiB", on_evict=heard) as cache:
        cache["a"] = 1
        cache["a"] = np.zeros(100_000)
        assert heard == [("a", "refused")]
        assert cache.get_or_compute("b", lambda: np.ones(100_000)).sum() == 100_000
        assert heard == [("a", "refused"), ("b", "refused")]
        assert cache.info().refused == 2


def test_a_value_that_cannot_be_pickled_is_refused(heard: Heard) -> None:
    @vrange.cached(on_evict=heard)
    def lock(n: int) -> Any:
        return threading.Lock()

    with pytest.warns(vrange.NotKeptWarning):
        lock(1)
    assert heard == [(1, "refused")]


def test_a_store_that_fails_tells_that_the_old_value_is_gone(heard: Heard) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with vrange.VolatileCache[str, Any](on_evict=heard) as cache:
        cache["a"] = 1
        with pytest.raises(RecursionError):
            cache["a"] = deep
        assert heard == [("a", "refused")]
    while deep:  # freeing it at once would recurse
        deep = deep[0]


def test_what_the_program_removes_or_replaces_is_not_told(heard: Heard) -> None:
    with vrange.VolatileCache[str, Any](on_evict=heard) as cache:
        for key in "abcde":
            cache[key] = key
        cache["a"] = 2
        del cache["a"]
        cache.pop("b")
        cache.popitem()
        cache.update(d=4)
        cache.clear()
        cache["f"] = 1
    assert heard == []


def test_computations_that_store_nothing_tell_nothing(heard: Heard) -> None:
    with vrange.VolatileCache[str, Any](on_evict=heard) as cache:

        def compute() -> int:
            cache["a"] = 1
            return 2

        assert cache.get_or_compute("a", compute) == 2
        with pytest.raises(ZeroDivisionError):
            cache.get_or_compute("b", lambda: 1 // 0)
    with vrange.VolatileCache[str, Any](max_entries=0, on_evict=heard) as cache:
        assert cache.get_or_compute("a", lambda: 1) == 1
        cache["a"] = 1
    assert heard == []


# ---- the key -------------------------------------------------------------------------------------


def test_a_decorated_function_hears_the_key_of_its_calls(heard: Heard) -> None:
    @vrange.cached(key=lambda path, mode="r": (path, mode), max_entries=1, on_evict=heard)
    def read(path: str, mode: str = "r") -> str:
        return path + mode

    read("a")
    read("b", mode="w")
    assert heard == [(("a", "r"), "evicted")]
    assert read.cache_parameters()["on_evict"] is heard


def test_a_coroutine_function_and_its_listener(heard: Heard) -> None:
    threads = set()

    def listen(key: str, cause: str) -> None:
        heard(key, cause)
        threads.add(threading.get_ident())

    @vrange.cached(max_entries=1, on_evict=listen)
    async def fetch(url: str) -> str:
        await asyncio.sleep(0)
        return url

    async def main() -> None:
        for url in "abc":
            await fetch(url)

    asyncio.run(main())
    assert heard == [("a", "evicted"), ("b", "evicted")]
    assert threads == {threading.get_ident()}


def test_a_copy_has_the_same_listener(heard: Heard) -> None:
    with (
        vrange.VolatileCache[int, int](max_entries=1, on_evict=heard) as cache,
        cache.copy() as copy,
    ):
        copy[1] = copy[2] = 0
        assert heard == [(1, "evicted")]
