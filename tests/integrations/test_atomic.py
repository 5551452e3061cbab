"""What all backends share: atomic changes, ttls, isolation, forks and signals."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
from support import FORK_WITH_THREADS, succeeds, wait_until

import vrange
from vrange.integrations._atomic import AtomicCache, named


@pytest.fixture
def cache() -> AtomicCache:
    return AtomicCache("atomic", {})


def in_threads(count: int, work: Any) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_numbers_are_counted_by_many_threads(cache: AtomicCache) -> None:
    def count() -> None:
        for _ in range(500):
            cache.change("n", lambda value: value + 1, 60, initial=0)

    in_threads(4, count)
    assert cache.get("n") == 2000


def test_one_thread_adds(cache: AtomicCache) -> None:
    added: list[bool] = []
    for number in range(200):

        def add(number: int = number) -> None:
            added.append(cache.add(number, threading.get_ident()))

        in_threads(2, add)
    assert sum(added) == 200


def test_a_clear_is_before_or_after_a_change(cache: AtomicCache) -> None:
    cache.set("n", 1)
    inside, cleared = threading.Event(), threading.Event()

    def slowly(value: int) -> int:
        inside.set()
        cleared.wait(0.05)  # the clear waits for this change
        return value + 1

    def clear() -> None:
        inside.wait()
        cache.clear()
        cleared.set()

    clearing = threading.Thread(target=clear)
    clearing.start()
    cache.change("n", slowly, None)
    clearing.join()
    assert cache.get("n") is None


class PickledSlowly:
    """Waits, while it is pickled for the second time, until another thread had time to store."""

    pickled = 0
    begun, stored = threading.Event(), threading.Event()

    def __reduce__(self) -> Any:
        type(self).pickled += 1
        if self.pickled == 2:
            self.begun.set()
            self.stored.wait(0.1)
        return PickledSlowly, ()


def test_a_touch_does_not_bring_back_what_another_thread_replaced(cache: AtomicCache) -> None:
    cache.set("a", PickledSlowly())

    def replace() -> None:
        PickledSlowly.begun.wait(10)
        cache.set("a", "new")
        PickledSlowly.stored.set()

    thread = threading.Thread(target=replace)
    thread.start()
    assert cache.touch("a", 60)
    thread.join()
    assert PickledSlowly.begun.is_set()
    assert cache.get("a") == "new"


def test_pickling_may_use_the_cache(cache: AtomicCache) -> None:
    class Counting:
        def __reduce__(self) -> Any:
            cache.change("n", lambda value: value + 1, None, initial=0)
            cache.set("a", "within")
            return str, ("pickled",)

    assert cache.set("a", Counting())
    assert cache.get("a") == "pickled"
    assert cache.get("n") >= 1


@pytest.mark.parametrize("number", [1, 2.5, True, 3 + 4j, np.int64(7), 10**30])
def test_a_changed_number_expires_when_it_would_have(cache: AtomicCache, number: Any) -> None:
    cache.set("n", number, 0.2)
    kind = type(cache.get("n"))
    assert kind is type(number)
    assert cache.change("n", lambda value: value + 1, math.inf) == number + 1
    wait_until(lambda: cache.get("n") is None, "it expires")


def test_a_changed_number_without_ttl_stays(cache: AtomicCache) -> None:
    cache.set("n", 1)
    cache.change("n", lambda value: value + 1, 0.01)
    time.sleep(0.03)
    assert cache.get("n") == 2
    assert cache.change("absent", lambda value: value + 1, 0, initial=1) == 2
    assert cache.get("absent") is None


def test_a_change_of_nothing(cache: AtomicCache) -> None:
    with pytest.raises(KeyError, match="n"):
        cache.change("n", lambda value: value, None)


@pytest.mark.parametrize("ttl", [0, -1, -math.inf])
def test_a_ttl_in_the_past_removes(cache: AtomicCache, ttl: float) -> None:
    cache.set("a", "x")
    assert cache.set("a", "y", ttl)
    assert cache.get("a") is None
    cache.set("a", "x")
    assert cache.touch("a", ttl)
    assert cache.get("a") is None


def test_a_touch_changes_when_a_value_expires(cache: AtomicCache) -> None:
    cache.set("a", ["x"], 0.1)
    cache.set("n", 1, 0.1)
    assert cache.touch("a", None)
    assert cache.touch("n", 60)
    assert not cache.touch("b", 60)
    time.sleep(0.15)
    assert cache.get("a") == ["x"]
    assert cache.change("n", lambda value: value + 1, None) == 2


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        b"bytes",
        ("vrange.integrations: a number", 5, None),
        ("vrange.integrations: a number", "x"),
        [1, {"a": {2}}],
    ],
)
def test_values_come_back_as_they_were(cache: AtomicCache, value: Any) -> None:
    for ttl in (None, 60):
        assert cache.set("v", value, ttl)
        assert cache.get("v", "absent") == value
        assert type(cache.get("v")) is type(value)


def test_what_a_caller_changes_is_its_own(cache: AtomicCache) -> None:
    value: dict[str, Any] = {"list": [1], "array": np.arange(4)}
    heavy = [{"n": [n]} for n in range(50_000)]
    cache.set("v", value)
    cache.set("heavy", heavy)
    value["list"].append(2)
    value["array"][:] = 9
    heavy[0]["n"].append(9)
    for _ in range(2):
        got, big = cache.get("v"), cache.get("heavy")
        assert got["list"] == [1]
        assert got["array"].tolist() == [0, 1, 2, 3]
        assert big[0] == {"n": [0]}
        got["list"].append(3)
        got["array"][:] = 7
        big[0]["n"].append(7)


def test_arrays_without_a_copy() -> None:
    cache = AtomicCache("views", {"copy": False})
    cache.set("a", np.zeros(1 << 16))
    first, second = cache.get("a"), cache.get("a")
    assert not first.flags.writeable
    assert np.shares_memory(first, second)


def test_what_can_not_be_kept_leaves_no_older_value(cache: AtomicCache) -> None:
    cache.set("a", "old")
    with pytest.warns(vrange.NotKeptWarning):
        assert not cache.set("a", lambda: None)
    assert cache.get("a") is None
    assert cache.set("a", "new")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match=r"max_bytes, .*copy, not ttl, typo"):
        AtomicCache("a", {"typo": 1, "ttl": 3})


def test_a_name_with_the_same_options_is_one_cache() -> None:
    assert named("one", {"max_bytes": "1MiB"}) is named("one", {"max_bytes": "1MiB"})
    assert named("one", {"max_bytes": "1MiB"}) is not named("one", {"max_bytes": "2MiB"})
    assert named("one", {}) is not named("two", {})


def test_a_signal_handler_may_use_the_cache_within_a_change(cache: AtomicCache) -> None:
    handled: list[bool] = []

    def handle(number: int, frame: Any) -> None:
        handled.append(cache.set("a", "handled"))
        cache.clear()

    before = signal.signal(signal.SIGUSR1, handle)
    try:

        def changed(value: int) -> int:
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(lambda: handled, "the handler ran")
            return value + 1

        cache.set("a", 1)
        assert cache.change("a", changed, None) == 2
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_child_of_a_fork_waits_for_no_thread_of_its_parent() -> None:
    code = """
    import os, threading
    from vrange.integrations._atomic import AtomicCache, named
    cache = named("forked", {})
    inside, done = threading.Event(), threading.Event()
    def changed(value):
        inside.set()
        done.wait()
        return value
    thread = threading.Thread(target=lambda: cache.change("a", changed, None, initial=1))
    thread.start()
    inside.wait()
    child = os.fork()
    if not child:
        cache.set("a", 2)
        cache.clear()
        named("forked", {}).set("a", 3)
        os._exit(cache.get("a"))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done.set()
    thread.join()
    print(status, cache.get("a"))
    """
    assert succeeds(code, environment=FORK_WITH_THREADS).split() == ["3", "1"]
