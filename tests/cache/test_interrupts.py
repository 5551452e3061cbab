"""A signal's handler that raises, anywhere: no key stays under way, no lock held, nothing pinned,
and the indexes agree with themselves.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from interrupts import Interrupted, TimeIsUp, everywhere
from support import wait_until
from workers import PATIENCE, Worker, run_async, waiters

from vrange import VolatileCache, cached

Cache = VolatileCache[Any, Any]
BYTES_OF_ARRAY = 12_000


def array(n: int) -> Any:
    return np.full(BYTES_OF_ARRAY // 8, n)


def tree(n: int) -> Any:
    return {"a": array(n), "b": str(n) * 3000}


MADE: dict[str, Callable[[int], Any]] = {
    "small": lambda n: f"value {n}",
    "array": array,
    "tree": tree,
    "str": lambda n: str(n) * 5000,
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(np.array_equal(one, other))


def books_agree(cache: Cache) -> None:
    """What the cache says of itself fits together."""
    cache._core.check()
    assert len(cache) == len(set(cache))
    # What an interrupted call let go of may be given back between these two looks.
    for _ in range(10):
        info = cache.info()
        held = info.pinned_bytes + info.idle_bytes + info.offered_bytes + info.purged_bytes
        if cache._core.bytes == held:
            break
    assert cache._core.bytes == held
    assert cache._account.read().ranges == len(cache._core.handles(None)), "a range nobody knows"


def nothing_is_left(cache: Cache, value: Callable[[int], Any]) -> None:
    """Another thread gets right answers at once, and nothing is pinned but what is hot."""
    assert cache._core.under_way == 0

    def ask() -> None:
        books_agree(cache)
        for n in range(4):
            assert equal(cache.get_or_compute(n, partial(value, n)), value(n))
            assert equal(cache[n], value(n))
        books_agree(cache)

    Worker(ask).result()
    cache._core.cool(None)
    if cache.info().pinned_bytes:
        gc.collect()
    assert cache.info().pinned_bytes == 0


def interrupt(
    options: dict[str, Any], kind: str, act: Callable[[Cache, Callable[[int], Any]], object]
) -> None:
    value = MADE[kind]
    made: list[Cache] = []

    def prepare() -> Callable[[], object]:
        cache = Cache(arena_bytes="1MiB", **options)
        for n in range(3):
            cache[n] = value(n)
            assert equal(cache[n], value(n))
        made.append(cache)
        return lambda: act(cache, value)

    for error in (Interrupted, TimeIsUp):
        for instruction in everywhere(prepare, error):
            cache = made.pop()
            try:
                nothing_is_left(cache, value)
            except BaseException:
                print("interrupted at instruction", instruction)
                raise
            cache.close()
        made.pop().close()


def sets_new(cache: Cache, value: Callable[[int], Any]) -> None:
    cache[3] = value(3)


def sets_again(cache: Cache, value: Callable[[int], Any]) -> None:
    cache[1] = value(1)


def computes(cache: Cache, value: Callable[[int], Any]) -> None:
    cache.get_or_compute(3, lambda: value(3))


def computes_what_was_lost(cache: Cache, value: Callable[[int], Any]) -> None:
    cache.discard(1)
    cache.get_or_compute(1, lambda: value(1))


def asks(cache: Cache, value: Callable[[int], Any]) -> None:
    for _ in range(3):
        assert equal(cache[1], value(1))


def deletes(cache: Cache, value: Callable[[int], Any]) -> None:
    del cache[1]


def pops(cache: Cache, value: Callable[[int], Any]) -> None:
    cache.pop(1)
    cache.pop(3, None)
    cache.popitem()


def clears(cache: Cache, value: Callable[[int], Any]) -> None:
    cache.clear()


def discards_and_counts(cache: Cache, value: Callable[[int], Any]) -> None:
    cache.discard(1)
    cache.discard()
    len(cache)
    cache.info()


def looks_at_all(cache: Cache, value: Callable[[int], Any]) -> None:
    for _, found in cache.items():
        assert found is not None
    assert 1 in cache


def awaits(cache: Cache, value: Callable[[int], Any]) -> None:
    async def compute() -> Any:
        return value(3)

    for _ in range(2):
        coroutine = cache.get_or_compute_async(3, compute)
        try:
            coroutine.send(None)
        except StopIteration:
            continue
        pytest.fail("it waits for something")


OPTIONS: dict[str, dict[str, Any]] = {
    "hot": {},
    "not hot": {"hot_bytes": 0},
    "ttl": {"ttl": 1000},
    "bounded": {"max_bytes": "128KiB"},
}


@pytest.mark.filterwarnings("ignore:coroutine", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["small", "array", "tree"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("act", [sets_new, sets_again, computes, asks, awaits])
def test_whatever_is_stored_and_asked(
    act: Callable[[Cache, Callable[[int], Any]], object], options: str, kind: str
) -> None:
    interrupt(OPTIONS[options], kind, act)


@pytest.mark.parametrize("kind", ["small", "array"])
@pytest.mark.parametrize("options", ["hot", "ttl"])
@pytest.mark.parametrize(
    "act",
    [computes_what_was_lost, deletes, pops, clears, discards_and_counts, looks_at_all],
)
def test_whatever_is_forgotten(
    act: Callable[[Cache, Callable[[int], Any]], object], options: str, kind: str
) -> None:
    interrupt(OPTIONS[options], kind, act)


def test_the_next_to_ask_after_storms_of_signals() -> None:
    """Timers that raise at random, as interrupts.py can't: also within native code."""
    draw = random.Random(7)

    def handler(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, handler)
    caches = [Cache(ttl=1000), Cache(), Cache(hot_bytes=0, max_bytes="1MiB")]
    interrupted = 0
    try:
        until = time.monotonic() + 3
        turn = 0
        while time.monotonic() < until:
            turn += 1
            cache, n = caches[turn % 3], turn % 40
            value, got = MADE["array" if n % 2 else "small"], None
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(2e-6, 150e-6))
                    if turn % 7 == 0:
                        cache[n] = value(n)
                    elif turn % 11 == 0:
                        cache.pop(n, None)
                    elif turn % 101 == 0:
                        cache.clear()
                    else:
                        got = cache.get_or_compute(n, partial(value, n))
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                assert got is None or equal(got, value(n))
            except TimeIsUp:
                interrupted += 1
            if turn % 50 == 0:
                Worker(books_agree, cache).result()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10
    got = None
    gc.collect()
    for cache in caches:
        nothing_is_left(cache, lambda n: MADE["array" if n % 2 else "small"](n))
        cache.close()


def test_one_who_waits_is_interrupted_and_the_others_are_not() -> None:
    with Cache(hot_bytes=0) as cache:
        go = threading.Event()

        def compute() -> str:
            assert go.wait(PATIENCE)
            return "computed"

        leader = Worker(cache.get_or_compute, "k", compute)
        wait_until(lambda: cache._core.flight("k"), "nobody leads")

        def handler(*_: object) -> None:
            raise TimeIsUp

        before = signal.signal(signal.SIGALRM, handler)
        try:
            for _ in range(20):
                signal.setitimer(signal.ITIMER_REAL, 0.003)
                with pytest.raises(TimeIsUp):
                    cache.get_or_compute("k", compute)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert waiters(cache, "k") == 0, "nobody waits any more"
        other = Worker(cache.get_or_compute, "k", compute)
        wait_until(lambda: waiters(cache, "k") == 1, "it does not wait")
        go.set()
        assert other.result() == leader.result() == "computed"


def test_waiting_is_interrupted_anywhere() -> None:
    def prepare() -> Callable[[], object]:
        cache = Cache(hot_bytes=0)
        go = threading.Event()
        leader = Worker(cache.get_or_compute, "k", lambda: go.wait(PATIENCE) and "computed")
        wait_until(lambda: cache._core.flight("k"), "nobody leads")
        threading.Timer(0.002, go.set).start()
        made.append((cache, leader))
        return lambda: cache.get_or_compute("k", lambda: "own")

    made: list[tuple[Cache, Worker]] = []
    for _ in everywhere(prepare):
        cache, leader = made.pop()
        assert leader.result() == "computed"
        assert cache._core.under_way == 0
        assert Worker(cache.get_or_compute, "j", lambda: "free").result() == "free"
        cache.close()


def test_tasks_are_cancelled_anywhere() -> None:
    async def compute(steps: int) -> str:
        for _ in range(steps):
            await asyncio.sleep(0)
        return "computed"

    async def main() -> None:
        for steps in range(6):
            with Cache(hot_bytes=0) as cache:

                async def ask(cache: Cache = cache) -> Any:
                    return await cache.get_or_compute_async("k", lambda: compute(3))

                tasks = [asyncio.ensure_future(ask()) for _ in range(3)]
                for _ in range(steps):
                    await asyncio.sleep(0)
                tasks[0].cancel()
                others = await asyncio.gather(*tasks[1:])
                assert others == ["computed"] * 2
                assert cache._core.under_way == 0
                assert await ask() == "computed"

    run_async(main())


def test_a_task_that_nobody_goes_on_with_lands() -> None:
    """Closed, thrown into, or just let go in the midst of its computation."""

    async def compute() -> str:
        await asyncio.sleep(0)
        return "computed"

    def closes(coroutine: Any) -> None:
        coroutine.close()

    def throws(coroutine: Any) -> None:
        with pytest.raises(Interrupted):
            coroutine.throw(Interrupted())

    def lets_go(coroutine: Any) -> None:
        del coroutine

    for ends in (closes, throws, lets_go):
        with Cache(hot_bytes=0) as cache:
            coroutine = cache.get_or_compute_async("k", compute)
            coroutine.send(None)
            assert cache._core.flight("k")
            holder = [coroutine]
            del coroutine
            ends(holder.pop())
            gc.collect()
            assert cache._core.under_way == 0
            assert run_async(cache.get_or_compute_async("k", compute)) == "computed"


def test_a_loop_that_was_closed_leaves_its_keys() -> None:
    with Cache(hot_bytes=0) as cache:
        held: list[Any] = []

        async def never() -> str:
            await asyncio.sleep(3600)
            return "never"

        async def leave() -> None:
            held.append(asyncio.ensure_future(cache.get_or_compute_async("k", never)))
            await asyncio.sleep(0.01)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        waiting = Worker(cache.get_or_compute, "k", lambda: "of a thread")
        wait_until(lambda: waiters(cache, "k") == 1, "it does not wait")
        loop.close()
        assert waiting.result() == "of a thread"
        cache.clear()

        async def compute() -> str:
            return "anew"

        assert run_async(cache.get_or_compute_async("k", compute)) == "anew"
        for task in held:
            task._log_destroy_pending = False
            task.get_coro().close()
        held.clear()


def test_a_decorated_function_asks_for_its_own_key_in_another_context() -> None:
    import contextvars

    context = contextvars.copy_context()
    calls: list[int] = []

    @cached
    def get(n: int) -> int:
        calls.append(n)
        return context.run(get, n) + 1 if len(calls) == 1 else 1

    assert Worker(get, 1).result() == 2
