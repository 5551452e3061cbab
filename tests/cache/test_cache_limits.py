"""What a cache lets go by itself: what expired, and what there is no room for."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

import numpy as np
from support import MIB

import vrange

Cache = vrange.VolatileCache[Any, Any]


def test_expired_values_are_gone(cache: Cache) -> None:
    with Cache(ttl=0.05, arena_bytes="16MiB") as brief:
        brief["small"], brief["large"] = 1, np.zeros(9000)
        computed: list[int] = []

        def compute() -> int:
            computed.append(1)
            return 1 + len(computed)

        assert brief["small"] == 1
        held = brief["large"]
        time.sleep(0.06)
        assert "small" not in brief
        assert len(brief) == 0
        assert list(brief.items()) == []
        assert brief.get("large") is None
        assert brief.get_or_compute("small", compute) == 2
        assert brief.get_or_compute("small", compute) == 2
        assert computed == [1]
        assert held.sum() == 0
        info = brief.info()
        assert (info.purged, info.misses) == (0, 2)


def test_a_value_stored_again_lives_anew() -> None:
    with Cache(ttl=0.2, arena_bytes="16MiB") as cache:
        for n in range(3):
            cache[n] = n
        time.sleep(0.12)
        cache[0] = "again"
        time.sleep(0.12)
        assert sorted(cache, key=str) == [0]
        assert cache[0] == "again"


def test_expired_entries_do_not_pile_up() -> None:
    with Cache(ttl=0.02, arena_bytes="64MiB", hot_bytes=0) as cache:
        for n in range(3000):
            cache[n] = bytes(300) if n % 3 else bytes(5000)
            if n % 300 == 0:
                time.sleep(0.025)
        assert cache._core.entries < 1500
        account = cache._account.read()
        assert account.ranges < 600


def test_max_bytes() -> None:
    with Cache(max_bytes="1MiB", arena_bytes="16MiB") as cache:
        for n in range(200):
            cache[n] = np.full(50_000, n % 256, np.uint8)
            info = cache.info()
            assert info.pinned_bytes + info.idle_bytes + info.offered_bytes <= MIB
        assert 10 <= info.entries <= 20
        assert info.evicted_bytes > 0
        assert cache[199][0] == 199
        cache["large"] = bytes(2 * MIB)
        assert "large" not in cache
        assert cache.get_or_compute("large", lambda: bytes(2 * MIB)) == bytes(2 * MIB)
        assert "large" not in cache
        assert cache.info().entries == info.entries
        assert cache.info().refused == 2
        held = [cache.get_or_compute(("held", n), lambda: np.ones(100_000)) for n in range(3)]
        assert all((array == 1).all() for array in held)


def test_a_value_too_large_for_the_arena_costs_the_others_nothing() -> None:
    with Cache(arena_bytes="4MiB", hot_bytes=0) as cache:
        for n in range(10):
            cache[n] = os.urandom(100_000)
        cache["large"] = bytes(5 * MIB)
        assert "large" not in cache
        assert len(cache.get_or_compute("large", lambda: bytes(5 * MIB))) == 5 * MIB
        assert len(cache) == 10


def test_a_full_arena_lets_old_ones_go_but_nothing_that_is_held() -> None:
    with Cache(arena_bytes="4MiB", hot_bytes=0) as cache:
        held = [cache.get_or_compute(n, partial(np.full, MIB, n, np.uint8)) for n in range(3)]
        for n in range(3, 40):
            cache[n] = np.full(300_000, n, np.uint8)
            assert cache[n][0] == n
        assert all((array == n).all() for n, array in enumerate(held))
        assert all((cache[n] == n).all() for n in range(3))
        cache["k"] = "small"
        cache["k"] = bytes(2 * MIB)
        assert "k" not in cache, "neither the new value nor the one before"
        assert cache.get_or_compute("k", lambda: b"y" * 2 * MIB) == b"y" * 2 * MIB
        assert "k" not in cache
        del held
        cache["k"] = b"y" * 2 * MIB
        assert cache["k"] == b"y" * 2 * MIB
