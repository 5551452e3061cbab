"""Tags: all values with one are removed at once, in all processes, here and below."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tier_support import Remembering, run

import vrange

Cache = vrange.VolatileCache[Any, Any]


@pytest.fixture(params=["own", "shared"])
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    more: dict[str, Any] = {"shared": name} if request.param == "shared" else {"name": name}
    with Cache(tags=True, **more) as cache:
        yield cache


def test_values_with_a_tag_go_at_once(cache: Cache) -> None:
    cache.set("a", np.arange(5000), tags=["user:7", "pages"])
    cache.set("b", [1, 2], tags="user:7")
    cache.set("c", 3, tags="user:8")
    cache["d"] = 4
    assert int(cache["a"][7]) == 7
    assert cache["b"] == [1, 2]
    cache.discard_tag("user:7")
    assert "a" not in cache
    assert cache.get("a") is None
    assert cache.get("b", 9) == 9
    assert cache["c"] == 3
    assert cache["d"] == 4
    assert sorted(cache) == ["c", "d"]
    assert len(cache) == 2
    cache.set("a", 1, tags="user:7")
    assert cache["a"] == 1
    cache.discard_tag("pages")
    assert cache["a"] == 1


def test_computed_values(cache: Cache) -> None:
    computed = iter(range(9))
    for expected in 0, 0:
        assert cache.get_or_compute("a", lambda: next(computed), tags="t") == expected
    cache.discard_tag("t")
    assert cache.get_or_compute("a", lambda: next(computed), tags="t") == 1

    async def compute() -> int:
        return next(computed)

    cache.discard_tag("t")
    for expected in 2, 2:
        assert asyncio.run(cache.get_or_compute_async("a", compute, tags=["t"])) == expected


def test_a_computation_that_began_before_is_not_answered_after(cache: Cache) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def slowly() -> str:
        begun.set()
        assert goes_on.wait(60)
        return "old"

    def look() -> None:
        answers.append(cache.get_or_compute("a", slowly, tags="t"))

    answers: list[str] = []
    thread = threading.Thread(target=look)
    thread.start()
    assert begun.wait(60)
    cache.discard_tag("t")
    goes_on.set()
    thread.join()
    assert answers == ["old"]  # it began earlier
    assert cache.get("a") is None
    assert cache.get_or_compute("a", lambda: "new", tags="t") == "new"


def test_discarding_looks_at_no_value(cache: Cache) -> None:
    before = cache.info()
    for key in range(300):
        cache.set(key, key, tags="t")
    cache.discard_tag("t")
    assert cache.info().evicted_bytes == before.evicted_bytes
    assert len(cache) == 300  # they go when they are looked up
    assert [cache.get(key) for key in range(300)] == [None] * 300


def test_a_value_that_looks_like_ours() -> None:
    with Cache(name="x", tags=True) as cache:
        for value in ("a", (), 1), ((), 1), (1, 2, 3):
            cache["a"] = value
            assert cache["a"] == value


@pytest.mark.parametrize("shared", [False, True])
def test_decorated_functions(shared: bool) -> None:
    calls: list[Any] = []
    of_user: Callable[..., Any] = lambda user, page=0: [f"user:{user}"]  # noqa: E731
    name = f"test-{uuid.uuid4().hex[:12]}"
    more: dict[str, Any] = {"shared": name} if shared else {"name": name}

    @vrange.cached(tags=of_user, **more)
    def show(user: int, page: int = 0) -> tuple[int, int]:
        calls.append((user, page))
        return user, page

    for _ in range(2):
        assert (show(7), show(7, page=1), show(8)) == ((7, 0), (7, 1), (8, 0))
    assert len(calls) == 3
    show.cache.discard_tag("user:7")
    assert not show.cache_contains(7, page=1)
    assert show.cache_contains(8)
    assert (show(7), show(8)) == ((7, 0), (8, 0))
    assert len(calls) == 4
    assert show.cache_discard(8)
    assert not show.cache_contains(8)

    @vrange.cached(tags="all", name=name + "2")
    async def load(x: int) -> int:
        calls.append(x)
        return x

    assert asyncio.run(load(1)) == asyncio.run(load(1)) == 1
    load.cache.discard_tag("all")
    asyncio.run(load(1))
    assert len(calls) == 6


def test_functions_that_have_one_cache() -> None:
    with Cache(name="x", tags=True) as cache:
        first = vrange.cached(cache=cache, tags="t")(lambda x: [x])
        second = vrange.cached(cache=cache)(lambda x: [x, x])
        assert first(1) == [1]
        assert second(1) == [1, 1]
        cache.discard_tag("t")
        assert not first.cache_contains(1)
        assert second.cache_contains(1)


def test_all_processes_of_a_service(tmp_path: Path) -> None:
    code = """
        import subprocess, sys, vrange
        cache = vrange.VolatileCache(shared="pages", tags=True)
        if len(sys.argv) > 2:
            print(cache.get("a"), cache.get("b"))
            cache.discard_tag("t")
        else:
            cache.set("a", "x" * 1000, tags="t")
            cache.set("b", 2)
            print(len(cache["a"]))
            subprocess.run([sys.executable, __file__, sys.argv[1], "peer"], check=True)
            print(cache.get("a"), cache.get("b"))
    """
    lines = run(code, tmp_path, VRANGE_SERVICE=f"test-{uuid.uuid4().hex[:12]}")
    assert lines == ["1000", f"{'x' * 1000} 2", "None 2"]


def test_tags_below_without_tags_here() -> None:
    tier = Remembering()

    @vrange.cached(below=tier, name="f", tags=lambda x: f"x:{x}")
    def f(x: int) -> int:
        return x

    assert (f(1), f(2)) == (1, 2)
    f.cache.flush()
    f.cache.discard_tag("x:1")
    again = vrange.cached(below=tier, name="f", tags=lambda x: f"x:{x}")(f.__wrapped__)
    assert (again.cache_contains(1), again.cache_contains(2)) == (False, True)


def test_refusals() -> None:
    with Cache(name="x") as plain:
        for use in (
            lambda: plain.set("a", 1, tags="t"),
            lambda: plain.get_or_compute("a", int, tags="t"),
            lambda: plain.discard_tag("t"),
        ):
            with pytest.raises(TypeError, match=r"make it with VolatileCache\(tags=True\)"):
                use()
        assert plain.flush()
    with Cache(name="x", tags=True) as cache:
        for bad in (7, [7], b"t"):
            with pytest.raises(TypeError, match="tags must be"):
                cache.set("a", 1, tags=bad)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a tag is a str"):
            cache.discard_tag(7)  # type: ignore[arg-type]
        with cache.copy() as other:
            other.set("a", 1, tags="t")
    with pytest.raises(TypeError, match="tags must be"):
        vrange.cached(tags=7)(len)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="tags must be True or False"):
        Cache(tags="t")  # type: ignore[arg-type]
