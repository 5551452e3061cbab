"""With copy=True a caller that waited gets a value of its own, also if the value is not stored."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import wait_until
from workers import PATIENCE, Worker, waiters

import vrange
from vrange._core import hit

CALLERS = 5


class Plain:
    def __init__(self) -> None:
        self.numbers = [1]
        self.lock = None


class Locked:
    """Neither can be pickled nor copied."""

    def __init__(self) -> None:
        self.numbers = [1]
        self.lock = threading.Lock()


VALUES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list": (lambda: [1], lambda value: value),
    "nested": (lambda: {"a": ([1],)}, lambda value: value["a"][0]),
    "instance": (Plain, lambda value: value.numbers),
    "can't be copied": (Locked, lambda value: value.numbers),
}


def check_private(answers: list[Any], part: Callable[[Any], Any]) -> None:
    for number, answer in enumerate(answers):
        assert part(answer) == [1], "it was changed by another caller"
        part(answer).append(number)
    assert len({id(part(answer)) for answer in answers}) == len(answers)


@pytest.mark.filterwarnings("ignore::vrange.errors.NotKeptWarning")
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("way", ["skipped", "no room", "removed", "stored"])
def test_each_thread_gets_its_own(kind: str, way: str) -> None:
    make, part = VALUES[kind]
    max_bytes = 0 if way == "no room" else None
    with vrange.VolatileCache[str, Any](copy=True, max_bytes=max_bytes) as cache:
        go = threading.Event()

        @vrange.cached(cache=cache, key=lambda: "k", skip=lambda value: way == "skipped")
        def compute() -> Any:
            assert go.wait(PATIENCE)
            value = make()
            if way == "removed":
                compute.cache_clear()
            return value

        def call() -> Any:
            answer = compute()
            part(answer).append(0)  # at once, before the others have theirs
            part(answer).pop()
            return answer

        workers = [Worker(call) for _ in range(CALLERS)]
        wait_until(lambda: waiting(cache) == CALLERS - 1, "they do not wait")
        go.set()
        check_private([worker.result() for worker in workers], part)
        assert cache._core.under_way == 0


def waiting(cache: Any) -> int:
    flights = [each for each in gc.get_objects() if type(each) is hit.Flight and not each.landed]
    return max((flight.waiting for flight in flights), default=0)


@pytest.mark.filterwarnings("ignore::vrange.errors.NotKeptWarning")
@pytest.mark.parametrize("kind", VALUES)
def test_each_task_gets_its_own(kind: str) -> None:
    make, part = VALUES[kind]

    async def main() -> list[Any]:
        with vrange.VolatileCache[str, Any](copy=True, max_bytes=0) as cache:

            async def compute() -> Any:
                await asyncio.sleep(0.01)
                return make()

            calls = [cache.get_or_compute_async("k", compute) for _ in range(CALLERS)]
            return await asyncio.gather(*calls)

    check_private(asyncio.run(main()), part)


def test_arrays_are_writable_and_their_own() -> None:
    with vrange.VolatileCache[str, Any](copy=True, max_bytes=0) as cache:
        go = threading.Event()

        def compute() -> Any:
            assert go.wait(PATIENCE)
            return {"a": np.zeros(1000), "b": [np.arange(3)]}

        workers = [Worker(cache.get_or_compute, "k", compute) for _ in range(CALLERS)]
        wait_until(lambda: waiters(cache, "k") == CALLERS - 1, "they do not wait")
        go.set()
        answers = [worker.result() for worker in workers]
        for answer in answers:
            assert (answer["a"] == 0).all()
            answer["a"] += 1
            answer["b"][0][0] = 7
        assert cache.info().waited == CALLERS - 1


def test_the_function_runs_once_if_its_value_can_be_copied() -> None:
    calls: list[int] = []
    with vrange.VolatileCache[str, Any](copy=True, max_bytes=0) as cache:
        go = threading.Event()

        def compute() -> Any:
            calls.append(1)
            assert go.wait(PATIENCE)
            return [1]

        workers = [Worker(cache.get_or_compute, "k", compute) for _ in range(CALLERS)]
        wait_until(lambda: waiters(cache, "k") == CALLERS - 1, "they do not wait")
        go.set()
        assert [worker.result() for worker in workers] == [[1]] * CALLERS
        assert len(calls) == 1
