"""aiocache: what its acceptance tests ask of each cache, by kind, and what they leave out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiocache
import numpy as np
import pytest
from aiocache.lock import OptimisticLock, OptimisticLockError, RedLock

import vrange
from vrange.integrations.aiocache import VolatileCache


def run(main: Callable[[VolatileCache], Awaitable[None]], **options: Any) -> None:
    async def inside() -> None:
        async with VolatileCache(namespace="test", **options) as cache:
            await main(cache)

    asyncio.run(inside())


def test_values() -> None:
    async def main(cache: VolatileCache) -> None:
        assert await cache.get("a") is None
        assert await cache.get("a", default=1) == 1
        for value in ("value", 5, b"x", [1], np.arange(3)):
            assert await cache.set("a", value) is True
            np.testing.assert_equal(await cache.get("a"), value)
        assert await cache.multi_set([("a", 1), ["b", [2]]]) is True
        assert await cache.multi_get(["a", "b", "c"]) == [1, [2], None]
        assert await cache.exists("a") is True
        assert await cache.exists("c") is False
        assert await cache.delete("a") == 1
        assert await cache.delete("a") == 0

    run(main)


def test_add() -> None:
    async def main(cache: VolatileCache) -> None:
        assert await cache.add("a", 1) is True
        with pytest.raises(ValueError, match="already exists"):
            await cache.add("a", 2)
        assert await cache.get("a") == 1

    run(main)


def test_increment() -> None:
    async def main(cache: VolatileCache) -> None:
        assert await cache.increment("n", delta=2) == 2
        assert await cache.increment("m", delta=-2) == -2
        await cache.set("n", "5")
        assert await cache.increment("n") == 6
        await asyncio.gather(*(cache.increment("n") for _ in range(50)))
        assert await cache.get("n") == 56
        await cache.set("text", "x")
        with pytest.raises(TypeError, match="not an integer"):
            await cache.increment("text")

    run(main)


def test_ttl() -> None:
    async def main(cache: VolatileCache) -> None:
        await cache.set("soon", "value", ttl=0.05)
        await cache.set("zero", "value", ttl=0)
        await cache.set("n", 1, ttl=0.05)
        await cache.increment("n")
        await cache.set("kept", "value", ttl=0.05)
        assert await cache.expire("kept", 0) is True
        await cache.set("shortened", "value")
        assert await cache.expire("shortened", 0.05) is True
        assert await cache.expire("absent", 1) is False
        await asyncio.sleep(0.1)
        expected = [None, "value", None, "value", None]
        keys = ["soon", "zero", "n", "kept", "shortened"]
        assert await cache.multi_get(keys) == expected

    run(main)


def test_the_default_ttl() -> None:
    async def main(cache: VolatileCache) -> None:
        await cache.set("a", 1)
        await asyncio.sleep(0.1)
        assert await cache.get("a") is None

    run(main, ttl=0.05)


def test_clear() -> None:
    async def main(cache: VolatileCache) -> None:
        await cache.set("a", 1)
        await cache.set("a", 2, namespace="other")
        await cache.clear(namespace="test")
        assert await cache.get("a") is None
        assert await cache.get("a", namespace="other") == 2
        await cache.clear(namespace="")
        assert await cache.get("a", namespace="other") is None

    run(main)


def test_what_a_caller_changes_is_its_own() -> None:
    async def main(cache: VolatileCache) -> None:
        value = {"list": [1]}
        await cache.set("a", value)
        value["list"].append(2)
        (await cache.get("a"))["list"].append(3)
        assert await cache.get("a") == {"list": [1]}

    run(main)


def test_what_can_not_be_kept_is_no_error() -> None:
    async def main(cache: VolatileCache) -> None:
        with pytest.warns(vrange.NotKeptWarning):
            await cache.set("a", lambda: None)
        assert await cache.get("a") is None

    run(main)


def test_locks() -> None:
    async def main(cache: VolatileCache) -> None:
        async with RedLock(cache, "a", lease=5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_enter(RedLock(cache, "a", lease=5)), 0.02)
        await asyncio.wait_for(_enter(RedLock(cache, "a", lease=5)), 5)
        await cache.set("a", "value")
        async with OptimisticLock(cache, "a") as lock:
            await cache.set("a", "conflict")
            with pytest.raises(OptimisticLockError):
                await lock.cas("new")
        async with OptimisticLock(cache, "a") as lock:
            await lock.cas("new")
        assert await cache.get("a") == "new"

    run(main)


async def _enter(lock: RedLock) -> None:
    async with lock:
        pass


def test_raw_commands_are_those_of_a_mapping() -> None:
    async def main(cache: VolatileCache) -> None:
        assert await cache.raw("setdefault", "a", "value") == "value"
        assert list(await cache.raw("keys")) == ["a"]

    run(main)


def test_decorators() -> None:
    calls: list[int] = []

    async def squared(number: int) -> list[int]:
        calls.append(number)
        return [number * number]

    square = aiocache.cached(cache=VolatileCache, ttl=60, namespace="f")(squared)

    async def main() -> None:
        assert await square(3) == await square(3) == [9]
        assert await square(4) == [16]

    asyncio.run(main())
    assert calls == [3, 4]


def test_configuration() -> None:
    aiocache.caches.set_config(
        {
            "default": {
                "cache": "vrange.integrations.aiocache.VolatileCache",
                "options": {"max_bytes": "1MiB"},
                "name": "aio",
            }
        }
    )
    cache = aiocache.caches.get("default")
    assert isinstance(cache, VolatileCache)
    assert "aio" in {account.name for account in vrange.stats().accounts}
    with pytest.raises(TypeError, match="typo"):
        VolatileCache(options={"typo": 1})
