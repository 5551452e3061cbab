"""Computations led without Python, where they can be, and no different for it."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any

import numpy as np
import pytest
from moody import Moody
from profiled import functions_called
from support import wait_until, whenever
from workers import PATIENCE, Worker, check_that_none_computes, run_async, switching_every, waiters

from vrange import NotKeptWarning, VolatileCache, cached
from vrange._cache.native_flights import led_here
from vrange._core import hit

SHAPE = (100, 300)


def like_before(n: int) -> np.ndarray[Any, Any]:
    return np.full(SHAPE, n, np.float32)


@pytest.fixture
def cache() -> Any:
    """One that leads natively: it has stored a value."""
    with VolatileCache[Any, Any](hot_bytes=0) as cache:
        cache["before"] = like_before(0)
        yield cache


@pytest.mark.parametrize("options", [{}, {"max_bytes": "16MiB"}, {"typed": True}])
def test_no_python_runs_but_the_function(options: Any) -> None:
    made = [like_before(n) for n in range(4)]
    get: Any = cached(**options)(made.__getitem__)
    get(1)
    for n in (2, 3):
        assert functions_called(partial(get, n)) == []
    for n in (1, 2, 3):
        assert (get(n) == n).all()
    info = get.cache_info()
    assert (info.hits, info.misses, info.purged, info.entries) == (3, 3, 0, 3)
    assert info.regenerated == 3
    assert info.regenerate_seconds > 0


def test_what_the_kernel_took_counts_as_purged(cache: VolatileCache[Any, Any]) -> None:
    for n in range(20):
        cache.get_or_compute(n, partial(like_before, n))
    cache.discard()
    cache.keys()
    assert len(cache) == 0, "what was lost is known as such"
    for n in range(20):
        called = functions_called(partial(cache.get_or_compute, n, partial(like_before, n)))
        assert called[:2] == ["get_or_compute", "like_before"]
        assert "encode" not in called
        assert (cache[n] == n).all()
    info = cache.info()
    assert (info.purged, info.misses) == (20, 20)
    assert info.regenerated == 40


@pytest.mark.parametrize(
    "value", ["text", 12, None, {"a": [1]}, np.arange(3), np.full(SHAPE, 3, "i2")], ids=repr
)
def test_any_value_comes_back(cache: VolatileCache[Any, Any], value: Any) -> None:
    first = cache.get_or_compute("k", lambda: value)
    again = cache.get_or_compute("k", lambda: pytest.fail("it is cached"))
    for back in (first, again):
        assert type(back) is type(value)
        assert np.array_equal(back, value)


def test_arguments_arrive_as_they_were_given() -> None:
    @cached
    def echo(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    calls = [((1,), {}), ((), {}), ((1, "b"), {"c": 2}), ((), {"d": None})]
    for _ in range(2):
        for args, kwargs in calls:
            assert echo(*args, **kwargs) == (args, kwargs)
    assert echo.cache_info().misses == 4


def test_what_it_raises_is_not_cached(cache: VolatileCache[Any, Any]) -> None:
    for error in (ValueError("once"), KeyboardInterrupt(), SystemExit(3)):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as raised:
            cache.get_or_compute("k", fail)
        assert raised.value is error
        check_that_none_computes(cache, "k")
        assert not led_here.get()
    assert cache.info().regenerated == 3, "those that followed"
    assert cache.get_or_compute("k", lambda: 5) == 5


def test_what_can_not_be_stored_is_told(cache: VolatileCache[Any, Any]) -> None:
    lock = threading.Lock()
    with pytest.warns(NotKeptWarning, match="pickle"):
        assert cache.get_or_compute("k", lambda: lock) is lock
    with pytest.raises(TypeError, match="unhashable"):
        cache.get_or_compute([], lambda: like_before(1))
    with pytest.raises(TypeError, match="callable"):
        cache.get_or_compute("k", 3)  # type: ignore[arg-type]
    check_that_none_computes(cache, "k")
    assert cache.get_or_compute("k", lambda: 5) == 5


def test_a_value_without_room_is_returned() -> None:
    with VolatileCache[Any, Any](arena_bytes="1MiB", hot_bytes=0) as cache:
        cache["before"] = like_before(0)
        for n in range(3):
            assert cache.get_or_compute("k", partial(np.full, 2 << 20, n, np.uint8))[-1] == n
        assert cache.info().regenerated == 3


def test_who_comes_meanwhile_waits_for_it(cache: VolatileCache[Any, Any]) -> None:
    go = threading.Event()
    computed: list[int] = []

    def compute() -> Any:
        computed.append(1)
        assert go.wait(PATIENCE)
        return like_before(7)

    leader = Worker(cache.get_or_compute, "k", compute)
    wait_until(lambda: bool(computed), "nobody computes")
    others = [Worker(cache.get_or_compute, "k", compute) for _ in range(5)]
    wait_until(lambda: waiters(cache, "k") == 5, "they do not wait")
    go.set()
    assert all((worker.result() == 7).all() for worker in [leader, *others])
    assert len(computed) == 1
    check_that_none_computes(cache, "k")


def test_who_waited_for_one_that_failed_fails_alike(cache: VolatileCache[Any, Any]) -> None:
    leads, go = threading.Event(), threading.Event()

    def fail() -> None:
        leads.set()
        assert go.wait(PATIENCE)
        raise ValueError("first")

    leader = Worker(cache.get_or_compute, "k", fail)
    assert leads.wait(PATIENCE)
    other = Worker(cache.get_or_compute, "k", lambda: pytest.fail("somebody is at it"))
    wait_until(lambda: waiters(cache, "k") == 1, "it does not wait")
    go.set()
    for worker in (leader, other):
        with pytest.raises(ValueError, match="first"):
            worker.result()
    assert cache.get_or_compute("k", lambda: 8) == 8


def test_a_task_waits_for_a_thread_that_leads_natively(cache: VolatileCache[Any, Any]) -> None:
    leads, go = threading.Event(), threading.Event()

    def compute() -> Any:
        leads.set()
        assert go.wait(PATIENCE)
        return like_before(7)

    leader = Worker(cache.get_or_compute, "k", compute)
    assert leads.wait(PATIENCE)

    async def compute_async() -> None:
        pytest.fail("somebody is at it")

    async def ask() -> Any:
        threading.Timer(0.05, go.set).start()
        return await cache.get_or_compute_async("k", compute_async)

    assert (run_async(ask()) == 7).all()
    assert (leader.result() == 7).all()


def led() -> list[hit.Flight]:
    """What is led in this context, the innermost first."""
    flights, flight = [], led_here.get()
    while flight is not None:
        flights.append(flight)
        flight = flight.outer
    return flights


def test_it_is_led_in_its_context_and_no_longer(cache: VolatileCache[Any, Any]) -> None:
    seen: list[list[hit.Flight]] = []

    def compute() -> Any:
        seen.append(led())
        if len(seen) < 3:
            cache.get_or_compute(len(seen), compute)
        return like_before(1)

    context = copy_context()
    context.run(cache.get_or_compute, 0, compute)
    assert [len(flights) for flights in seen] == [1, 2, 3]
    assert seen[2][1:] == seen[1]
    assert all(flight.landed for flight in seen[2])
    assert context.run(led_here.get) is None


def test_a_computation_asks_for_its_own_key(cache: VolatileCache[Any, Any]) -> None:
    depth = 0

    def compute() -> Any:
        nonlocal depth
        depth += 1
        return like_before(depth) if depth == 4 else cache.get_or_compute("k", compute)

    assert (Worker(cache.get_or_compute, "k", compute).result() == 4).all()
    check_that_none_computes(cache, "k")


@pytest.mark.parametrize("does", ["close", "clear"])
def test_a_computation_ends_the_cache(does: str) -> None:
    cache = VolatileCache[Any, Any](hot_bytes=0)
    cache["before"] = like_before(0)

    def compute() -> Any:
        getattr(cache, does)()
        return like_before(1)

    if does == "close":
        assert (cache.get_or_compute("k", compute) == 1).all()
        with pytest.raises(ValueError, match="closed"):
            cache.get_or_compute("k", lambda: pytest.fail("it is closed"))
    else:
        assert (cache.get_or_compute("k", compute) == 1).all()
        check_that_none_computes(cache, "k")
    cache.close()


def test_keys_that_can_not_be_compared_leave_nothing_behind(
    cache: VolatileCache[Any, Any],
) -> None:
    def compute() -> Any:
        return like_before(1)

    key, other = Moody(), Moody()
    cache[other] = like_before(2)
    before = whenever(cache.info())
    Moody.fails = True
    with pytest.raises(RuntimeError, match="not today"):
        cache.get_or_compute(key, compute)
    Moody.fails = False
    assert whenever(cache.info()) == before
    check_that_none_computes(cache, key)
    assert (cache.get_or_compute(key, compute) == 1).all()


def test_a_flight_whose_key_can_not_be_compared_lands(cache: VolatileCache[Any, Any]) -> None:
    first, second = Moody(), Moody()
    leads, leads_second, go = threading.Event(), threading.Event(), threading.Event()

    def wait() -> Any:
        leads.set()
        assert go.wait(PATIENCE)
        return like_before(1)

    def compute() -> Any:
        leads_second.set()
        wait_until(lambda: waiters(cache, second) == 1, "it does not wait")
        Moody.fails = True
        return like_before(2)

    other = Worker(cache.get_or_compute, first, wait)
    assert leads.wait(PATIENCE)
    failing = Worker(cache.get_or_compute, second, compute)
    assert leads_second.wait(PATIENCE)
    waiting = Worker(cache.get_or_compute, second, lambda: like_before(3))
    assert (failing.result() == 2).all(), "landing compares no keys"
    Moody.fails = False
    assert (waiting.result() == 2).all()
    del cache[second]
    later = Worker(cache.get_or_compute, second, lambda: like_before(4))
    assert (later.result() == 4).all(), "and nothing of it is left"
    go.set()
    assert (other.result() == 1).all()


def test_what_it_refers_to_goes_with_it() -> None:
    class Holder:
        """What a function closes over."""

    def decorate(holder: Holder) -> Callable[[int], Any]:
        @cached(hot_bytes=0)
        def get(n: int) -> Any:
            assert holder
            return like_before(n)

        return get

    holder = Holder()
    gone = weakref.ref(holder)
    get = decorate(holder)
    for n in range(3):
        get(n)
    del get, holder
    gc.collect()
    assert gone() is None


@pytest.fixture
def threads_take_turns() -> Iterator[None]:
    """Every few instructions, so that they meet everywhere."""
    with switching_every(1e-6):
        yield


@pytest.mark.usefixtures("threads_take_turns")
def test_threads_that_ask_for_the_same_keys(cache: VolatileCache[Any, Any]) -> None:
    computed: list[int] = []

    def compute(n: int) -> Any:
        computed.append(n)
        return like_before(n)

    start = threading.Barrier(4, timeout=PATIENCE)

    def work() -> bool:
        start.wait()
        return all((cache.get_or_compute(n, partial(compute, n)) == n).all() for n in range(300))

    workers = [Worker(work) for _ in range(4)]
    assert all(worker.result() for worker in workers)
    assert sorted(computed) == list(range(300))
    check_that_none_computes(cache, *range(300))
