"""How often a request hashes and compares its key, which may be large, or do it in Python."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar

import pytest

import vrange
from vrange import _portable

Work = Callable[[], object]


class Key:
    """A key that counts: it is equal to others, but never the same object."""

    hashed: ClassVar[int] = 0
    compared: ClassVar[int] = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __hash__(self) -> int:
        Key.hashed += 1
        return self.value

    def __eq__(self, other: object) -> bool:
        Key.compared += 1
        return isinstance(other, Key) and self.value == other.value


class Different(Key):
    """A key that is equal to no other, whatever its hash is."""

    __hash__ = Key.__hash__

    def __eq__(self, other: object) -> bool:
        Key.compared += 1
        return False


def counts(work: Work) -> tuple[int, int]:
    """How often the work hashes keys, and how often it compares them."""
    Key.hashed = Key.compared = 0
    work()
    return Key.hashed, Key.compared


@pytest.fixture(params=[vrange, _portable], ids=["native", "portable"])
def where(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture
def cache(where: ModuleType) -> Iterator[Any]:
    with where.VolatileCache() as cache:
        cache[Key(1)] = "one"
        yield cache


async def two() -> str:
    return "two"


def calls_of(
    where: ModuleType, **options: Any
) -> tuple[Callable[[int], Work], Callable[[int], Work]]:
    """Calls of a decorated function, and of a coroutine function, with an equal key each time."""

    def double(key: Key) -> str:
        return 2 * str(key.value)

    async def double_async(key: Key) -> str:
        return 2 * str(key.value)

    cached, cached_async = (where.cached(**options)(f) for f in (double, double_async))

    async def run(value: int) -> None:
        await cached_async(Key(value))

    return lambda value: lambda: cached(Key(value)), lambda value: lambda: asyncio.run(run(value))


@pytest.mark.parametrize("options", [{}, {"typed": True}, {"hot_bytes": 0}], ids=str)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_decorated_call_hashes_once_if_it_hits(
    where: ModuleType, options: dict[str, Any], is_async: bool
) -> None:
    call = calls_of(where, **options)[is_async]
    hashed, compared = counts(call(1))
    assert (0 < hashed <= 4, compared) == (True, 0)
    for _ in range(3):
        assert counts(call(1)) == (1, 1)


def test_lookups_hash_once(cache: Any) -> None:
    for work in (
        lambda: cache[Key(1)],
        lambda: cache.get(Key(1)),
        lambda: Key(1) in cache,
        lambda: cache.get_or_compute(Key(1), lambda: "two"),
        lambda: asyncio.run(cache.get_or_compute_async(Key(1), two)),
    ):
        assert counts(work) == (1, 1)
    assert counts(lambda: cache.get(Key(2))) == (1, 0)
    assert counts(lambda: Key(2) in cache) == (1, 0)


def test_computing_hashes_four_times_at_most(cache: Any) -> None:
    for work in (
        lambda: cache.get_or_compute(Key(2), lambda: "two"),
        lambda: asyncio.run(cache.get_or_compute_async(Key(3), two)),
    ):
        hashed, compared = counts(work)
        assert (0 < hashed <= 4, compared) == (True, 0)


def test_storing_and_removing_hash_three_times_at_most(cache: Any) -> None:
    def store() -> None:
        cache[Key(1)] = "another"

    for work in (store, lambda: cache.pop(Key(1)), store, lambda: cache.__delitem__(Key(1))):
        hashed, compared = counts(work)
        assert (0 < hashed <= 3, compared <= 2) == (True, True)


def test_a_miss_compares_once_with_another_key_of_the_same_hash() -> None:
    @vrange.cached
    def value_of(key: Key) -> int:
        return key.value

    value_of(Key(1))
    assert counts(lambda: value_of(Different(1))) == (1, 1)
    with vrange.VolatileCache[Key, int]() as cache:
        cache[Key(1)] = 1
        assert counts(lambda: cache.get_or_compute(Different(1), lambda: 1)) == (1, 1)


def test_what_a_finalizer_computes_in_the_middle_of_a_miss_is_found() -> None:
    """The index has changed since the key was looked up."""

    @vrange.cached
    def double(key: int, *, times: int) -> list[int]:
        return [key] * times

    class Garbage:
        def __init__(self, key: int) -> None:
            self.me, self.key = self, key

        def __del__(self) -> None:
            assert double(self.key, times=2) == [self.key, self.key]

    before = gc.get_threshold()
    for objects in range(1, 40):  # until the collector starts
        gc.collect()
        Garbage(objects)
        gc.set_threshold(objects)
        answer = double(objects, times=2)
        gc.set_threshold(*before)
        assert answer == [objects, objects]
        assert double(objects, times=2) == answer
    gc.collect()
    assert len(double.cache) == 39


def test_the_native_core_hashes_once_whatever_it_does() -> None:
    with vrange.VolatileCache[Key, str]() as cache:

        def store() -> None:
            cache[Key(1)] = "one"

        assert counts(store) == (1, 0)
        assert counts(store) == (1, 1)
        assert counts(lambda: cache.get_or_compute(Key(2), lambda: "two")) == (1, 0)
        assert counts(lambda: cache.pop(Key(2)))[0] == 1
        assert counts(lambda: cache.__delitem__(Key(1))) == (1, 1)
