"""The hot front: bounded in bytes, alone and among all."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import vrange
from vrange._cache import hot_front as hot
from vrange._cache.hot_front import HotFront
from vrange._core import hit


def front(limit: int | None) -> tuple[HotFront, list[object]]:
    made = HotFront(limit, hit.Lock())
    gone: list[object] = []
    made.let_go = gone.append
    return made, gone


def test_longest_held_goes_first() -> None:
    made, gone = front(100)
    assert made.admit("a", 1, 40)
    assert made.admit("b", 2, 40)
    assert made.admit("c", 3, 30)
    assert (made.values, made.bytes, gone) == ({"b": 2, "c": 3}, 70, ["a"])
    assert made.admit("d", 4, 100)
    assert (made.values, made.bytes, gone) == ({"d": 4}, 100, ["a", "b", "c"])


def test_too_large_is_not_held_and_throws_nobody_out() -> None:
    made, gone = front(100)
    made.admit("a", 1, 60)
    assert not made.admit("b", 2, 101)
    assert (made.values, made.bytes, gone) == ({"a": 1}, 60, [])


def test_admitted_again_is_weighed_anew_and_young_again() -> None:
    made, gone = front(100)
    made.admit("a", 1, 30)
    made.admit("b", 2, 30)
    made.admit("a", 3, 60)
    assert (made.values, made.bytes) == ({"b": 2, "a": 3}, 90)
    made.admit("c", 4, 40)
    assert gone == ["b"]


def test_discard_and_clear() -> None:
    made, gone = front(100)
    made.admit("a", 1, 30)
    made.admit("b", 2, 30)
    made.discard("a")
    made.discard("a")
    assert (made.values, made.bytes, gone) == ({"b": 2}, 30, [])
    made.clear()
    assert (made.values, made.bytes, gone) == ({}, 0, ["b"])


def test_what_dies_in_clear_may_come_back_to_the_front() -> None:
    made, _ = front(100)

    class Reborn:
        def __del__(self) -> None:
            made.admit("again", 1, 10)

    made.admit("k", Reborn(), 50)
    made.clear()
    assert (made.values, made.bytes) == ({"again": 1}, 10)
    made.discard("again")
    assert made.bytes == 0


def test_automatic_fronts_are_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "_auto_bytes_together", lambda: 1000)
    gc.collect()
    before = sum(other.bytes for other in HotFront._automatic)
    fronts = [front(None)[0] for _ in range(5)]
    for turn in range(50):
        fronts[turn % 5].admit(turn, turn, 100)
        assert sum(made.bytes for made in fronts) + before <= max(1000, before + 100)
    assert sum(made.bytes for made in fronts) > 0 or before >= 1000
    own, _ = front(10_000)
    assert own.admit("k", 1, 9000), "a limit of its own is its own"


def test_another_front_that_is_locked_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    limit = sum(other.bytes for other in HotFront._automatic) + 1000
    monkeypatch.setattr(hot, "_auto_bytes_together", lambda: limit)
    full, _ = front(None)
    full.admit("k", 1, 900)
    mine, _ = front(None)
    with full._lock:
        refused: list[bool] = []
        thread = threading.Thread(target=lambda: refused.append(not mine.admit("k", 1, 200)))
        thread.start()
        thread.join(20)
        assert refused == [True]
    assert full.values == {"k": 1}


def test_limit_follows_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "_auto_bytes_together", lambda: 5000)
    assert front(None)[0].limit == 5000
    monkeypatch.setattr(hot, "_auto_bytes_together", lambda: 1 << 40)
    assert front(None)[0].limit == 32 << 20


def test_a_cache_holds_what_it_was_asked_for_up_to_its_bytes() -> None:
    with vrange.VolatileCache(hot_bytes="100KiB", arena_bytes="64MiB") as cache:
        for n in range(20):
            cache[n] = np.full(20_000, n, np.uint8)
            assert cache[n][0] == n
        info = cache.info()
        assert 60_000 < info.hot_bytes <= 100 << 10
        assert info.pinned_bytes == info.hot_bytes // 4096 * 4096
        assert cache[0] is cache[0], "hot: the very same object, as nothing is used more"
        before = cache.info()
        assert cache[19][0] == 19
        now = cache.info()
        assert (now.hot_hits, now.resident_hits) == (before.hot_hits, before.resident_hits + 1)


def test_max_bytes_bounds_what_is_held() -> None:
    with vrange.VolatileCache(max_bytes="100KiB", hot_bytes="1MiB", arena_bytes="1MiB") as cache:
        for n in range(20):
            cache[n] = np.full(20_000, n, np.uint8)
            assert cache[n][0] == n
            assert cache.info().hot_bytes <= 50 << 10


def test_what_was_hot_is_valued_by_how_often_it_was_asked_for() -> None:
    """A hit in the front touches no range: uncounted, what was hot would be the first to go."""
    with vrange.VolatileCache(max_bytes="1MiB", hot_bytes="40KiB", arena_bytes="8MiB") as cache:
        cache["hot"] = np.full(32 << 10, 7, np.uint8)
        for _ in range(600):
            cache["hot"]
        assert cache.info().hot_hits > 590
        for n in range(45):
            if n == 20:
                cache._hot.clear()  # as pressure does
            cache[n] = np.full(32 << 10, n, np.uint8)
            for _ in range(5):
                cache[n]
        assert len(cache) < 40, "some had to go"
        assert cache["hot"][0] == 7
