"""Heavy graphs of objects: made one at a time, shared while held, and let go."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

import vrange
from vrange._cache.heavy import SharedGraph, _keeper
from vrange._paused_thread import PausedThread

SIZE = 100_000


def table() -> dict[int, str]:
    return {n: f"value {n}" for n in range(SIZE)}


def names_of_threads() -> set[str]:
    names = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            names.add((thread / "comm").read_text().strip())
    return names


class Loads:
    """Counts how often it is unpickled, and takes its time."""

    count = 0

    def __reduce__(self) -> Any:
        return _loaded, ()


def _loaded() -> str:
    Loads.count += 1
    time.sleep(0.2)
    return "loaded"


@pytest.fixture(autouse=True)
def _from_nought() -> None:
    Loads.count = 0


def heavy(hot_bytes: int | str = "1MiB") -> vrange.VolatileCache[str, Any]:
    cache = vrange.VolatileCache[str, Any](hot_bytes=hot_bytes)
    cache["table"] = [Loads(), table()]
    return cache


@pytest.mark.filterwarnings("ignore::vrange.CostlyHitWarning")
def test_callers_at_the_same_time_share_one() -> None:
    with heavy() as cache, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(cache.__getitem__, ["table"] * 8))
        assert Loads.count == 1
        assert all(one is found[0] for one in found)
        assert found[0] == ["loaded", table()]


@pytest.mark.filterwarnings("ignore::vrange.CostlyHitWarning")
def test_it_is_shared_while_a_caller_holds_it_and_then_let_go() -> None:
    with heavy() as cache:
        first = cache["table"]
        time.sleep(1)  # some looks
        assert cache["table"] is first
        assert cache.info().hot_bytes == 0
        first.append(mark := Marked())
        gone = weakref.ref(mark)
        del first, mark
        wait_until(lambda: gone() is None, "nobody holds it")
        assert cache["table"] == ["loaded", table()]
        assert Loads.count == 2


class Marked:
    """What tells when the list that has it is gone."""


def test_it_is_hot_where_it_has_room() -> None:
    with heavy(hot_bytes="64MiB") as cache:
        first = cache["table"]
        assert cache.info().hot_bytes > 10 << 20
        number = id(first)
        del first
        time.sleep(0.6)
        assert id(cache["table"]) == number
        assert Loads.count == 1


def test_no_thread_is_left() -> None:
    with heavy(hot_bytes="64MiB") as cache:
        assert cache["table"]
        wait_until(lambda: "vrange-shared" in names_of_threads(), "it goes on after the fork")
    gc.collect()
    wait_until(
        lambda: "vrange-shared" not in {thread.name for thread in threading.enumerate()},
        "there is nothing to look at",
    )


@pytest.mark.filterwarnings("ignore::vrange.CostlyHitWarning")
def test_what_is_dropped_and_made_again_is_let_go_again() -> None:
    with heavy() as cache:
        for _ in range(2):
            found = cache["table"]
            found.append(mark := Marked())
            gone = weakref.ref(mark)
            del found, mark
            wait_until(lambda gone=gone: gone() is None, "nobody holds it")


@pytest.mark.filterwarnings("ignore::vrange.CostlyHitWarning")
def test_a_hit_waits_for_no_other_value() -> None:
    """Another thread may look after all of them."""
    with heavy() as cache, ThreadPoolExecutor(1) as pool:
        held = cache["table"]
        with _keeper._lock:
            assert pool.submit(cache.__getitem__, "table").result(timeout=60) is held


@pytest.mark.filterwarnings("ignore::vrange.CostlyHitWarning")
def test_it_is_let_go_later_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until(lambda: "vrange-shared" not in names_of_threads(), "the tests before have ended")

    def fail(thread: PausedThread) -> None:
        raise RuntimeError("can't start new thread")

    with heavy() as cache:
        with monkeypatch.context() as patch:
            patch.setattr(PausedThread, "start", fail)
            held = cache["table"]
        assert held == ["loaded", table()]
        assert cache["table"] is held
        held.append(mark := Marked())
        gone = weakref.ref(mark)
        del held, mark
        wait_until(lambda: gone() is None, "nobody holds it")


def test_a_value_that_cannot_become_hot_says_once_what_a_hit_costs() -> None:
    @vrange.cached(hot_bytes="1MiB")
    def model(n: int) -> list[Any]:
        return [Loads(), table()]

    model(1)
    with pytest.warns(vrange.CostlyHitWarning, match=r"model\(\).*list.*hot_bytes") as told:
        model(1)
    assert len(told) == 1
    assert told[0].filename == __file__
    model(2)
    model(2), model(1)  # an error if it warned again


def test_what_fails_is_made_again_by_the_next() -> None:
    failing = iter([True, False])

    def decode(stored: Any) -> Any:
        if next(failing):
            raise KeyboardInterrupt
        return ["made"]

    graph = SharedGraph(decode)
    with pytest.raises(KeyboardInterrupt):
        graph(b"")
    assert graph(b"") == ["made"]


def test_making_it_may_ask_for_it() -> None:
    def decode(stored: Any) -> Any:
        return [graph(b"inner")] if stored == b"outer" else ["made"]

    graph = SharedGraph(decode)
    assert graph(b"outer") == [["made"]]


@pytest.mark.filterwarnings("ignore::vrange.CostlyHitWarning")
def test_fork_is_not_warned_of() -> None:
    with heavy() as cache:
        held = cache["table"]
        child = os.fork()  # warns of other threads (3.12), and a warning is an error here
        if child == 0:
            found = cache.get("table", held)  # a miss there, unless it is hot
            os._exit(0 if found is held else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache["table"] is held
        wait_until(lambda: "vrange-shared" in names_of_threads(), "it goes on after the fork")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have() -> None:
    started, ends = threading.Event(), threading.Event()

    def decode(stored: Any) -> Any:
        started.set()
        if stored == b"slowly":
            ends.wait(60)
        return ["made"]

    graph = SharedGraph(decode)
    making = threading.Thread(target=graph, args=(b"slowly",))
    making.start()
    started.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if graph(b"") == ["made"] else 1)
    ends.set()
    making.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
