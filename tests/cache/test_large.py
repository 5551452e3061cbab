"""Clearing, closing, sweeping and listing large caches: in steps, and in the background."""

from __future__ import annotations

import _thread
import gc
import os
import threading
import time
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import wait_until

from vrange import VolatileCache
from vrange._cache import background_release

MANY = 30_000


def filled() -> VolatileCache[int, bytes]:
    cache = VolatileCache[int, bytes](name="large", hot_bytes=0)
    for key in range(MANY):
        cache[key] = b"v" * 100
    return cache


def background() -> list[str]:
    """The threads that give back, as the kernel lists them."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            found += [name for name in [(task / "comm").read_text().strip()] if "clear" in name]
    return found


def wait_for_background() -> None:
    until = time.monotonic() + 60
    while background_release.wait(1):
        assert time.monotonic() < until


class Key:
    """A key of which the instances are counted."""

    alive = 0

    def __init__(self) -> None:
        Key.alive += 1

    def __del__(self) -> None:
        Key.alive -= 1


def test_closing_gives_keys_back_while_the_cache_object_lives() -> None:
    cache = VolatileCache[Key, int](name="keys", hot_bytes=0)
    for _ in range(5_000):
        cache[Key()] = 1
    cache.close()
    wait_for_background()
    assert Key.alive == 0


def test_a_small_cache_is_cleared_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that starts may receive a signal in place of the main thread."""
    wait_for_background()
    started: list[object] = []
    monkeypatch.setattr(_thread, "start_new_thread", lambda *what: started.append(what))
    cache = VolatileCache[int, int](name="small")
    for key in range(1_000):
        cache[key] = key
    cache.clear()
    assert not started
    assert len(cache) == 0


def test_closing_returns_all_memory_but_what_is_held() -> None:
    cache = VolatileCache[int, np.ndarray](name="closing", hot_bytes=0)
    for key in range(3_000):
        cache[key] = np.full(512, key)
    held = {key: cache[key] for key in range(0, 3_000, 500)}
    del cache[7]
    cache.close()
    wait_for_background()
    assert all((array == key).all() for key, array in held.items())
    assert sum(a.nbytes for a in held.values()) == cache.info().pinned_bytes
    held.clear()
    assert cache.info().pinned_bytes == cache.info().idle_bytes == 0


def test_a_fork_stops_the_background_work_and_the_parent_goes_on() -> None:
    cache = filled()
    cache.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        child = os.fork()
    if child == 0:
        os._exit(len(cache) + len(background()))
    assert os.waitpid(child, 0)[1] == 0
    wait_for_background()
    cache.close()


def test_a_thread_that_cannot_start_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    cache = filled()
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    cache.clear()
    assert len(cache) == 0
    cache[1] = b"new"
    assert cache[1] == b"new"
    cache.close()


class Node:
    """Something that can be part of a cycle."""

    def __init__(self, cache: VolatileCache[Any, Any]) -> None:
        self.cache = cache


@pytest.mark.parametrize("how", ["stored", "computed"])
def test_the_collector_frees_a_cache_to_which_only_its_own_key_refers(how: str) -> None:
    cache = VolatileCache[Any, int](name="cycle")
    for key in range(3_000):
        cache[key] = key
    gc.collect()  # has read the entries, which refer to nothing
    node = Node(cache)
    if how == "stored":
        cache[node] = 1
    else:
        assert cache.get_or_compute(node, lambda: 1) == 1
    gone = weakref.ref(node)
    del cache, node
    gc.collect()
    assert gone() is None


def test_iteration_is_in_order_of_the_keys_coming_while_others_come_and_go() -> None:
    cache = VolatileCache[int, int](name="order", hot_bytes=0)
    for key in range(MANY):
        cache[key] = key
    for key in range(0, MANY, 3):
        del cache[key]
    ended = threading.Event()

    def churn() -> None:
        key = MANY
        while not ended.is_set():
            cache[key] = key
            del cache[key - MANY // 2], cache[key]
            cache[key - MANY // 2] = key
            key = MANY + (key + 1) % 1000

    for key in range(0, MANY, 3):
        cache[key] = key  # in free places, and yet the last
    thread = threading.Thread(target=churn)
    thread.start()
    keys = list(cache)
    ended.set()
    thread.join()
    moving = range(MANY // 2, MANY // 2 + 1000)
    still = [key for key in keys if key < MANY and key not in moving]
    expected = [key for key in range(MANY) if key % 3] + list(range(0, MANY, 3))
    assert still == [key for key in expected if key not in moving]
    assert len(set(keys)) == len(keys)
    cache.close()


def test_clearing_while_another_thread_iterates() -> None:
    cache = filled()
    thread = threading.Thread(target=cache.clear)
    thread.start()
    keys = list(cache)
    thread.join()
    assert keys == list(range(len(keys)))
    assert list(cache) == []
    cache.close()


def test_a_store_removes_only_some_of_what_has_expired() -> None:
    with VolatileCache[int, bytes](name="expired", hot_bytes=0) as cache:
        for key in range(MANY):
            cache.set(key, b"v" * 100, ttl=0.3)
        wait_until(lambda: 0 not in cache and MANY - 1 not in cache, "all have expired")
        before = cache._core.entries
        cache[MANY] = b"v"
        assert before - 100 < cache._core.entries
        assert len(cache) == 1
        assert list(cache) == [MANY]
