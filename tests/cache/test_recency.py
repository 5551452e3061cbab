"""What is kept when requests move on: as much as an LRU keeps, without losing what lasts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("cachetools", reason="the benchmark's peer is not installed (group peers)")

from benchmarks.recency import ENTRIES, LRU, OF_LOOP, OF_LRU, OURS, saved
from benchmarks.streams import STREAMS, front, zipf

from vrange import VolatileCache

PAGE = 4096
REQUESTS = 14_000
Cache = VolatileCache[int, Any]


@pytest.mark.parametrize("ours", [OURS, ENTRIES])
@pytest.mark.parametrize("name", ["moving front", "shift"])
def test_requests_that_move_on_are_hit_as_often_as_in_an_lru(name: str, ours: str) -> None:
    stream = STREAMS[name]()
    assert saved(stream, ours, REQUESTS) >= OF_LRU * saved(stream, LRU, REQUESTS)


@pytest.mark.parametrize("ours", [OURS, ENTRIES])
def test_a_loop_that_is_longer_than_the_cache_is_hit(ours: str) -> None:
    assert saved(STREAMS["loop"](), ours, REQUESTS) >= OF_LOOP


@pytest.mark.parametrize(
    ("name", "ours", "more"),
    [
        ("Zipf 1.0", OURS, 0.03),
        ("Zipf 1.0", ENTRIES, 0.005),
        ("mixed", OURS, 0.15),
        ("mixed front", OURS, 0.03),
    ],
)
def test_popularity_that_lasts_and_costs_count_for_more_than_in_an_lru(
    name: str, ours: str, more: float
) -> None:
    stream = STREAMS[name]()
    assert saved(stream, ours, REQUESTS) >= saved(stream, LRU, REQUESTS) + more


def look(cache: Cache, key: int) -> bool:
    """Request a key. Return whether it was hit."""
    if cache.get(key) is not None:
        return True
    cache[key] = np.ones(PAGE, np.uint8)
    return False


def test_hot_values_move_on_too() -> None:
    keys = front().keys[:REQUESTS]
    with Cache(max_bytes=480 * PAGE) as cache:
        assert sum(look(cache, key) for key in keys) / len(keys) > 0.65


def test_what_lasts_is_found_again_after_requests_that_moved_on() -> None:
    with Cache(max_bytes=480 * PAGE, hot_bytes=0) as cache:
        for key in front().keys[:10_000]:
            look(cache, key)
        lasting = zipf(1.0).keys
        for key in lasting[:16_000]:
            look(cache, key)
        counted = lasting[16_000:]
        assert sum(look(cache, key) for key in counted) / len(counted) > 0.8  # an LRU: .78


def test_each_cache_with_a_bound_ages_in_its_own_way() -> None:
    hits = [0, 0]
    keys = list(zip(front().keys, zipf(1.0).keys, strict=True))[:REQUESTS]
    with (
        Cache(max_bytes=480 * PAGE, hot_bytes=0) as moving,
        Cache(max_bytes=480 * PAGE, hot_bytes=0) as lasting,
    ):
        for one, other in keys:
            hits[0] += look(moving, one)
            hits[1] += look(lasting, other)
    assert hits[0] / len(keys) > 0.65
    assert hits[1] / len(keys) > 0.79
