"""What a listener of a cache may do: use the cache, raise, run beside threads and forks."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
from listening import Heard
from support import RUNG

import vrange


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    caught: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: caught.append(raised.exc_value))
    return caught


# ---- a listener that uses the cache --------------------------------------------------------------


def test_a_listener_sees_a_whole_cache() -> None:
    seen: list[Any] = []
    cache: vrange.VolatileCache[Any, Any]

    def listen(key: int, cause: str) -> None:
        cache._core.check()
        seen.append((key in cache, len(cache), cache.get(key)))

    with vrange.VolatileCache[Any, Any](max_entries=2, on_evict=listen) as cache:
        for i in range(5):
            cache[i] = i
    assert seen == [(False, 2, None)] * 3


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_listener_may_store_remove_and_clear(heard: Heard, size: int) -> None:
    cache: vrange.VolatileCache[Any, Any]

    def listen(key: Any, cause: str) -> None:
        heard(key, cause)
        if key == 0:
            cache["more"] = bytes(size)
            cache.pop(1, None)
        elif key == 5:
            cache.clear()
        elif key == 8:
            cache.discard()
            assert cache.get_or_compute(9, lambda: b"new") == b"new"

    with vrange.VolatileCache[Any, Any](max_entries=2, hot_bytes=0, on_evict=listen) as cache:
        for i in range(20):
            assert cache.get_or_compute(i, lambda: bytes(size)) == bytes(size)
            cache._core.check()
    assert len(heard) > 8


def test_a_listener_may_close_the_cache() -> None:
    cache: vrange.VolatileCache[Any, Any]
    cache = vrange.VolatileCache(max_entries=1, on_evict=lambda key, cause: cache.close())
    cache[1] = 1
    cache[2] = 2
    assert cache._core.closed
    with pytest.raises(ValueError, match="closed"):
        cache[3] = 3


def test_a_listener_that_always_stores_ends_in_a_recursion_error() -> None:
    cache: vrange.VolatileCache[Any, Any]

    def listen(key: int, cause: str) -> None:
        with suppress(RecursionError):
            cache[key] = key

    with vrange.VolatileCache[Any, Any](max_entries=1, on_evict=listen) as cache:
        cache[1] = 1
        cache[2] = 2
        cache._core.check()
        assert len(cache) == 1


def test_a_listener_may_compute_the_key_that_was_refused() -> None:
    answers: list[Any] = []
    cache: vrange.VolatileCache[Any, Any]

    def listen(key: str, cause: str) -> None:
        if not answers:
            answers.append(None)
            with ThreadPoolExecutor(1) as pool:
                small = pool.submit(cache.get_or_compute, key, lambda: "small")
                answers[0] = small.result(timeout=60)

    with vrange.VolatileCache[Any, Any](max_bytes="64KiB", on_evict=listen) as cache:
        assert len(cache.get_or_compute("a", lambda: bytes(1 << 20))) == 1 << 20
        assert answers == ["small"]
        assert cache["a"] == "small"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_waiter_has_its_answer_before_the_listener_runs(is_async: bool) -> None:
    """A listener may wait for a thread that waits for the computation."""
    cache: vrange.VolatileCache[Any, Any]
    waiter: list[threading.Thread] = []
    joined: list[bool] = []

    def listen(key: str, cause: str) -> None:
        for thread in waiter:
            thread.join(60)
            joined.append(not thread.is_alive())

    def compute() -> bytes:
        waiter.append(threading.Thread(target=cache.get_or_compute, args=("a", bytes)))
        waiter[0].start()
        while not getattr(cache._core.flight("a"), "waiting", 0):
            time.sleep(0.001)
        return bytes(1 << 20)

    async def compute_async() -> bytes:
        return compute()

    with vrange.VolatileCache[Any, Any](max_bytes="64KiB", on_evict=listen) as cache:
        if is_async:
            asyncio.run(cache.get_or_compute_async("a", compute_async))
        else:
            cache.get_or_compute("a", compute)
    assert joined == [True]


# ---- exceptions ----------------------------------------------------------------------------------


def test_an_exception_of_the_listener_harms_nothing(unraisable: list[Any]) -> None:
    def fail(key: int, cause: str) -> None:
        raise LookupError(key)

    with vrange.VolatileCache[int, int](max_entries=1, on_evict=fail) as cache:
        for i in range(4):
            cache[i] = i
        assert cache[3] == 3
        assert cache.get_or_compute(4, lambda: 4) == 4
        assert list(cache) == [4]
    assert [error.args for error in unraisable] == [(0,), (1,), (2,), (3,)]


def test_an_interrupt_in_the_listener_reaches_the_caller(heard: Heard) -> None:
    def interrupted(key: int, cause: str) -> None:
        heard(key, cause)
        if key == 0:
            raise KeyboardInterrupt

    with vrange.VolatileCache[int, int](on_evict=interrupted) as cache:
        cache.set(0, 0, ttl=0.001)
        cache.set(1, 1, ttl=0.002)
        time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            cache[2] = 2
        cache._core.check()
        assert heard == [(0, "expired")]
        assert cache[2] == 2
        assert len(cache) == 1
        assert heard == [(0, "expired"), (1, "expired")]


@pytest.mark.parametrize(
    ("raised", "expected"), [(LookupError, RecursionError), (KeyboardInterrupt, KeyboardInterrupt)]
)
def test_an_error_of_the_caller_stays_unless_it_is_interrupted(
    heard: Heard,
    unraisable: list[Any],
    raised: type[BaseException],
    expected: type[BaseException],
) -> None:
    def fail(key: Any, cause: str) -> None:
        heard(key, cause)
        raise raised

    with vrange.VolatileCache[str, Any](on_evict=fail) as cache:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        cache["a"] = 1
        with pytest.raises(expected) as caught:
            cache["a"] = deep
        assert heard == [("a", "refused")]
        if expected is RecursionError:
            assert [type(error) for error in unraisable] == [raised]
        else:
            assert unraisable == []
            assert isinstance(caught.value.__context__, RecursionError)
        while deep:
            deep = deep[0]


class Timeout(Exception):
    pass


class Limit:
    """Time limits of several shapes, which all raise Timeout."""

    def on_signal(self, number: int, frame: object) -> None:
        raise Timeout

    def __call__(self, number: int, frame: object) -> None:
        self.on_signal(number, frame)


def on_signal(number: int, frame: object) -> None:
    raise Timeout


@pytest.mark.parametrize(
    "handler", [on_signal, Limit().on_signal, Limit(), partial(on_signal), lambda *a: on_signal(*a)]
)
@pytest.mark.parametrize("way", ["store", "compute", "lookup"])
def test_a_time_limit_in_the_listener_reaches_the_caller(
    unraisable: list[Any], handler: Any, way: str
) -> None:
    def slow(key: object, cause: str) -> None:
        signal.raise_signal(signal.SIGUSR1)
        time.sleep(60)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with vrange.VolatileCache[int, int](max_entries=1, on_evict=slow) as cache:
            cache.set(0, 0, ttl=0.1)
            time.sleep(0.11)
            calls: dict[str, Callable[[], object]] = {
                "store": lambda: cache.set(1, 1),
                "compute": lambda: cache.get_or_compute(1, lambda: 1),
                "lookup": lambda: cache.get(0),
            }
            with pytest.raises(Timeout):
                calls[way]()
            cache._core.check()
            assert cache._core.under_way == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert unraisable == []


def test_a_time_limit_of_the_listeners_own_is_its_own(unraisable: list[Any]) -> None:
    def limited(key: object, cause: str) -> None:
        before = signal.signal(signal.SIGUSR1, on_signal)
        try:
            signal.raise_signal(signal.SIGUSR1)
            time.sleep(60)
        finally:
            signal.signal(signal.SIGUSR1, before)

    with vrange.VolatileCache[int, int](max_entries=1, on_evict=limited) as cache:
        cache[0] = 0
        cache[1] = 1
        assert cache[1] == 1
    assert [type(error) for error in unraisable] == [Timeout]


@pytest.mark.parametrize("wrong", [1, "evict", [print]])
def test_what_cannot_be_called_is_refused(wrong: Any) -> None:
    for make in vrange.VolatileCache, vrange.cached:
        with pytest.raises(TypeError, match="on_evict must be callable or None, not"):
            make(on_evict=wrong)


def test_a_coroutine_function_is_refused() -> None:
    async def listen(key: object, cause: str) -> None: ...

    class Listener:
        async def __call__(self, key: object, cause: str) -> None: ...

    for wrong in listen, Listener():
        for make in vrange.VolatileCache, vrange.cached:
            with pytest.raises(TypeError, match="not a coroutine function"):
                make(on_evict=wrong)


def test_it_belongs_to_the_cache(heard: Heard) -> None:
    make: Any = vrange.cached
    with (
        vrange.VolatileCache[Any, Any]() as cache,
        pytest.raises(TypeError, match="on_evict belongs to the cache"),
    ):
        make(cache=cache, on_evict=heard)


# ---- lifetimes, threads, fork --------------------------------------------------------------------


def test_a_cache_and_its_listener_are_collected() -> None:
    class Owner:
        def __init__(self) -> None:
            self.cache = vrange.VolatileCache[int, int](max_entries=1, on_evict=self.left)

        def left(self, key: int, cause: str) -> None: ...

    owner = Owner()
    owner.cache[1] = owner.cache[2] = 0
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


def test_keys_are_not_kept(heard: Heard) -> None:
    class Key:
        pass

    with vrange.VolatileCache[Any, int](max_entries=1, on_evict=lambda key, cause: None) as cache:
        key = Key()
        gone = weakref.ref(key)
        cache[key] = 1
        del key
        cache[1] = 2
        assert gone() is None


def test_each_entry_is_told_once_with_threads(heard: Heard) -> None:
    with vrange.VolatileCache[int, bytes](max_entries=50, on_evict=heard) as cache:

        def work(first: int) -> None:
            for i in range(first, first + 500):
                cache.get_or_compute(i, lambda: b"x" * 3000)
                cache.get(i - 10)

        threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = list(cache)
        cache._core.check()
    stored = [1000 * n + i for n in range(4) for i in range(500)]
    assert sorted([key for key, _ in heard] + left) == stored


def in_child(check: Callable[[], None]) -> None:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            check()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    "use",
    [
        lambda cache: cache.get(3),
        len,
        lambda cache: cache.update(a=1),
        lambda cache: cache.get_or_compute(300, lambda: 1),
        lambda cache: cache.pop(3, None),
        lambda cache: [cache.update({i: i}) for i in range(1000, 1200)],
    ],
)
@pytest.mark.parametrize("size", [100, 10_000])
def test_a_forked_child_does_not_hear_of_what_stayed_in_the_parent(
    heard: Heard, use: Callable[[Any], object], size: int
) -> None:
    with vrange.VolatileCache[Any, Any](
        hot_bytes=0, max_entries=150, ttl=0.2, on_evict=heard
    ) as cache:
        for i in range(100):
            cache[i] = bytes(size)

        def check() -> None:
            use(cache)
            time.sleep(0.25)
            cache["own"] = 1
            assert not [key for key, _ in heard if key in range(100)], heard

        in_child(check)
        time.sleep(0.25)
        assert len(cache) == 0
        assert sorted(heard.of("expired")) == list(range(100))


def test_a_forked_child_hears_of_its_own(heard: Heard) -> None:
    with vrange.VolatileCache[Any, Any](max_entries=3, hot_bytes=0, on_evict=heard) as cache:
        cache["old"] = np.zeros(10_000)
        held = cache["held"] = np.zeros(10_000)
        held = cache["held"]

        def check() -> None:
            assert cache.get("old") is not None or RUNG == "sentinel"  # where it was offered
            for i in range(3):
                cache[i] = i
            assert len(cache) == 3
            told = dict(heard)
            assert "old" not in told  # its parent would report it
            assert set(told.values()) == {"evicted"}
            cache.discard()
            assert len(cache) <= 1
            assert set(heard.of("purged")) <= {"old", 0, 1, 2}

        in_child(check)
        assert held[0] == 0
        assert heard == []


def test_a_child_forked_by_the_listener_does_not_repeat_its_parent() -> None:
    code = """
    import os, time, vrange
    parent, heard = os.getpid(), []
    def listen(key, cause):
        heard.append(key)
        if os.getpid() == parent and not os.fork():
            heard.clear()
    cache = vrange.VolatileCache(on_evict=listen)
    for i in range(3):
        cache.set(i, i, ttl=.2)
    time.sleep(.5)
    assert len(cache) == 0
    if os.getpid() != parent:
        os._exit(0 if not heard else 1)
    assert sorted(heard) == [0, 1, 2], heard
    for _ in heard:
        assert os.wait()[1] == 0
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
