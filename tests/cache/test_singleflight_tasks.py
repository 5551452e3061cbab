"""One computation per key at a time, across tasks, and across tasks and threads."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import time
import types
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from support import wait_until
from workers import PATIENCE, SingleFlight, Worker, check_that_none_computes, run_async, waiters

import vrange


@pytest.fixture
def flights() -> SingleFlight:
    return SingleFlight()


@types.coroutine
def suspend() -> Iterator[None]:
    yield


def test_tasks_share_one_computation(cache: vrange.VolatileCache[Any, Any]) -> None:
    calls: list[int] = []

    async def compute() -> bytes:
        calls.append(1)
        await asyncio.sleep(0.01)
        return b"x" * 5000

    async def main() -> list[bytes]:
        asking = [cache.get_or_compute_async("k", compute) for _ in range(20)]
        return list(await asyncio.gather(*asking))

    assert run_async(main()) == [b"x" * 5000] * 20
    assert calls == [1]
    assert run_async(main()) == [b"x" * 5000] * 20
    assert calls == [1]


def test_threads_and_tasks_share_one_computation(cache: vrange.VolatileCache[Any, Any]) -> None:
    go = threading.Event()

    def compute() -> str:
        assert go.wait(PATIENCE)
        return "from the thread"

    leader = Worker(cache.get_or_compute, "k", compute)
    wait_until(lambda: cache._core.flight("k"), "nobody leads")

    async def never() -> str:
        raise AssertionError("the thread computes")

    async def main() -> list[str]:
        waiting = [asyncio.ensure_future(cache.get_or_compute_async("k", never)) for _ in range(3)]
        while waiters(cache, "k") < 3:
            await asyncio.sleep(0)
        go.set()
        return list(await asyncio.gather(*waiting))

    assert run_async(main()) == ["from the thread"] * 3
    assert leader.result() == "from the thread"

    async def compute_async() -> str:
        await asyncio.get_running_loop().run_in_executor(None, waiting_thread.wait, PATIENCE)
        wait_until(lambda: waiters(cache, "j") == 1, "the thread does not wait")
        return "from the task"

    waiting_thread = threading.Event()

    def ask() -> Any:
        wait_until(lambda: cache._core.flight("j"), "no task leads")
        waiting_thread.set()
        return cache.get_or_compute("j", lambda: "from another thread")

    thread = Worker(ask)
    assert run_async(cache.get_or_compute_async("j", compute_async)) == "from the task"
    assert thread.result() == "from the task"


@pytest.mark.parametrize("who", ["leader", "waiter"])
def test_cancelling_one_leaves_the_others(flights: SingleFlight, who: str) -> None:
    calls: list[int] = []

    async def compute() -> int:
        calls.append(1)
        await asyncio.sleep(0 if len(calls) > 1 else 0.05)
        return len(calls)

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(flights.run_async("k", compute)) for _ in range(4)]
        await asyncio.sleep(0.01)
        tasks[0 if who == "leader" else 2].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = run_async(main())
    cancelled = 0 if who == "leader" else 2
    assert isinstance(results[cancelled], asyncio.CancelledError)
    computed = 2 if who == "leader" else 1
    assert [r for n, r in enumerate(results) if n != cancelled] == [computed] * 3
    assert len(calls) == computed
    assert not flights.under_way


def test_tasks_share_what_the_leader_raised(flights: SingleFlight) -> None:
    calls: list[int] = []

    async def compute() -> Any:
        calls.append(1)
        await asyncio.sleep(0.01)
        raise ValueError("first")

    async def main() -> list[Any]:
        tasks = [flights.run_async("k", compute) for _ in range(3)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [(type(result), str(result)) for result in run_async(main())] == [
        (ValueError, "first")
    ] * 3
    assert calls == [1]


def test_re_entrant_coroutines(flights: SingleFlight) -> None:
    async def compute(depth: int) -> int:
        if depth == 4:
            return depth
        return int(await flights.run_async("k", lambda: compute(depth + 1)))

    assert run_async(flights.run_async("k", lambda: compute(0))) == 4

    async def child_task() -> int:
        # A task started inside of a computation belongs to it.
        return int(await asyncio.ensure_future(flights.run_async("k", lambda: compute(4))))

    assert run_async(flights.run_async("k", child_task)) == 4


def test_two_tasks_that_need_each_others_keys(flights: SingleFlight) -> None:
    async def compute(mine: str, other: str) -> str:
        await asyncio.sleep(0.01)

        async def plain() -> str:
            return other

        return f"{mine}{await flights.run_async(other, plain)}"

    async def main() -> Any:
        return await asyncio.gather(
            flights.run_async("a", lambda: compute("a", "b")),
            flights.run_async("b", lambda: compute("b", "a")),
        )

    assert len(run_async(main())) == 2
    assert not flights.under_way


def test_a_call_that_blocks_the_loop_does_not_wait_for_its_tasks(flights: SingleFlight) -> None:
    async def leads() -> str:
        await asyncio.sleep(0.05)
        return "task"

    async def main() -> tuple[str, str]:
        task = asyncio.ensure_future(flights.run_async("k", leads))
        await asyncio.sleep(0.01)
        return flights.run("k", lambda: "blocking call"), await task

    assert Worker(run_async, main()).result() == ("blocking call", "task")


def test_nor_does_anybody_wait_for_the_tasks_of_a_loop_that_waits_for_him(
    flights: SingleFlight,
) -> None:
    """The loop's thread waits for key f of a thread, which then wants key g of a task there."""
    blocked = threading.Event()

    async def leads_g() -> str:
        await asyncio.sleep(0.05)
        return "g"

    def computes_f() -> str:
        assert blocked.wait(PATIENCE)
        wait_until(lambda: waiters(flights, "f") == 1, "the loop does not wait")
        return f"f{flights.run('g', lambda: 'own g')}"

    async def main() -> str:
        task = asyncio.ensure_future(flights.run_async("g", leads_g))
        await asyncio.sleep(0.01)
        blocked.set()
        return f"{flights.run('f', lambda: 'own f')}{await task}"

    thread = Worker(flights.run, "f", computes_f)
    wait_until(lambda: flights._core.flight("f"), "nobody leads")
    assert Worker(run_async, main()).result() == "fown gg"
    assert thread.result() == "fown g"


def test_a_leader_closed_in_another_context_lands(flights: SingleFlight) -> None:
    async def never() -> None:
        await suspend()

    leader = flights.run_async("k", never)
    contextvars.copy_context().run(leader.send, None)
    leader.close()
    assert Worker(flights.run, "k", lambda: 3).result() == 3


def test_a_loop_that_ended_is_not_woken(
    flights: SingleFlight, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()
    leader = Worker(flights.run, "k", lambda: go.wait(PATIENCE))
    wait_until(lambda: flights._core.flight("k"), "nobody leads")

    async def never() -> None:
        raise AssertionError

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flights.run_async("k", never), 0.02)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
        go.set()
        assert leader.result()
        time.sleep(0)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING], caplog.text


class Value:
    pass


def test_a_task_that_outlives_its_computation_does_not_hold_the_value() -> None:
    flights = SingleFlight()

    async def main() -> None:
        stop = asyncio.Event()

        async def compute() -> Value:
            background.append(asyncio.ensure_future(stop.wait()))
            return Value()

        background: list[Any] = []
        alive = weakref.ref(await flights.run_async("k", compute))
        gc.collect()
        assert alive() is None, "a value that nobody holds is volatile"
        stop.set()
        await asyncio.gather(*background)

    run_async(main())


def test_tasks_of_trio_share_one_computation() -> None:
    trio = pytest.importorskip("trio")
    calls: list[int] = []

    @vrange.cached
    async def get(n: int) -> int:
        calls.append(n)
        await trio.sleep(0.01)
        return n * 2

    async def main() -> list[int]:
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await get(2))

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ask)
        return answers

    assert trio.run(main) == [4, 4, 4]
    assert calls == [2]


def test_a_task_of_trio_waits_for_a_thread(cache: vrange.VolatileCache[Any, Any]) -> None:
    trio = pytest.importorskip("trio")
    go = threading.Event()
    leader = Worker(cache.get_or_compute, "k", lambda: go.wait(PATIENCE) and "of the thread")
    wait_until(lambda: cache._core.flight("k"), "nobody leads")

    async def never() -> str:
        raise AssertionError("the thread computes")

    async def main() -> str:
        threading.Timer(0.05, go.set).start()
        with trio.fail_after(PATIENCE):
            return str(await cache.get_or_compute_async("k", never))

    assert trio.run(main) == leader.result() == "of the thread"


def test_a_task_of_something_else_computes_itself(cache: vrange.VolatileCache[Any, Any]) -> None:
    """Nobody could wake it."""

    async def compute(what: str) -> str:
        await suspend()
        return what

    first = cache.get_or_compute_async("k", lambda: compute("first"))
    second = cache.get_or_compute_async("k", lambda: compute("second"))
    for coroutine in (first, second):
        coroutine.send(None)
    for coroutine, expected in ((second, "second"), (first, "first")):
        with pytest.raises(StopIteration) as stopped:
            coroutine.send(None)
        assert stopped.value.value == expected
    check_that_none_computes(cache, "k")


class Later:
    """What is awaited without being a coroutine."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, None, int]:
        yield from asyncio.sleep(0).__await__()
        return self.value


async def in_a_task(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def failing_task() -> int:
    await asyncio.sleep(0)
    raise OSError("refused")


@pytest.mark.parametrize("max_entries", [None, 0])
def test_a_computation_may_be_any_awaitable(max_entries: int | None) -> None:
    async def main() -> None:
        with vrange.VolatileCache[str, int](name="awaitables", max_entries=max_entries) as cache:
            task = cache.get_or_compute_async("task", lambda: asyncio.ensure_future(in_a_task(1)))
            assert await task == 1
            assert await cache.get_or_compute_async("own", lambda: Later(2)) == 2
            with pytest.raises(OSError, match="refused"):
                await cache.get_or_compute_async(
                    "fails", lambda: asyncio.create_task(failing_task())
                )
            with pytest.raises(TypeError, match="must return an awaitable, not 3"):
                await cache.get_or_compute_async("none", lambda: 3)  # type: ignore[arg-type,return-value]
            # Nothing is left under way that the next caller would wait for.
            for key in ("fails", "none"):
                assert await cache.get_or_compute_async(key, lambda: in_a_task(4)) == 4

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_task_that_is_awaited_is_cancelled_with_its_caller() -> None:
    async def main() -> None:
        with vrange.VolatileCache[str, int](name="cancelled") as cache:
            inner = asyncio.ensure_future(asyncio.sleep(30, 1))
            outer = asyncio.ensure_future(cache.get_or_compute_async("key", lambda: inner))
            await asyncio.sleep(0.01)
            outer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await outer
            assert inner.cancelled()
            assert await cache.get_or_compute_async("key", lambda: in_a_task(5)) == 5

    asyncio.run(asyncio.wait_for(main(), 20))
