"""Stale values of a shared cache: answered at once, and computed again by one of all processes."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from tier_support import Remembering, run

import vrange

Cache = vrange.VolatileCache[Any, Any]


def wait_until(what: Any) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_stale_value_is_answered_while_it_is_computed_again(name: str) -> None:
    goes_on = threading.Event()
    computed: list[int] = []

    def compute() -> int:
        computed.append(1)
        if len(computed) > 1:
            assert goes_on.wait(60)
        return len(computed)

    with Cache(shared=name, ttl=0.05, stale=600) as cache:
        assert cache.get_or_compute("a", compute) == 1
        time.sleep(0.06)
        assert cache.get("a") is None
        assert "a" not in cache
        for _ in range(5):
            assert cache.get_or_compute("a", compute) == 1
        goes_on.set()
        wait_until(lambda: cache.get_or_compute("a", lambda: 0) != 1)


def test_a_removal_during_the_refresh_holds(name: str) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def slowly() -> str:
        begun.set()
        assert goes_on.wait(60)
        return "old"

    with Cache(shared=name, ttl=0.05, stale=600) as cache:
        cache.get_or_compute("a", lambda: "first")
        time.sleep(0.06)
        assert cache.get_or_compute("a", slowly) == "first"
        assert begun.wait(60)
        cache.pop("a", None)
        goes_on.set()
        time.sleep(0.05)
        assert cache.get_or_compute("a", lambda: "new") == "new"


def test_decorated_functions_sync_and_async(name: str) -> None:
    calls: list[int] = []

    @vrange.cached(shared=name, ttl=0.05, stale=600)
    def f(x: int) -> list[int]:
        calls.append(x)
        return [x, len(calls)]

    assert f(1) == f(1) == [1, 1]
    time.sleep(0.06)
    assert f(1) == [1, 1]
    wait_until(lambda: f(1) != [1, 1])

    @vrange.cached(shared=name + "2", ttl=0.05, stale=600)
    async def g(x: int) -> list[int]:
        calls.append(x)
        return [x, len(calls)]

    async def use() -> None:
        first = await g(1)
        await asyncio.sleep(0.06)
        assert await g(1) == first
        while await g(1) == first:
            await asyncio.sleep(0.01)

    asyncio.run(use())


def test_one_process_of_all_computes_again(tmp_path: Path) -> None:
    code = """
        import subprocess, sys, time, vrange
        cache = vrange.VolatileCache(shared="pages", ttl=.2, stale=600)
        if len(sys.argv) > 2:
            cache.get_or_compute("a", lambda: print("twice"))
        else:
            def compute():
                # With its end at once: print() may let another thread write before that.
                sys.stdout.write("computing\\n")
                sys.stdout.flush()
                peer = [sys.executable, __file__, sys.argv[1], "peer"]
                subprocess.run(peer, check=True)
                return 2
            cache.get_or_compute("a", lambda: 1)
            time.sleep(.25)
            sys.stdout.write(f"{cache.get_or_compute('a', compute)}\\n")
            while cache.get_or_compute("a", int) == 1:
                time.sleep(.01)
            print("renewed")
    """
    lines = run(code, tmp_path, VRANGE_SERVICE=f"test-{uuid.uuid4().hex[:12]}")
    assert sorted(lines) == ["1", "computing", "renewed"]


def test_with_a_lower_tier_and_tags(name: str) -> None:
    tier = Remembering()
    with Cache(shared=name, ttl=3600, stale=600, below=tier) as cache:
        cache.set("a", 1, tags="t")
        assert cache.get_or_compute("b", lambda: 2, tags="u") == 2
        assert cache.flush()
    with Cache(shared=name + "2", name=name, ttl=3600, stale=600, below=tier) as later:
        assert later["a"] == 1
        later.discard_tag("t")
        assert "a" not in later
        assert later["b"] == 2


def test_what_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="give a ttl"):
        Cache(shared=name, stale=5)
