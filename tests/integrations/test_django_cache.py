"""Django's cache framework: what its documentation promises, through its own API.

`scripts/test-django-cache` runs Django's own tests.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from support import wait_until

import vrange

BACKEND = "vrange.integrations.django.Cache"
if not settings.configured:
    settings.configure(
        CACHES={
            "default": {"BACKEND": BACKEND, "LOCATION": "tests"},
            "prefix": {"BACKEND": BACKEND, "LOCATION": "tests", "KEY_PREFIX": "p"},
            "v2": {"BACKEND": BACKEND, "LOCATION": "tests", "VERSION": 2},
            "other": {"BACKEND": BACKEND, "LOCATION": "other", "TIMEOUT": None},
            "views": {"BACKEND": BACKEND, "OPTIONS": {"copy": False}},
            "bounded": {"BACKEND": BACKEND, "OPTIONS": {"MAX_ENTRIES": 30, "CULL_FREQUENCY": 2}},
            "typo": {"BACKEND": BACKEND, "OPTIONS": {"MAXBYTES": 1}},
        }
    )


@pytest.fixture
def cache() -> Iterator[BaseCache]:
    yield caches["default"]
    caches["default"].clear()
    caches["other"].clear()


def test_values_of_all_kinds(cache: BaseCache) -> None:
    for value in ("text", b"bytes", 5, 1.5, None, True, [1, {"a": (2,)}], np.arange(3)):
        cache.set("v", value)
        np.testing.assert_equal(cache.get("v", "absent"), value)
        assert type(cache.get("v")) is type(value)
        assert "v" in cache


def test_misses(cache: BaseCache) -> None:
    assert cache.get("a") is None
    assert cache.get("a", "default") == "default"
    assert not cache.has_key("a")
    assert "a" not in cache
    assert cache.delete("a") is False
    assert cache.touch("a") is False
    with pytest.raises(ValueError, match="Key 'a' not found"):
        cache.incr("a")
    with pytest.raises(ValueError, match="Key 'a' not found"):
        cache.incr_version("a")


def test_add_and_delete(cache: BaseCache) -> None:
    assert cache.add("a", None) is True
    assert cache.add("a", 2) is False
    assert cache.get("a", "absent") is None
    assert cache.delete("a") is True
    assert cache.add("a", 2) is True


def test_many(cache: BaseCache) -> None:
    assert cache.set_many({"a": 1, "b": [2]}) == []
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": [2]}
    cache.delete_many(["a", "c"])
    assert cache.get_many(["a", "b"]) == {"b": [2]}


def test_counting(cache: BaseCache) -> None:
    cache.set("n", 41)
    assert cache.incr("n") == 42
    assert cache.incr("n", 10) == 52
    assert cache.decr("n", 50) == cache.get("n") == 2
    assert cache.incr("n", -10) == -8
    cache.set("text", "x")
    with pytest.raises(TypeError):
        cache.incr("text")


def test_timeouts(cache: BaseCache) -> None:
    cache.set("at-once", 1, timeout=0)
    cache.set("past", 1, timeout=-5)
    cache.set("soon", 1, timeout=0.1)
    cache.set("for-ever", 1, timeout=None)
    cache.set("default", 1)
    cache.set("century", 1, timeout=60 * 60 * 24 * 36500)
    assert cache.get("at-once") is cache.get("past") is None
    wait_until(lambda: cache.get("soon") is None, "it expires")
    assert cache.get_many(["for-ever", "default", "century"]).keys() == {
        "for-ever",
        "default",
        "century",
    }


def test_an_incremented_number_expires_when_it_would_have(cache: BaseCache) -> None:
    cache.set("n", 1, timeout=0.1)
    cache.incr("n")
    wait_until(lambda: cache.get("n") is None, "it expires")


def test_touch(cache: BaseCache) -> None:
    cache.set("a", "x", timeout=0.1)
    assert cache.touch("a", timeout=None)
    time.sleep(0.15)
    assert cache.get("a") == "x"
    assert cache.touch("a", timeout=0) is True
    assert cache.get("a") is None


def test_get_or_set(cache: BaseCache) -> None:
    assert cache.get_or_set("a", lambda: [1]) == [1]
    assert cache.get_or_set("a", lambda: [2]) == [1]
    assert cache.get_or_set("b", "plain", timeout=None) == "plain"
    assert cache.get_or_set("none", lambda: None) is None
    assert cache.has_key("none")


def test_versions_and_prefixes(cache: BaseCache) -> None:
    caches["v2"].set("a", "two")
    caches["prefix"].set("a", "prefixed")
    cache.set("a", "one")
    assert cache.get("a", version=2) == "two"
    assert caches["v2"].get("a") == "two"
    assert caches["prefix"].get("a") == "prefixed"
    assert cache.incr_version("a") == 2
    assert cache.get("a") is None
    assert cache.get("a", version=2) == "one"
    assert cache.decr_version("a", version=2) == 1
    assert cache.get("a") == "one"


def test_a_location_is_a_cache_of_its_own(cache: BaseCache) -> None:
    cache.set("a", 1)
    caches["other"].set("a", 2)
    cache.clear()
    assert caches["other"].get("a") == 2
    assert caches["prefix"].get("a") is None


def test_threads_share_a_location(cache: BaseCache) -> None:
    cache.set("n", 0)

    def count() -> None:
        mine = caches["default"]  # another object in each thread
        assert mine is not cache
        for _ in range(300):
            mine.incr("n")

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 900


def test_isolation(cache: BaseCache) -> None:
    value: dict[str, Any] = {"list": [1], "array": np.zeros(1 << 14)}
    cache.set("v", value)
    value["list"].append(2)
    got = cache.get("v")
    got["list"].append(3)
    got["array"][:] = 9
    again = cache.get("v")
    assert again["list"] == [1]
    assert not again["array"].any()


def test_arrays_without_a_copy() -> None:
    caches["views"].set("v", np.zeros(1 << 14))
    first, second = caches["views"].get("v"), caches["views"].get("v")
    assert np.shares_memory(first, second)
    assert not first.flags.writeable


def test_what_can_not_be_pickled_is_reported(cache: BaseCache) -> None:
    raised = pytest.raises((pickle.PickleError, AttributeError))
    cache.set("a", "old")
    with pytest.warns(vrange.NotKeptWarning), raised:
        cache.set("a", lambda: None)
    assert cache.get("a") is None
    with raised:  # a cache warns once of a type
        cache.add("a", lambda: None)
    assert cache.get("a") is None


def test_bounds() -> None:
    for number in range(100):
        caches["bounded"].set(str(number), number)
    assert 0 < sum(caches["bounded"].has_key(str(number)) for number in range(100)) <= 30
    with pytest.raises(TypeError, match="MAXBYTES"):
        caches["typo"]


def test_async(cache: BaseCache) -> None:
    async def main() -> None:
        await cache.aset("n", 1)
        assert await cache.aget("n") == 1
        assert await cache.aadd("n", 2) is False
        await asyncio.gather(*(cache.aincr("n") for _ in range(50)))
        assert await cache.adecr("n") == 50
        assert await cache.ahas_key("n")
        assert await cache.atouch("n", 60)
        assert await cache.aget_or_set("m", lambda: 7) == 7
        assert await cache.aget_many(["n", "m"]) == {"n": 50, "m": 7}
        assert await cache.aset_many({"x": 1}) == []
        await cache.adelete_many(["x"])
        assert await cache.adelete("n") is True
        assert await cache.aincr_version("m") == 2
        await cache.aclear()
        assert await cache.aget("m", version=2) is None

    asyncio.run(main())
