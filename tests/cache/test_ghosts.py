"""What is remembered of values that are gone: how often they were used, and who took them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import MIB

from vrange import VolatileCache

Cache = VolatileCache[object, object]


@pytest.fixture
def small_cache() -> Iterator[Cache]:
    with Cache(hot_bytes=0, arena_bytes="16MiB") as cache:
        yield cache


def test_how_often_it_was_used_and_halved_with_every_epoch(small_cache: Cache) -> None:
    small_cache["k"] = bytes(5000)
    for _ in range(40):
        small_cache["k"]
    used = small_cache._core.uses("k")
    assert used >= 40 * 16
    small_cache.discard()
    assert len(small_cache) == 0
    assert small_cache._core.uses("k") == used
    small_cache["other"] = bytes(5000)
    for _ in range(3000):  # an epoch is a thousand requests at least
        small_cache["other"]
    assert 0 < small_cache._core.uses("k") <= used // 2
    small_cache["k"] = bytes(5000)
    assert 16 < small_cache._core.uses("k") <= 16 + used // 2, "it comes back as what it was"
    assert small_cache._core.uses("never") == 0


def test_who_took_it(small_cache: Cache) -> None:
    for key in ("taken", "let go", "both"):
        small_cache[key] = bytes(5000)
    small_cache.discard("taken", "both")
    assert len(small_cache) == 1
    del small_cache["let go"]
    for key in ("taken", "let go", "never"):
        small_cache.get(key)
    info = small_cache.info()
    assert (info.purged, info.misses) == (1, 2)
    small_cache["both"] = 1
    del small_cache["both"]
    small_cache.get("both")
    assert small_cache.info().purged == 1, "the latest word counts"


def test_the_oldest_are_forgotten_beyond_the_number_of_entries(small_cache: Cache) -> None:
    rounds, each = 30, 1000
    for turn in range(rounds):
        for n in range(each):
            small_cache[turn, n] = bytes(100)
        small_cache.discard()
        assert len(small_cache) == 0
    purged = []
    for turn in range(rounds):
        before = small_cache.info().purged
        for n in range(each):
            small_cache.get((turn, n))
        purged.append(small_cache.info().purged - before)
    assert purged[-4:] == [each] * 4, "as many as 4096 are remembered"
    assert purged[:20] == [0] * 20
    assert sum(purged) <= 3 * 4096


def test_clear(small_cache: Cache) -> None:
    small_cache["k"] = bytes(MIB)
    small_cache.discard()
    assert len(small_cache) == 0
    small_cache.clear()
    assert small_cache.get("k") is None
    assert small_cache.info().purged == 0
