"""What cachetools' tests ask of `cached` and `cachedmethod`, written anew over a VolatileCache."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import cachetools
import cachetools.keys as keys
import pytest

import vrange


@pytest.fixture
def cache() -> Iterator[vrange.VolatileCache[Any, Any]]:
    with vrange.VolatileCache[Any, Any]() as made:
        yield made


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        self.calls += 1
        return self.calls


def test_a_dict_is_replaced_by_a_volatile_cache(cache: Any) -> None:
    function = cachetools.cached(cache)(Counter())
    assert [function(0), function(1), function(1), function(1.0)] == [1, 2, 2, 2]
    assert len(cache) == 2
    assert keys.hashkey(0) in cache
    assert keys.hashkey(1.0) in cache


def test_typed_keys(cache: Any) -> None:
    function = cachetools.cached(cache, key=keys.typedkey)(Counter())
    assert [function(1), function(1.0), function(1.0)] == [1, 2, 2]
    assert keys.typedkey(1) in cache
    assert keys.hashkey(1) not in cache


def test_a_lock_is_held_around_the_cache(cache: Any) -> None:
    held: list[bool] = []

    class Lock:
        def __enter__(self) -> None:
            held.append(True)

        def __exit__(self, *error: object) -> None:
            held.append(False)

    function = cachetools.cached(cache, lock=Lock())(Counter())
    assert [function(0), function(0)] == [1, 1]
    assert held.count(True) == held.count(False) > 0


def test_a_condition_lets_one_thread_compute(cache: Any) -> None:
    computed: list[int] = []
    start = threading.Barrier(4)

    def compute(n: int) -> int:
        computed.append(n)
        return n

    function = cachetools.cached(cache, condition=threading.Condition())(compute)

    def ask() -> None:
        start.wait(20)
        assert function(7) == 7

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed == [7]


def test_the_wrapper_shows_its_cache_and_can_be_cleared(cache: Any) -> None:
    function = cachetools.cached(cache)(Counter())
    assert function(0) == 1
    assert function.cache is cache
    assert function.cache_key is keys.hashkey
    cache.clear()
    assert function(0) == 2


def test_a_method_finds_the_cache_of_its_object() -> None:
    class Cached:
        def __init__(self) -> None:
            self.cache = vrange.VolatileCache[Any, Any]()
            self.count = 0

        @cachetools.cachedmethod(lambda self: self.cache)
        def get(self, value: Any) -> int:
            self.count += 1
            return self.count

    one, other = Cached(), Cached()
    assert [one.get(0), one.get(1), one.get(1), one.get(1.0)] == [1, 2, 2, 2]
    assert other.get(0) == 1, "each object has a cache of its own"
    assert len(one.cache) == 2
    one.cache.clear()
    assert one.get(1) == 3


def test_a_value_without_room_is_returned(cache: Any) -> None:
    with vrange.VolatileCache[Any, Any](max_bytes=4096) as small:
        function = cachetools.cached(small)(lambda n: bytes(n))
        assert len(function(100_000)) == len(function(100_000)) == 100_000
        assert len(small) == 0
