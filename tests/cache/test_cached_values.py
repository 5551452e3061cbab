"""What @cached does that functools.cache does not: arrays, expiry, coroutines, threads."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from workers import Worker

from vrange import NotKeptWarning, cached
from vrange._ranges.arena import open_growing_arena


def test_arrays_from_a_function_are_shared_and_read_only() -> None:
    computed = []

    @cached(hot_bytes=0)
    def table(n: int) -> Any:
        computed.append(n)
        return np.full(50_000, n)

    one, two = table(3), table(3)
    assert np.shares_memory(one, two)
    assert not one.flags.writeable
    assert table.cache.discard() == 0
    del one, two
    assert table.cache.discard() == 1
    assert (table(3) == 3).all()
    assert computed == [3, 3]
    info = table.cache_info()
    assert (info.hits, info.misses, info.purged, info.regenerated) == (1, 1, 1, 2)
    table.cache_clear()
    info = table.cache_info()
    assert (info.hits, info.misses, info.purged, info.entries) == (0, 0, 0, 0)


def test_small_arrays_are_read_only_from_the_first_answer_on() -> None:
    made = []

    @cached
    def row(n: int) -> Any:
        made.append(np.full(3, n))
        return made[-1]

    first, second = row(7), row(7)
    assert not first.flags.writeable
    assert not second.flags.writeable
    made[0][0] = 8  # what the function made stays its own
    assert (first == 7).all()
    assert (row(7) == 7).all()
    assert len(made) == 1


@pytest.mark.parametrize("hot_bytes", [0, "auto"])
def test_expiry(hot_bytes: int | str) -> None:
    calls = []

    @cached(ttl=0.3, hot_bytes=hot_bytes)
    def function(n: int) -> int:
        calls.append(time.monotonic())
        return n

    while len(calls) < 2:
        assert function(1) == 1
    assert calls[1] - calls[0] >= 0.29
    assert function.cache_info().misses == 2


def test_results_of_any_kind_and_what_can_not_be_cached() -> None:
    @cached
    def same(make: Callable[[], Any]) -> Any:
        return make()

    def nothing() -> None:
        return None

    assert same(nothing) is None
    assert same(nothing) is None
    assert same.cache_info().hits == 1
    assert same(dict) == {}
    with pytest.warns(NotKeptWarning, match=r"same\(\): a value of type generator is not cached"):
        assert list(same(lambda: (n for n in range(2)))) == [0, 1]


def test_coroutine_functions() -> None:
    calls = []

    @cached(name="async")
    async def load(n: Any, *, by: int = 1) -> list[int]:
        """Loads."""
        calls.append(n)
        await asyncio.sleep(0.001)
        if n < 0:
            raise ValueError("negative")
        return [n * by]

    async def main() -> list[list[int]]:
        with pytest.raises(ValueError, match="negative"):
            await load(-1)
        with pytest.raises(TypeError, match="unhashable"):
            await load([])
        return await asyncio.gather(*(load(1, by=2) for _ in range(10)), load(1))

    assert inspect.iscoroutinefunction(load)
    assert load.__doc__ == "Loads."
    assert asyncio.run(main()) == [[2]] * 10 + [[1]]
    assert calls == [-1, 1, 1]
    assert asyncio.run(load(1)) == [1], "on another loop"
    assert calls == [-1, 1, 1]
    info = load.cache_info()
    assert (info.name, info.regenerated, info.hits) == ("async", 2, 10)  # nine waited
    load.cache_clear()
    assert asyncio.run(load(1)) == [1]
    assert len(calls) == 4

    class Thing:
        @cached
        async def method(self, n: int) -> int:
            return n

    thing = Thing()
    assert asyncio.run(thing.method(3)) == 3
    assert asyncio.run(thing.method(3)) == 3
    assert Thing.method.cache_info().hits == 1


def test_many_threads_compute_once() -> None:
    calls: list[int] = []

    @cached
    def slow(n: int) -> bytes:
        calls.append(n)
        threading.Event().wait(0.005)
        return bytes(3000)

    def ask() -> None:
        for n in range(10):
            assert len(slow(n)) == 3000

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(calls) == list(range(10))


def test_after_its_cache_was_closed() -> None:
    function = cached(repr)
    function(1)
    function(1)
    function.cache.close()
    for n in (1, 2):
        with pytest.raises(ValueError, match="is closed"):
            function(n)


def test_keys_whose_comparison_fails() -> None:
    class Odd:
        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError("comparing")

    function = cached(repr)
    first = Odd()
    function(first)
    with pytest.raises(ZeroDivisionError, match="comparing"):
        function(Odd())
    assert function(first) == function(first)


def test_a_call_from_within_the_first_store_does_not_wait_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As from a signal handler, or from a finalizer that the collector runs there."""
    inside: list[int] = []

    @cached
    def square(n: int) -> int:
        return n * n

    def opens_and_calls(*arguments: Any) -> Any:
        inside.append(square(3))
        return open_growing_arena(*arguments)

    monkeypatch.setattr("vrange._cache.address_space.open_growing_arena", opens_and_calls)
    assert Worker(square, 2).result() == 4
    assert inside == [9], "computed, and not stored"
    assert square(2) == 4
    assert square.cache_info().hits == 1
