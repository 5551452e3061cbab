"""What cachebox, moka and theine test of a stampede, and async-lru of tasks, written anew.

Many callers ask for a missing key at once: one computes, all get its value or its exception.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from workers import PATIENCE, Worker

import vrange


def stampede(function: Callable[[], Any], callers: int) -> list[Any]:
    start = threading.Barrier(callers, timeout=PATIENCE)

    def ask() -> Any:
        start.wait()
        try:
            return function()
        except LookupError as error:
            return error

    workers = [Worker(ask) for _ in range(callers)]
    return [worker.result() for worker in workers]


def test_threads_compute_once() -> None:
    calls: list[int] = []

    @vrange.cached
    def load(key: int) -> str:
        calls.append(key)
        time.sleep(0.05)
        return f"value {key}"

    assert stampede(lambda: load(1), 16) == ["value 1"] * 16
    assert calls == [1]


def test_keys_do_not_wait_for_each_other() -> None:
    inside = threading.Barrier(4, timeout=PATIENCE)

    @vrange.cached
    def load(key: int) -> int:
        inside.wait()  # all four have to be inside at once
        return key

    workers = [Worker(load, key) for key in range(4)]
    assert [worker.result() for worker in workers] == [0, 1, 2, 3]


def test_an_exception_reaches_all_and_is_not_cached() -> None:
    calls: list[int] = []

    @vrange.cached
    def load() -> str:
        calls.append(1)
        time.sleep(0.05)
        if len(calls) == 1:
            raise LookupError("first")
        return "second"

    errors = stampede(load, 8)
    assert all(isinstance(error, LookupError) for error in errors)
    assert calls == [1]
    assert load() == "second"


def test_a_stampede_on_an_expired_entry() -> None:
    calls: list[int] = []

    @vrange.cached(ttl=0.05)
    def load() -> int:
        calls.append(1)
        time.sleep(0.2)
        return len(calls)

    assert load() == 1
    time.sleep(0.1)
    assert stampede(load, 8) == [2] * 8


def test_tasks_compute_once() -> None:
    calls: list[int] = []

    @vrange.cached
    async def load(key: int) -> int:
        calls.append(key)
        await asyncio.sleep(0.02)
        return key * 2

    async def main() -> list[int]:
        return list(await asyncio.gather(*[load(n % 2) for n in range(20)]))

    assert asyncio.run(main()) == [0, 2] * 10
    assert sorted(calls) == [0, 1]
    assert asyncio.run(main()) == [0, 2] * 10, "another loop finds the values"
    assert sorted(calls) == [0, 1]


def test_tasks_share_an_exception_which_is_not_cached() -> None:
    calls: list[int] = []

    @vrange.cached
    async def load() -> int:
        calls.append(1)
        await asyncio.sleep(0.01)
        raise LookupError("each time")

    async def main() -> list[Any]:
        return await asyncio.gather(*[load() for _ in range(5)], return_exceptions=True)

    for computed in (1, 2):
        assert all(isinstance(error, LookupError) for error in asyncio.run(main()))
        assert len(calls) == computed


def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    @vrange.cached
    async def load() -> str:
        await asyncio.sleep(0.05)
        return "value"

    async def main() -> None:
        tasks = [asyncio.ensure_future(load()) for _ in range(4)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()  # the one that computes
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert await asyncio.gather(*tasks[2:]) == ["value", "value"]

    asyncio.run(main())


def test_async_lru_s_methods_of_the_wrapper() -> None:
    class Service:
        def __init__(self) -> None:
            self.calls = 0

        @vrange.cached(maxsize=8)
        async def get(self, key: int) -> int:
            self.calls += 1
            return key + self.calls

    service, other = Service(), Service()

    async def main() -> None:
        assert [await service.get(1), await service.get(1), await other.get(1)] == [2, 2, 2]
        hits, misses, maxsize, currsize = Service.get.cache_info()
        assert (hits, misses, maxsize, currsize) == (1, 2, 8, 2)
        assert Service.get.cache_parameters()["maxsize"] == 8
        Service.get.cache_clear()
        assert await service.get(1) == 3

    asyncio.run(main())
