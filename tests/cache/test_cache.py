"""The cache as its users see it: a mapping whose values may be gone."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from support import (
    MIB,
    PAGE,
    address_of_buffer,
    handle_of,
    is_mapped,
    lose,
    resident_pages,
    wait_until,
)

import vrange
from vrange._core import lib

Cache = vrange.VolatileCache[Any, Any]


def taken(cache: Cache, key: object) -> None:
    """The key's range goes, where possible by the kernel's doing and with nobody told."""
    if not lose(handle_of(cache, key)):
        assert cache.discard(key) == 1


@pytest.fixture
def hot_cache() -> Cache:
    return Cache(name="hot", arena_bytes="64MiB")


def test_as_a_mapping(cache: Cache) -> None:
    cache["a"] = 1
    cache.update(b=b"2" * 5000, c=np.arange(9000))
    assert cache["a"] == 1
    assert len(cache) == 3
    assert list(cache) == ["a", "b", "c"]
    assert "a" in cache
    assert "z" not in cache
    assert cache.get("z") is None
    assert cache.get("z", 7) == 7
    assert cache.setdefault("a", 5) == 1
    assert cache.setdefault("d", 5) == 5
    assert cache.pop("d") == 5
    assert cache.pop("d", "gone") == "gone"
    with pytest.raises(KeyError, match="'d'"):
        cache.pop("d")
    with pytest.raises(KeyError, match="'d'"):
        del cache["d"]
    with pytest.raises(KeyError, match="'d'"):
        cache["d"]
    assert dict(cache).keys() == {"a", "b", "c"}
    assert [key for key, _ in cache.items()] == ["a", "b", "c"]
    assert list(cache.values())[:2] == [1, b"2" * 5000]
    key, _ = cache.popitem()
    assert key == "a"
    cache.clear()
    assert (len(cache), list(cache), dict(cache)) == (0, [], {})
    with pytest.raises(KeyError, match="is empty"):
        cache.popitem()
    assert cache == cache
    assert cache != Cache()
    assert len({cache, cache}) == 1


@pytest.mark.parametrize("key", [[], {}, {1}, np.arange(3), ([],), bytearray(b"k")])
def test_unhashable_keys(cache: Cache, key: Any) -> None:
    for use in (
        lambda: cache.__setitem__(key, 1),
        lambda: cache.__setitem__(key, bytes(5000)),
        lambda: cache[key],
        lambda: cache.get(key),
        lambda: key in cache,
        lambda: cache.pop(key),
        lambda: cache.get_or_compute(key, lambda: 1),
        lambda: cache.__delitem__(key),
    ):
        with pytest.raises(TypeError, match="unhashable"):
            use()
    assert cache.info().entries == cache._account.read().ranges == 0


@pytest.mark.parametrize("key", [None, (), ..., float("nan"), frozenset(), b"k", "k", 0, object()])
def test_hashable_keys(cache: Cache, key: Any) -> None:
    cache[key] = "value"
    assert cache[key] == "value"
    del cache[key]
    assert key not in cache


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"ttl": 0},
            ValueError,
            "ttl must be a positive number of seconds, a timedelta or None",
        ),
        ({"ttl": -1}, ValueError, "ttl must"),
        ({"ttl": float("nan")}, ValueError, "ttl must"),
        ({"ttl": "1s"}, ValueError, "ttl must"),
        ({"ttl": True}, ValueError, "ttl must"),
        ({"max_bytes": -1}, ValueError, "max_bytes must not be negative"),
        ({"max_bytes": 1.5}, TypeError, "max_bytes must be an int"),
        ({"max_bytes": "some"}, ValueError, "max_bytes must be"),
        ({"hot_bytes": "all"}, ValueError, "hot_bytes must be"),
        ({"hot_bytes": None}, TypeError, "hot_bytes must be"),
        ({"arena_bytes": 0}, ValueError, "arena_bytes must be at least 1"),
        ({"arena_bytes": "-1MiB"}, ValueError, "arena_bytes must be"),
        ({"name": ""}, ValueError, "name must be 1 to 63"),
        ({"name": 7}, TypeError, "name must be a string"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Cache(**arguments)


def test_purged_is_told_from_never_cached(cache: Cache) -> None:
    for n in range(4):
        cache[n] = np.full(10_000, n)
    taken(cache, 1)
    assert cache.get(1) is None
    assert cache.get("never") is None
    info = cache.info()
    assert (info.purged, info.misses, info.hits, info.entries) == (1, 1, 0, 3)
    assert cache.get(1) is None
    assert cache.info().purged == 2, "still purged, until there is a value again"
    cache[1] = 5
    assert cache[1] == 5
    del cache[1]
    assert cache.get(1) is None
    assert cache.info().misses == 2, "deleted is not purged"


def test_held_arrays_stay_whatever_happens(cache: Cache) -> None:
    cache["k"] = np.arange(100_000)
    held = cache["k"][500:90_000].view(np.uint8)[8::3]
    wanted = held.copy()
    address = address_of_buffer(cache["k"])
    assert cache.discard() == 0
    assert cache.discard("k") == 0
    cache["k"] = np.zeros(100_000)
    assert (held == wanted).all()
    cache["k"] = "small now"
    cache.clear()
    for n in range(50):
        cache[n] = os.urandom(800_000)
    assert (held == wanted).all()
    cache.close()
    gc.collect()
    assert (held == wanted).all()
    assert is_mapped(address)
    del held
    gc.collect()
    wait_until(lambda: not is_mapped(address), "the arena is unmapped")


def test_last_view_that_dies_is_the_release(cache: Cache) -> None:
    cache["k"] = np.zeros(25 * PAGE, np.uint8)
    one, two = cache["k"], memoryview(cache["k"])[5:10]
    pinned = [cache.info().pinned_bytes]
    del one
    pinned.append(cache.info().pinned_bytes)
    del two
    pinned.append(cache.info().pinned_bytes)
    assert pinned == [25 * PAGE, 25 * PAGE, 0]
    info = cache.info()
    assert info.idle_bytes + info.offered_bytes == 25 * PAGE


def test_bytes_by_state_add_up(cache: Cache) -> None:
    for n in range(10):
        cache[n] = np.full(3 * PAGE, n, np.uint8)
    held = [cache[n] for n in range(3)]
    taken(cache, 9)
    cache.get(9)
    info = cache.info()
    assert info.pinned_bytes == 9 * PAGE
    assert info.idle_bytes + info.offered_bytes == 18 * PAGE
    assert info.purged_bytes == 0, "swept"
    assert info.purged_total_bytes == 3 * PAGE
    assert info.entries == 9
    assert [int(array[0]) for array in held] == [0, 1, 2]


def test_memory_taken_is_memory_given_back(cache: Cache) -> None:
    cache["k"] = np.ones(MIB, np.uint8)
    array = cache["k"]
    address = address_of_buffer(array)
    assert all(resident_pages(address, MIB))
    del array
    assert cache.discard("k") == 1
    assert not any(resident_pages(address, MIB))


def test_counting_starts_anew_with_clear(hot_cache: Cache) -> None:
    hot_cache["k"] = b"x" * 5000
    for _ in range(3):
        assert hot_cache["k"]
    hot_cache.get("nothing")
    info = hot_cache.info()
    assert (info.hits, info.resident_hits, info.hot_hits, info.misses) == (3, 1, 2, 1)
    hot_cache.clear()
    info = hot_cache.info()
    assert (info.hits, info.misses, info.entries, info.hot_bytes) == (0, 0, 0, 0)
    assert hot_cache.get("k") is None


def test_hot_values_outlive_their_range_and_then_go_with_their_key(hot_cache: Cache) -> None:
    for n in range(10):
        hot_cache[n] = b"%d" % n * 3000
        hot_cache["small", n] = n
    for key in hot_cache:
        assert hot_cache[key] is not None
    for handle in {handle_of(hot_cache, key) for key in hot_cache}:
        assert lib.vrange_discard(handle) == lib.VRANGE_OK  # as if the kernel had
    assert hot_cache[3] == b"3" * 3000
    assert hot_cache["small", 3] == 3
    assert len(hot_cache) == 20
    hot_cache.discard(3)
    assert 3 not in hot_cache
    assert len(hot_cache) == len(list(hot_cache)) == 19
    hot_cache.discard()
    assert (len(hot_cache), list(hot_cache), list(hot_cache.items())) == (0, [], [])


def test_what_compute_raises_is_not_cached(cache: Cache) -> None:
    def fail() -> None:
        raise ZeroDivisionError("computing")

    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="computing"):
            cache.get_or_compute("k", fail)
    assert "k" not in cache
    assert cache.get_or_compute("k", lambda: 1) == 1
    info = cache.info()
    assert (info.misses, info.regenerated, info.entries) == (3, 1, 1)


def test_a_value_that_can_not_be_pickled_is_returned_and_leaves_nothing(cache: Cache) -> None:
    with pytest.warns(vrange.NotKeptWarning, match="can't be pickled"):
        assert list(cache.get_or_compute("k", lambda: (n for n in range(3)))) == [0, 1, 2]
    assert "k" not in cache
    assert cache.get_or_compute("k", lambda: 1) == 1


def test_computing_is_counted_and_its_time_told(cache: Cache) -> None:
    before = vrange.stats().time_to_reallocate["cache", "purged"].count

    def compute() -> Any:
        time.sleep(0.002)
        return np.zeros(PAGE)

    value = cache.get_or_compute("k", compute)
    assert not value.flags.writeable
    del value
    taken(cache, "k")
    cache.get_or_compute("k", lambda: np.zeros(PAGE))
    info = cache.info()
    assert (info.regenerated, info.purged, info.misses) == (2, 1, 1)
    assert info.regenerate_seconds >= 0.002
    assert vrange.stats().time_to_reallocate["cache", "purged"].count == before + 1


def test_the_stored_array_is_returned_and_not_the_one_that_was_computed(cache: Cache) -> None:
    computed = np.arange(10_000)
    got = cache.get_or_compute("k", lambda: computed)
    assert not np.shares_memory(got, computed)
    assert np.shares_memory(got, cache["k"])
    computed[:] = 0
    assert (cache["k"] == np.arange(10_000)).all()


def test_keys_may_be_changed_while_iterating(cache: Cache) -> None:
    cache.update({n: n for n in range(100)})
    for n in cache:
        del cache[n]
        cache[n + 1000] = n
    assert sorted(cache) == list(range(1000, 1100))


def test_entries_that_go_while_iterating_are_passed_over(cache: Cache) -> None:
    for n in range(5):
        cache[n] = np.full(PAGE, n)
    taken(cache, 2)
    seen = [n for n, value in cache.items() if value[0] == n]
    assert seen == [0, 1, 3, 4]
    taken(cache, 3)
    assert [int(value[0]) for value in cache.values()] == [0, 1, 4]
    taken(cache, 0)
    assert cache.popitem()[0] == 1


def test_closed(cache: Cache) -> None:
    cache["k"] = np.zeros(9000)
    cache["s"] = "small"
    address = address_of_buffer(cache["k"])
    gc.collect()
    cache.close()
    cache.close()
    assert not is_mapped(address)
    uses: list[Callable[[], object]] = [
        lambda: cache["k"],
        lambda: cache.get("k"),
        lambda: cache.get_or_compute("k", lambda: 1),
        lambda: cache.__setitem__("k", 1),
        lambda: cache.__setitem__("k", bytes(9000)),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="cache 'test' is closed"):
            use()
    assert "k" not in cache
    assert len(cache) == 0
    assert repr(cache) == "<VolatileCache 'test', closed>"
    cache.clear()
    assert cache.discard() == 0


def test_a_cache_that_died_gives_everything_back() -> None:
    cache = Cache(arena_bytes="64MiB")
    for n in range(100):
        cache[n] = np.zeros(MIB // 20)
        assert cache[n] is not None
    address = address_of_buffer(cache[0])
    held = cache[1]
    del cache
    gc.collect()
    assert is_mapped(address), "somebody holds an array of it"
    assert held.sum() == 0
    del held
    gc.collect()
    wait_until(lambda: not is_mapped(address), "the arena is unmapped")


def test_unused_caches_cost_no_address_space() -> None:
    caches = [Cache() for _ in range(100)]
    assert all(cache._account.read().reserved_bytes == 0 for cache in caches)
    assert all(cache.get("k") is None and len(cache) == 0 for cache in caches)
    assert len({cache.name for cache in caches}) == 100


def test_what_it_says_of_itself(cache: Cache) -> None:
    cache["k"] = np.zeros(PAGE, np.uint8)
    assert repr(cache).startswith("<VolatileCache 'test': 1 entries, 0 B pinned, 0 B hot (0 B in ")


def test_discard_takes_what_nobody_holds(cache: Cache) -> None:
    cache["k"] = np.zeros(PAGE)
    assert cache.discard() == 1
    assert cache.get("k") is None


class Unpicklable:
    """Pickles, and raises when it is unpickled."""

    def __init__(self, size: int) -> None:
        self.padding = b"x" * size

    def __setstate__(self, state: Any) -> None:
        raise ArithmeticError("inside of __setstate__")


@pytest.mark.parametrize("size", [10, 100_000])
def test_what_can_not_be_unpickled_is_computed_again(size: int) -> None:
    computed = 0

    def compute() -> Unpicklable:
        nonlocal computed
        computed += 1
        return Unpicklable(size)

    with Cache(name="unpicklable", hot_bytes=0) as cache:
        assert cache.get_or_compute("k", compute).padding == b"x" * size
        with pytest.warns(vrange.NotKeptWarning, match="inside of __setstate__") as warned:
            assert cache.get_or_compute("k", compute).padding == b"x" * size
        assert computed == 2
        assert warned[0].filename == __file__, "it points to who asked"
        with pytest.raises(KeyError):  # and it was said once
            cache["k"]
        assert len(cache) == 0


class ClosesItsCache:
    """Closes the cache that it is stored in, while it is pickled."""

    cache: Cache

    def __reduce__(self) -> Any:
        self.cache.close()
        return bytes, (6000,)


def test_closed_while_it_is_stored_nothing_is_left() -> None:
    cache: vrange.VolatileCache[str, Any] = vrange.VolatileCache(arena_bytes="1MiB")
    cache["other"] = 1
    ClosesItsCache.cache = cache
    with pytest.raises(ValueError, match="is closed") as raised:
        cache["k"] = ClosesItsCache()
    assert cache._account.read().ranges == 0
    assert raised.traceback


def test_a_ttl_of_one_entry(cache: Cache) -> None:
    cache.set("short", 1, ttl=0.02)
    cache.set("long", 2, ttl=timedelta(hours=1))
    cache.set("ever", 3, ttl=math.inf)
    cache.set("plain", 4)
    time.sleep(0.03)
    assert "short" not in cache
    with pytest.raises(KeyError):
        cache["short"]
    assert (cache["long"], cache["ever"], cache["plain"]) == (2, 3, 4)
    cache.set("long", 5, ttl=0.02)
    time.sleep(0.03)
    assert cache.get("long") is None
    wrong: list[Any] = [0, -1, math.nan, True, "1s", timedelta(0)]
    for bad in wrong:
        with pytest.raises(ValueError, match="ttl must be a positive number of seconds"):
            cache.set("k", 1, ttl=bad)
    assert "k" not in cache


def test_a_ttl_of_one_entry_goes_before_that_of_the_cache() -> None:
    with Cache(name="both", ttl=timedelta(milliseconds=20)) as cache:
        cache["a"] = 1
        cache.set("b", 2)
        cache.set("c", 3, ttl=1000)
        time.sleep(0.03)
        assert list(cache) == ["c"]
