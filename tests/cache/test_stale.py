"""ttl=, stale=: a value that is no longer fresh is answered while it is computed again."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import gc
import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import trio
from support import succeeds, wait_until
from workers import Worker, run_async

import vrange
from vrange._cache import refresh

# A busy machine may not look while a value is fresh: tests wait for what stays (answers, counts).
TTL = 0.02
STALE = 1000.0


class Source:
    """Counts its computations; each returns a larger number."""

    def __init__(self) -> None:
        self.computed = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, *args: object) -> int:
        self.gate.wait(20)
        self.computed += 1
        return self.computed

    async def coroutine(self) -> int:
        self.computed += 1
        return self.computed


def none_left() -> bool:
    return refresh.threads() == 0


@pytest.fixture(autouse=True)
def _ends() -> Any:
    yield
    wait_until(none_left, "a thread still refreshes")


def new_cache(**parameters: Any) -> vrange.VolatileCache[Any, Any]:
    return vrange.VolatileCache(ttl=TTL, stale=STALE, **parameters)


def until_stale(cache: vrange.VolatileCache[Any, Any], key: object = "k") -> None:
    wait_until(lambda: key not in cache, "it stays fresh")


@pytest.mark.parametrize("hot_bytes", [0, "auto"])
def test_a_stale_value_is_answered_and_computed_again(hot_bytes: Any) -> None:
    source = Source()
    with new_cache(hot_bytes=hot_bytes) as cache:
        assert cache.get_or_compute("k", source) == 1
        until_stale(cache)
        source.gate.clear()  # a computation takes long from now on
        assert [cache.get_or_compute("k", source) for _ in range(20)] == [1] * 20
        source.gate.set()
        wait_until(lambda: source.computed == 2 and none_left(), "it is not renewed")
        source.gate.clear()  # on a slow machine it is stale again by now
        assert cache.get_or_compute("k", source) == 2
        assert cache.info().misses == 1
        assert cache.info().regenerated == 2
        cache._core.check()
        source.gate.set()


def test_a_decorated_function_is_called_with_the_arguments_of_the_call() -> None:
    calls: list[Any] = []

    @vrange.cached(ttl=TTL, stale=STALE)
    def rows(a: int, *, b: int) -> Any:
        calls.append((a, b))
        return np.full(10_000, len(calls))

    assert rows(1, b=2)[0] == 1
    wait_until(lambda: not rows.cache_contains(1, b=2), "it stays fresh")
    assert rows(1, b=2)[0] == 1
    wait_until(lambda: len(calls) == 2 and none_left(), "it is not renewed")
    assert calls == [(1, 2)] * 2
    assert rows(1, b=2)[0] == 2
    sizes: list[int] = []

    class Table:
        @vrange.cached(ttl=TTL, stale=STALE)
        def size(self, n: int) -> tuple[int, int]:
            sizes.append(n)
            return n, len(sizes)

    table = Table()
    first = table.size(7)
    wait_until(lambda: not table.size.cache_contains(7), "it stays fresh")
    assert table.size(7) == first
    wait_until(lambda: len(sizes) == 2 and none_left(), "it is not renewed")
    assert table.size(7) == (7, 2)


def test_tasks_get_it_and_a_task_computes_it() -> None:
    source = Source()

    async def main() -> None:
        with new_cache() as cache:
            assert await cache.get_or_compute_async("k", source.coroutine) == 1
            until_stale(cache)
            assert await cache.get_or_compute_async("k", source.coroutine) == 1
            assert source.computed == 1
            while (found := await cache.get_or_compute_async("k", source.coroutine)) == 1:
                await asyncio.sleep(0.001)
            assert found == 2
            assert refresh.threads() == 0

    run_async(main())


def test_other_event_loops_wait_for_the_computation() -> None:
    source = Source()

    async def main() -> None:
        with new_cache() as cache:
            for expected in (1, 2):
                assert await cache.get_or_compute_async("k", source.coroutine) == expected
                until_stale(cache)

    trio.run(main)


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.pop("k", None),
        lambda cache: cache.clear(),
        lambda cache: cache.set("k", "set"),
    ],
    ids=["pop", "clear", "set"],
)
def test_what_was_begun_before_a_change_is_not_stored(change: Callable[[Any], Any]) -> None:
    source = Source()
    with new_cache() as cache:
        cache.get_or_compute("k", source)
        until_stale(cache)
        source.gate.clear()
        assert cache.get_or_compute("k", source) == 1
        change(cache)
        source.gate.set()
        wait_until(none_left, "it goes on")
        assert source.computed == 2
        assert cache.get("k") in (None, "set")
        cache._core.check()


def test_nor_where_the_key_is_being_computed_anew() -> None:
    slow, other = Source(), Source()
    with new_cache() as cache:
        cache.get_or_compute("k", slow)
        until_stale(cache)
        slow.gate.clear()
        assert cache.get_or_compute("k", slow) == 1
        with suppress(KeyError):
            del cache["k"]
        other.gate.clear()
        worker = Worker(cache.get_or_compute, "k", lambda: other() * 100)
        wait_until(lambda: cache._core.under_way, "nobody computes")
        slow.gate.set()
        wait_until(none_left, "it goes on")
        other.gate.set()
        assert worker.result() == 100
        assert cache.get("k", 100) == 100
        cache._core.check()


def test_lookups_that_cannot_compute_find_no_stale_value() -> None:
    with new_cache() as cache:
        cache["k"] = 5
        until_stale(cache)
        with pytest.raises(KeyError):
            cache["k"]
        assert cache.get("k") is None
        assert list(cache.items()) == []
        assert cache.get_or_compute("k", lambda: 6) == 5  # which such a lookup does not remove
        wait_until(lambda: cache.get_or_compute("k", lambda: 6) == 6, "it is not renewed")
        assert cache.get("k") in (None, 6)
        wait_until(none_left, "it goes on")
        cache.set("k", 7, ttl=TTL)
        until_stale(cache)
        assert cache.get_or_compute("k", lambda: 8) == 7
        wait_until(none_left, "it goes on")
        until_stale(cache)
        assert cache.pop("k", None) is None
        assert cache.get_or_compute("k", lambda: 9) == 9


def test_after_that_time_callers_wait() -> None:
    source = Source()
    with vrange.VolatileCache[Any, Any](ttl=TTL, stale=TTL) as cache:
        assert cache.get_or_compute("k", source) == 1
        wait_until(lambda: len(cache) == 0, "it does not expire")
        assert cache.get_or_compute("k", source) == 2


def test_a_failure_is_reported_and_the_value_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "_PAUSE_SECONDS", 0.01)
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fails() -> int:
        raise OSError("the database is away")

    with new_cache() as cache:
        cache.get_or_compute("k", lambda: 1)
        until_stale(cache)
        assert cache.get_or_compute("k", fails) == 1
        wait_until(lambda: told, "nobody is told")
        assert "the database is away" in str(told[0].exc_value)
        wait_until(none_left, "it goes on")
        assert cache.get_or_compute("k", lambda: 2) == 1
        wait_until(lambda: cache.get_or_compute("k", lambda: 2) == 2, "it is not tried again")
    told.clear()
    gc.collect()


def test_a_task_that_fails_is_reported_to_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "_PAUSE_SECONDS", 0.01)
    told: list[Any] = []

    async def fails() -> int:
        raise OSError("the database is away")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        with new_cache() as cache:
            await cache.get_or_compute_async("k", Source().coroutine)
            until_stale(cache)
            assert await cache.get_or_compute_async("k", fails) == 1
            while not told:
                await asyncio.sleep(0.001)
                gc.collect()
        assert "the database is away" in str(told[0]["exception"])

    run_async(main())


def test_skip_holds_for_it_too() -> None:
    source = Source()

    @vrange.cached(ttl=TTL, stale=STALE, skip=lambda value: value == 2)
    def number() -> int:
        return source()

    assert number() == 1
    wait_until(lambda: not number.cache_contains(), "it stays fresh")
    assert number() == 1
    wait_until(lambda: source.computed == 2 and none_left(), "it is not computed")
    assert not number.cache_contains()
    assert number() == 1
    wait_until(lambda: number() == 3, "it is not renewed")


def test_it_runs_in_the_context_of_the_call() -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    with new_cache() as cache:
        cache.get_or_compute("k", lambda: "first")
        until_stale(cache)
        tenant.set("me")
        wait_until(lambda: cache.get_or_compute("k", tenant.get) == "me", "it is not renewed")


def test_within_a_computation_of_the_same_cache() -> None:
    """The refresh belongs to no computation: it may be needed by the one that began it."""
    inner, outer = Source(), Source()
    with new_cache() as cache:
        cache.get_or_compute("inner", inner)
        until_stale(cache, "inner")
        assert cache.get_or_compute(
            "outer", lambda: (cache.get_or_compute("inner", inner), outer())
        )
        wait_until(lambda: inner.computed == 2, "it is not renewed")


def test_few_threads_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    with new_cache() as cache:
        for n in range(50):
            cache.get_or_compute(n, source)
        until_stale(cache, 49)
        source.gate.clear()
        for n in range(50):
            assert cache.get_or_compute(n, source) == n + 1
        assert refresh.threads() == refresh.THREADS_MOST
        source.gate.set()

        old = set(range(50))

        def all_renewed() -> bool:  # asking for a renewed one may begin another computation
            old.difference_update([n for n in old if cache.get_or_compute(n, source) > 50])
            return not old

        wait_until(all_renewed, "some are never renewed")

    def refuses(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    wait_until(none_left, "they go on")
    with new_cache() as cache:
        cache.get_or_compute("k", lambda: 1)
        until_stale(cache)
        with monkeypatch.context() as patch:
            patch.setattr(_thread, "start_new_thread", refuses)
            assert cache.get_or_compute("k", lambda: 2) == 1
        assert cache.get_or_compute("k", lambda: 2) == 1
        wait_until(lambda: cache.get_or_compute("k", lambda: 2) == 2, "it is not tried again")


def test_an_exception_of_a_signal_handler_is_the_only_one_and_leaves_no_claim() -> None:
    class Interrupt(Exception):
        pass

    armed = False

    def interrupt(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        with vrange.VolatileCache[Any, Any](ttl=0.001, stale=STALE) as cache:
            cache.get_or_compute("k", lambda: 0)
            interrupted = 0
            while interrupted < 300:
                try:
                    armed = True
                    for _ in range(50):
                        cache.get_or_compute("k", lambda: 0)
                    armed = False
                except Interrupt:
                    interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            wait_until(lambda: cache.get_or_compute("k", lambda: 1) == 1, "a claim is left")
            cache._core.check()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_value_for_which_there_is_no_room_leaves_the_stale_one() -> None:
    with new_cache(max_bytes="64KiB") as cache:
        cache.get_or_compute("k", lambda: b"small")
        until_stale(cache)
        assert cache.get_or_compute("k", lambda: bytes(1 << 20)) == b"small"
        wait_until(none_left, "it goes on")
        assert cache.get_or_compute("k", lambda: b"again") == b"small"
        cache._core.check()


def test_closing_meanwhile() -> None:
    source = Source()
    cache = new_cache()
    cache.get_or_compute("k", source)
    until_stale(cache)
    source.gate.clear()
    assert cache.get_or_compute("k", source) == 1
    cache.close()
    source.gate.set()


def test_after_fork_both_refresh() -> None:
    succeeds(
        """
        import os, threading, time, vrange
        computed = []
        gate = threading.Event()
        def value():
            gate.wait(20)
            computed.append(os.getpid())
            return os.getpid()
        cache = vrange.VolatileCache(ttl=0.02, stale=1000)
        gate.set()
        first = cache.get_or_compute("k", value)
        while "k" in cache: pass
        gate.clear()
        assert cache.get_or_compute("k", value) == first   # a thread begins
        child = os.fork()
        if not child:
            gate = threading.Event()
            gate.set()
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                found = cache.get_or_compute("k", value)
                assert found in (first, os.getpid())
                if len(computed) > 1 and computed[-1] == os.getpid() and "k" in cache:
                    os._exit(0)
            os._exit(3)
        gate.set()
        assert os.waitpid(child, 0)[1] == 0
        while len(computed) < 2: time.sleep(0.001)
        """,
        environment={"PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )


def test_a_program_ends_while_a_value_is_computed_again() -> None:
    told = succeeds(
        """
        import time, vrange
        with_slow = vrange.VolatileCache(ttl=0.02, stale=1000)
        with_slow.get_or_compute("k", lambda: 1)
        while "k" in with_slow: pass
        print(with_slow.get_or_compute("k", lambda: time.sleep(1000)))
        """
    )
    assert told.strip() == "1"


def test_bad_parameters() -> None:
    for bad in (0, -1, float("nan"), "60", True):
        with pytest.raises(ValueError, match="stale must be a positive number"):
            vrange.VolatileCache(ttl=1, stale=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give a ttl"):
        vrange.VolatileCache(stale=60)
    with pytest.raises(ValueError, match="give a ttl"):
        vrange.cached(stale=60)
    assert vrange.cached(ttl=1, stale=60)(len).cache_parameters()["stale"] == 60


def test_what_computed_it_is_not_kept() -> None:
    source = Source()
    alive = weakref.ref(source)
    with new_cache() as cache:
        cache.get_or_compute("k", source)
        until_stale(cache)
        cache.get_or_compute("k", source)
        wait_until(none_left, "it goes on")
        del source
        wait_until(lambda: gc.collect() >= 0 and alive() is None, "something refers to it")
