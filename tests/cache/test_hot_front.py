"""The hot front: bounded in bytes, alone and among all."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import cgroup_support
import numpy as np
import pytest
from cgroup_support import in_cgroup
from support import MIB, succeeds

import vrange
from vrange._cgroup.limits import memory_limit
from vrange._core import hit

Cache = vrange.VolatileCache[Any, Any]
VALUE = 16_000  # in ranges of 16 KiB, and weighed as that and what an array is
WEIGHT = 16_384 + 128


def asked(cache: Cache, *keys: Any) -> None:
    for key in keys:
        cache[key] = np.full(VALUE, 1, np.uint8)
        assert cache[key][0] == 1


@pytest.fixture
def _small_share() -> Iterator[None]:
    gc.collect()
    hit.set_hot_bytes(10 * WEIGHT)
    yield
    hit.set_hot_bytes(memory_limit().limit_bytes // 10)


def test_what_is_used_more_takes_the_place_of_what_is_held_longest() -> None:
    with Cache(hot_bytes=2 * WEIGHT) as cache:
        asked(cache, "a", "b", "c")
        assert cache._core.hot_keys() == ["a", "b"]
        assert cache.info().hot_bytes == 2 * WEIGHT
        while "c" not in cache._core.hot_keys():
            cache["c"]
        assert cache._core.hot_keys() in (["b", "c"], ["a", "c"])
        cache._core.check()


def test_too_large_is_not_held_and_throws_nobody_out() -> None:
    with Cache(hot_bytes=2 * WEIGHT) as cache:
        asked(cache, "a")
        cache["large"] = np.zeros(4 * VALUE, np.uint8)
        for _ in range(100):
            assert not cache["large"].any()
        assert cache._core.hot_keys() == ["a"]


def test_discard_and_clear() -> None:
    with Cache(hot_bytes=4 * WEIGHT) as cache:
        asked(cache, "a", "b", "c")
        cache.discard("b")
        assert cache._core.hot_keys() == ["a", "c"]
        del cache["a"]
        assert cache.info().hot_bytes == WEIGHT
        cache["c"] = 5
        assert cache.info().hot_bytes == 0
        assert cache["c"] == 5
        cache.clear()
        assert (cache._core.hot_keys(), cache.info().hot_bytes) == ([], 0)


class Reborn:
    """Asks its cache for another value when it dies."""

    cache: Cache

    def __del__(self) -> None:
        if not self.cache._core.closed:
            self.cache.get_or_compute("again", lambda: "x" * 100)
            self.cache.get("again")


def test_what_dies_may_come_back_to_the_cache() -> None:
    with Cache(hot_bytes=100_000) as cache:
        Reborn.cache = cache
        cache["k"] = Reborn()
        cache["k"]
        assert "k" in cache._core.hot_keys()
        for end in (lambda: cache._core.cool(None), cache.clear, lambda: cache.pop("k", None)):
            end()
            cache._core.check()
            assert cache["again"] == "x" * 100
            cache["k"] = Reborn()
            cache["k"]


@pytest.mark.usefixtures("_small_share")
def test_automatic_fronts_are_bound_together() -> None:
    caches = [Cache() for _ in range(5)]
    for turn in range(50):
        asked(caches[turn % 5], turn)
        assert sum(cache.info().hot_bytes for cache in caches) <= 10 * WEIGHT
    assert sum(cache.info().hot_bytes for cache in caches) > 5 * WEIGHT
    with Cache(hot_bytes=20 * WEIGHT) as own:
        asked(own, *range(15))
        assert own.info().hot_bytes == 15 * WEIGHT, "a limit of its own is its own"


def test_limit_follows_the_machines() -> None:
    assert Cache()._core.hot_limit == memory_limit().limit_bytes // 10


def test_a_cache_holds_what_it_was_asked_for_up_to_its_bytes() -> None:
    with Cache(hot_bytes="100KiB", arena_bytes="64MiB") as cache:
        for n in range(20):
            cache[n] = np.full(20_000, n, np.uint8)
            assert cache[n][0] == n
        info = cache.info()
        assert 60_000 < info.hot_bytes <= 100 << 10
        assert info.pinned_bytes == info.hot_bytes // 4096 * 4096
        assert cache[0][0] == 0
        before = cache.info()
        assert before.hot_hits == info.hot_hits + 1, "hot, as nothing is used more"
        assert cache[19][0] == 19
        now = cache.info()
        assert (now.hot_hits, now.resident_hits) == (before.hot_hits, before.resident_hits + 1)


def test_max_bytes_bounds_what_is_held() -> None:
    with Cache(max_bytes="100KiB", hot_bytes="1MiB", arena_bytes="1MiB") as cache:
        for n in range(20):
            cache[n] = np.full(20_000, n, np.uint8)
            assert cache[n][0] == n
            assert cache.info().hot_bytes <= 50 << 10


def test_what_was_hot_is_valued_by_how_often_it_was_asked_for() -> None:
    """A hit in the front touches no range: uncounted, what was hot would be the first to go."""
    with Cache(max_bytes="1MiB", hot_bytes="40KiB", arena_bytes="8MiB") as cache:
        cache["hot"] = np.full(32 << 10, 7, np.uint8)
        for _ in range(600):
            cache["hot"]
        assert cache.info().hot_hits > 590
        for n in range(45):
            if n == 20:
                cache._core.cool(None)  # as pressure does
            cache[n] = np.full(32 << 10, n, np.uint8)
            for _ in range(5):
                cache[n]
        assert len(cache) < 40, "some had to go"
        assert cache["hot"][0] == 7


GROWING = """
import time, vrange

MIB = 1 << 20
cache = vrange.VolatileCache(name="hot")
for n in range(40):
    cache[n] = bytes([n]) * MIB
    for _ in range(20):
        cache[n]
before = cache.info().hot_bytes
cache.clear()
for n in range(40):
    cache[n] = bytes([n]) * MIB
    for _ in range(20):
        cache[n]
after = cache.info().hot_bytes
own = bytearray(int(MIB * 170))
for page in range(0, len(own), 4096):
    own[page] = 1
for n in range(5):
    time.sleep(0.15)
    cache["small"] = n
print(before, after, cache.info().hot_bytes)
"""


@pytest.mark.memory_cgroup
def test_it_has_a_tenth_of_the_limit_and_less_where_the_program_grows() -> None:
    before, cleared, grown = map(int, in_cgroup(GROWING).split())
    assert 20 * MIB < before <= cgroup_support.LIMIT // 10
    assert before == cleared  # what is cleared is not counted any more
    assert grown < 8 * MIB


def test_hot_objects_are_counted_where_they_are() -> None:
    name = "objects of test"
    with vrange.VolatileCache[str, Any](name=name) as cache:
        value = [{"number": number, "text": f"{number:50}"} for number in range(2000)]
        cache["object"] = value
        for _ in range(20):
            assert cache["object"] == value
        info = cache.info()
        assert info.object_bytes == info.hot_bytes > 200_000
        assert info.pinned_bytes == 0
        (account,) = (one for one in vrange.stats().accounts if one.name == name)
        assert account.object_bytes == info.object_bytes
        assert "0 B pinned" in repr(cache)
        assert "in objects" in repr(cache)
        cache["view"] = np.ones(50_000)
        for _ in range(20):
            assert cache["view"].all()
        info = cache.info()
        assert info.pinned_bytes >= 400_000
        assert info.hot_bytes > info.pinned_bytes
        assert info.object_bytes <= info.hot_bytes - 400_000
        del cache["object"]
        assert cache.info().object_bytes < 1000
        cache.clear()
        assert cache.info().object_bytes == cache.info().hot_bytes == 0


def test_a_cache_does_not_age_as_one_that_was_closed() -> None:
    """Requests moved on there, and uses counted for little: values used alike changed places."""
    code = """
    import numpy as np, vrange
    with vrange.VolatileCache(hot_bytes=0) as moving:
        for n in range(6000):
            moving[n] = bytes(20_000)
            for again in n, n, n - 20:
                moving.get(again)
            moving.discard(n - 40)
    cache = vrange.VolatileCache(hot_bytes=100_000)
    for n in 1, 2:
        cache[n] = np.full(95_000, n, np.uint8)
    held, changes = None, 0
    for n in (1, 2) * 400:
        cache[n]
        before, held = held, cache._core.hot_keys()
        changes += before != held
    print(changes)
    """
    assert int(succeeds(code)) <= 4
