"""One computation per key at a time, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import wait_until
from workers import PATIENCE, SingleFlight, Worker, check_that_none_computes, waiters

import vrange


@pytest.fixture
def flights() -> SingleFlight:
    return SingleFlight()


def test_one_computes_and_all_get_it(cache: vrange.VolatileCache[Any, Any]) -> None:
    calls: list[int] = []
    go = threading.Event()

    def compute() -> Any:
        calls.append(1)
        assert go.wait(PATIENCE)
        return np.arange(50_000)

    workers = [Worker(cache.get_or_compute, "k", compute) for _ in range(12)]
    wait_until(lambda: waiters(cache, "k") == 11, "they do not wait")
    go.set()
    results = [worker.result() for worker in workers]
    assert len(calls) == 1
    assert all((result == np.arange(50_000)).all() for result in results)
    assert cache.info().regenerated == 1
    info = cache.info()
    assert (info.misses, info.waited, info.hits) == (1, 11, 11)


def test_each_that_waits_for_a_value_of_its_own_counts_once(
    cache: vrange.VolatileCache[Any, Any],
) -> None:
    go = threading.Event()

    def compute() -> list[int]:
        assert go.wait(PATIENCE)
        return [1, 2, 3]

    workers = [Worker(cache.get_or_compute, "k", compute) for _ in range(5)]
    wait_until(lambda: waiters(cache, "k") == 4, "they do not wait")
    go.set()
    lists = [worker.result() for worker in workers]
    assert lists == [[1, 2, 3]] * 5
    assert len(set(map(id, lists))) == 5
    info = cache.info()
    assert (info.misses, info.waited, info.hits) == (1, 4, 4)


def test_each_task_that_waits_for_a_value_of_its_own_counts_once(
    cache: vrange.VolatileCache[Any, Any],
) -> None:
    async def compute() -> list[int]:
        await asyncio.sleep(0.01)
        return [1, 2, 3]

    async def ask_all() -> Any:
        return await asyncio.gather(*(cache.get_or_compute_async("k", compute) for _ in range(5)))

    assert asyncio.run(ask_all()) == [[1, 2, 3]] * 5
    info = cache.info()
    assert (info.misses, info.waited, info.hits) == (1, 4, 4)


def test_a_shared_error_does_not_collect_the_frames_of_its_waiters(
    cache: vrange.VolatileCache[Any, Any],
) -> None:
    go = threading.Event()

    def compute() -> Any:
        assert go.wait(PATIENCE)
        raise ValueError("refused")

    def ask() -> list[str]:
        try:
            cache.get_or_compute("k", compute)
        except ValueError as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return []

    workers = [Worker(ask) for _ in range(20)]
    wait_until(lambda: waiters(cache, "k") == 19, "they do not wait")
    go.set()
    for names in [worker.result() for worker in workers]:
        assert "compute" in names
        assert len(names) < 20, "the frames of other callers are in it"


def test_other_keys_are_not_waited_for(flights: SingleFlight) -> None:
    inside = threading.Event()
    leave = threading.Event()

    def slow() -> int:
        inside.set()
        assert leave.wait(PATIENCE)
        return 1

    first = Worker(flights.run, "a", slow)
    assert inside.wait(PATIENCE)
    assert Worker(flights.run, "b", lambda: 2).result() == 2
    leave.set()
    assert first.result() == 1
    assert not flights.under_way


def test_those_who_wait_share_the_leaders_exception(flights: SingleFlight) -> None:
    calls: list[int] = []
    go = threading.Event()

    def compute() -> str:
        calls.append(1)
        assert go.wait(PATIENCE)
        raise ZeroDivisionError("first")

    first = Worker(flights.run, "k", compute)
    wait_until(lambda: flights._core.flight("k"), "nobody leads")
    others = [Worker(flights.run, "k", compute) for _ in range(3)]
    wait_until(lambda: waiters(flights, "k") == 3, "they do not wait")
    go.set()
    raised = []
    for worker in (first, *others):
        with pytest.raises(ZeroDivisionError, match="first") as caught:
            worker.result()
        raised.append(caught.value)
    assert len(set(map(id, raised))) == 1
    assert calls == [1]
    assert not flights.under_way
    assert flights.run("k", lambda: "anew") == "anew"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_thread_is_its_own_and_the_next_leads(
    flights: SingleFlight, error: type[BaseException]
) -> None:
    go = threading.Event()

    def end() -> str:
        assert go.wait(PATIENCE)
        raise error

    first = Worker(flights.run, "k", end)
    wait_until(lambda: flights._core.flight("k"), "nobody leads")
    others = [Worker(flights.run, "k", lambda: "computed") for _ in range(3)]
    wait_until(lambda: waiters(flights, "k") == 3, "they do not wait")
    go.set()
    with pytest.raises(error):
        first.result()
    assert [other.result() for other in others] == ["computed"] * 3
    assert not flights.under_way


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_even_what_ends_a_thread_lands(flights: SingleFlight, error: type[BaseException]) -> None:
    def compute() -> None:
        raise error

    with pytest.raises(error):
        flights.run("k", compute)
    assert Worker(flights.run, "k", lambda: 1).result() == 1


def test_who_asks_for_the_own_key_computes(flights: SingleFlight) -> None:
    depth = 0

    def compute() -> int:
        nonlocal depth
        depth += 1
        return depth if depth == 5 else int(flights.run("k", compute))

    assert Worker(flights.run, "k", compute).result() == 5


def test_two_threads_that_need_each_others_keys(flights: SingleFlight) -> None:
    both = threading.Barrier(2, timeout=PATIENCE)

    def compute(mine: str, other: str) -> Callable[[], str]:
        def first() -> str:
            both.wait()
            return f"{mine}{flights.run(other, lambda: other)}"

        return first

    one = Worker(flights.run, "a", compute("a", "b"))
    two = Worker(flights.run, "b", compute("b", "a"))
    results = {one.result(), two.result()}
    assert results <= {"ab", "ba", "aba", "bab"}
    assert not flights.under_way


def test_a_ring_of_threads_and_two_caches() -> None:
    names = ["a", "b", "c", "d", "e"]
    both = threading.Barrier(5, timeout=PATIENCE)
    caches = [vrange.VolatileCache[Any, Any](arena_bytes="1MiB") for _ in range(2)]

    def ask(n: int, depth: int) -> int:
        def compute() -> int:
            if depth == 0:
                both.wait()
            return depth if depth == 6 else ask((n + 1) % 5, depth + 1)

        return int(caches[n % 2].get_or_compute(names[n], compute))

    workers = [Worker(ask, n, 0) for n in range(5)]
    assert all(0 <= worker.result() <= 6 for worker in workers)
    for cache in caches:
        check_that_none_computes(cache, *names)
        cache.close()
