"""Many small answers: keys, entries and ghosts have a bound, and the least valuable go first."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from cgroup_support import in_cgroup
from support import MIB, giving

from vrange import VolatileCache, cached


@pytest.mark.memory_cgroup
def test_distinct_keys_without_end_in_a_small_container() -> None:
    """600,000 took 190 MiB before there was a bound."""
    code = """
    import vrange
    @vrange.cached
    def allowed(user: str, address: str) -> bool:
        return hash((user, address)) % 2 == 0
    for i in range(600_000):
        allowed(f"user-{i:012d}", f"10.0.{i % 256}.{i % 251}")
    info = allowed.cache_info()
    print(info.entries > 10_000, info.index_bytes <= info.entries * 600, info.misses)
    """
    assert in_cgroup(code, limit=96 * MIB) == "True True 600000"


@pytest.mark.memory_cgroup
@pytest.mark.parametrize("key", ["'k' * 100_000 + str(n)", "('k' * 100_000 + str(n), n)"])
@pytest.mark.parametrize("value", ["True", "np.full(1000, n)"])
def test_large_keys_count(key: str, value: str) -> None:
    code = f"""
    import numpy as np, vrange
    cache = vrange.VolatileCache()
    for n in range(4000):
        cache[{key}] = {value}
    info = cache.info()
    print(20 < len(cache) < 400, info.index_bytes < 20 << 20)
    """
    assert in_cgroup(code, limit=128 * MIB) == "True True"


@pytest.mark.memory_cgroup
def test_many_caches_share_the_bound() -> None:
    code = """
    import vrange
    caches = [vrange.VolatileCache() for _ in range(200)]
    for n in range(2000):
        for cache in caches:
            cache[f"a key that is new each time, {n}"] = n
    # One that has little keeps it, whatever the others have.
    small = vrange.VolatileCache()
    small["k"] = 1
    large = vrange.VolatileCache()
    for n in range(100_000):
        large[f"a key that is new each time, {n}"] = n
    print(small.get("k"), sum(cache.info().index_bytes for cache in [*caches, large]) < 14 << 20)
    """
    assert in_cgroup(code, limit=128 * MIB) == "1 True"


def small(n: int) -> Any:
    return n


def ranged(n: int) -> Any:
    return np.full(800, n)


def mixed(n: int) -> Any:
    return ranged(n) if n % 2 else "x" * (n % 50)


@pytest.mark.parametrize("hot_bytes", [0, "auto"])
@pytest.mark.parametrize("make", [small, ranged, mixed])
@pytest.mark.parametrize("most", [1, 2, 10, 300])
def test_max_entries(make: Any, most: int, hot_bytes: Any) -> None:
    with VolatileCache[int, Any](max_entries=most, hot_bytes=hot_bytes) as cache:
        for n in range(4 * most + 20):
            made = make(n)
            assert np.array_equal(cache.get_or_compute(n, giving(made)), made)
            assert len(cache) == min(n + 1, most), "neither more nor fewer"
            assert n in cache, "the newest stays"
            assert np.array_equal(cache[n], made)
        assert cache.info().max_entries == most
        assert cache.info().entries == most
        for key in list(cache):
            assert np.array_equal(cache[key], make(key))
        cache.clear()
        assert cache.info().index_bytes == 0
        assert not cache._core.handles(None)


@pytest.mark.parametrize("hot_bytes", [0, "auto"])
@pytest.mark.parametrize("make", [small, ranged])
def test_what_is_asked_for_stays(make: Any, hot_bytes: Any) -> None:
    with VolatileCache[int, Any](max_entries=100, hot_bytes=hot_bytes) as cache:
        for n in range(3000):
            cache.get_or_compute(n, partial(make, n))
            for popular in range(20):
                cache.get_or_compute(popular, partial(make, popular))
        assert all(popular in cache for popular in range(20))
        assert cache.info().hits > 20 * 2900


def test_what_costs_more_stays() -> None:
    with VolatileCache[int, Any](max_entries=50, hot_bytes=0) as cache:
        for n in range(1000):
            cache._core.store(n, ranged(n), 0, 10**9 if n < 20 else 10**6)
        assert sum(n in cache for n in range(20)) >= 16  # of a sample


@pytest.mark.parametrize("options", [{}, {"ttl": 60}])
def test_the_count_of_key_bytes_comes_back_to_nothing(options: Any) -> None:
    with VolatileCache[Any, Any](max_entries=200, **options) as cache:
        for n in range(2000):
            cache[f"key {n % 300}", n % 7] = mixed(n)
            if n % 3 == 0:
                cache.pop((f"key {n % 100}", n % 7), None)
            if n % 500 == 0:
                cache.discard()
        assert len(cache) <= 200
        for key in list(cache):
            del cache[key]
        assert cache.info().index_bytes == 0
        assert not cache._core.handles(None)


def test_threads_at_the_bound() -> None:
    with VolatileCache[int, Any](max_entries=64) as cache:
        failures: list[int] = []

        def work(seed: int) -> None:
            for turn in range(600):
                n = (turn * 13 + seed * 7) % 500
                value = cache.get_or_compute(n, partial(mixed, n))
                if not np.array_equal(value, mixed(n)):
                    failures.append(n)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures
        assert len(cache) <= 64


def test_of_a_decorated_function() -> None:
    @cached(max_entries=3)
    def square(n: int) -> int:
        return n * n

    assert [square(n) for n in range(10)] == [n * n for n in range(10)]
    assert square.cache_info().entries == square.cache_info().max_entries == 3
    assert square.cache_parameters()["max_entries"] == 3


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ValueError),
        (1 << 63, ValueError),
        ("x", TypeError),
        (True, TypeError),
        (1.5, TypeError),
    ],
)
def test_bad_bounds_are_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_entries must be"):
        VolatileCache(max_entries=value)
    with pytest.raises(error, match="max_entries must be"):
        cached(max_entries=value)(small)


def test_evicting_does_not_look_at_all_entries() -> None:
    """At a bound a hundred times as high, a store looks at about as many."""
    looks = {}
    for most in (100, 10_000):
        with VolatileCache[int, Any](max_entries=most, hot_bytes=0) as cache:
            for n in range(most):
                cache[n] = n
            before = cache._core.hand_steps
            for n in range(most, 2 * most):
                cache[n] = n
            looks[most] = (cache._core.hand_steps - before) / most
    assert looks[10_000] < 2 * looks[100] + 1


def test_caches_that_are_gone_do_not_count() -> None:
    for _ in range(3):
        cache = VolatileCache[int, Any]()
        for n in range(3000):
            cache[n] = n
        cache.close()
        del cache
    gc.collect()
    with VolatileCache[int, Any]() as cache:
        for n in range(3000):
            cache[n] = n
        assert len(cache) == 3000


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Point:
    name: str
    at: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Slotted:
    name: str
    inner: Point


@dataclass(unsafe_hash=True)
class Changing:
    name: str = field(compare=True)
    notes: list[str] = field(default_factory=list, compare=False)


class Written:
    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Written) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class Name(str):
    pass


KEYS: dict[str, Callable[[int], Any]] = {
    "dataclass": lambda i: Point(f"{i:06d}" * 100, (i, i)),
    "dataclass with slots": lambda i: Slotted(f"{i:06d}" * 100, Point(f"{i:06d}" * 50, (i, i))),
    "instances in a tuple": lambda i: (i, Written(f"{i:06d}" * 100), Point(f"{i:06d}", (i, i))),
    "str of a class": lambda i: Name(f"{i:06d}" * 100),
    "nested tuples": lambda i: (((f"{i:06d}" * 100, 2), i), "a"),
    "named tuple": lambda i: Pair(f"{i:06d}" * 100, i),
    "frozen set": lambda i: frozenset(range(i, i + 40)),
    "set of tuples": lambda i: frozenset({(f"{i:06d}" * 100,)}),
    "large int": lambda i: 10**1000 + i,
}


@pytest.mark.parametrize("kind", KEYS)
def test_the_memory_of_large_keys_is_counted(kind: str) -> None:
    make = KEYS[kind]
    with VolatileCache[Any, int](max_entries=10_000) as cache:
        gc.collect()
        tracemalloc.start()
        for i in range(2000):
            cache[make(i)] = i
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        counted = cache.info().index_bytes
        assert counted > 0.7 * taken
        assert counted < 3 * taken + 2000 * 200
        for i in range(2000):
            del cache[make(i)]
        assert cache._core.index_bytes == 0


def test_a_key_may_change_while_it_is_stored() -> None:
    keys = [Changing(f"{i:06d}") for i in range(100)]
    with VolatileCache[Any, int]() as cache:
        for key in keys:
            cache[key] = 1
        for key in keys:
            key.notes.extend(["x" * 1000] * 20)
        for key in keys[:50]:
            del cache[key]
        assert 0 < cache._core.index_bytes < 50 * 1000
        cache.clear()
        assert cache._core.index_bytes == 0


def test_what_is_not_the_caches_own_does_not_count() -> None:
    class Client:  # hashed by its identity, as the self of a method mostly is
        def __init__(self) -> None:
            self.data = "x" * 100_000

    class Color(Enum):
        RED = "x" * 100_000

    client = Client()
    with VolatileCache[Any, int]() as cache:
        for i in range(10):
            cache[client, i] = 1
            cache[Color.RED, i] = 1
        assert cache._core.index_bytes < 20 * 400


def test_a_key_with_many_fields_takes_no_long_time_to_weigh() -> None:
    @dataclass(frozen=True)
    class Node:
        children: tuple[Any, ...]

    node = Node(())
    for _ in range(40):
        node = Node((node,) * 40)
    with VolatileCache[Any, int]() as cache:
        cache["before"] = 1
        key = Weighed(node)
        cache[key] = 1
        assert cache[key] == 1


class Weighed:
    """Hashed quickly, however much it holds."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


@pytest.mark.memory_cgroup
def test_large_keys_in_a_small_container() -> None:
    code = """
    import vrange
    cache = vrange.VolatileCache()
    for i in range(10_000):
        cache[frozenset(range(i, i + 500))] = 1
        cache[(((f"{i:06d}" * 2000,),),)] = 1
    print(len(cache) > 100)
    """
    assert in_cgroup(code, limit=192 * MIB) == "True"


@pytest.mark.memory_cgroup
def test_what_thousands_of_caches_remember_of_keys_has_a_bound() -> None:
    """Each had a table of 128 KiB once it had evicted one key."""
    code = """
    import vrange
    caches = [vrange.VolatileCache() for _ in range(1500)]
    for key in range(170):
        for cache in caches:
            cache[key] = key
    print(sum(map(len, caches)) > 10_000)
    """
    assert in_cgroup(code, limit=192 * MIB) == "True"
