"""Clearing, closing and sweeping large caches: in steps, and in the background."""

from __future__ import annotations

import os
import threading
import time
import warnings

import numpy as np
import pytest

from vrange import VolatileCache

MANY = 30_000


def filled() -> VolatileCache[int, bytes]:
    cache = VolatileCache[int, bytes](name="large", hot_bytes=0)
    for key in range(MANY):
        cache[key] = b"v" * 100
    return cache


def background() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vrange-clear"]


def wait_for_background() -> None:
    until = time.monotonic() + 60
    while background():
        assert time.monotonic() < until
        time.sleep(0.001)


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
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    cache = filled()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    cache.clear()
    assert len(cache) == 0
    cache[1] = b"new"
    assert cache[1] == b"new"
    cache.close()
