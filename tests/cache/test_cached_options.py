"""Options of @cached: what to ignore and to skip, which cache to use, how long to wait."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections.abc import Callable
from fractions import Fraction
from operator import attrgetter
from typing import Any

import numpy as np
import pytest

import vrange
from vrange import cached

Cache = vrange.VolatileCache[Any, Any]


# ---- ignore --------------------------------------------------------------------------------------


def test_ignored_parameters_are_no_part_of_the_key() -> None:
    calls = []

    @cached(ignore=("session", "log"))
    def load(path: str, session: Any = None, depth: int = 1, *, log: Any = print) -> str:
        calls.append(path)
        return f"{path}{depth}"

    assert load("a") == load("a", object()) == load("a", session=[]) == load("a", log={}) == "a1"
    assert load("a", None, 2) == load("a", [1], 2, log=3) == "a2"
    assert calls == ["a", "a"]
    assert load.cache_contains("a", session=7)
    assert load.cache_discard("a", [])
    assert not load.cache_contains("a")
    assert load.cache_parameters()["ignore"] == ("session", "log")


def test_ignoring_all_further_arguments() -> None:
    calls = []

    @cached(ignore="args")
    def first(n: int, *args: Any, **kwargs: Any) -> int:
        calls.append(n)
        return n

    assert first(1) == first(1, [2], 3) == 1
    assert calls == [1]
    assert first(1, x=1) == first(1, [3], x=1) == 1
    assert calls == [1, 1]

    @cached(ignore=["kwargs", "known"])
    def named(n: int, *, known: int = 0, other: int = 0, **kwargs: Any) -> int:
        calls.append(n)
        return other

    assert named(5) == named(5, known=3, anything=[1]) == 0
    assert named(5, other=2) == 2
    assert calls == [1, 1, 5, 5]

    @cached(ignore="debug")  # one of the names that go to kwargs
    def any_name(**kwargs: Any) -> int:
        return len(kwargs)

    assert any_name(a=1, debug=True) == any_name(a=1) == 2


def test_ignoring_in_methods_and_coroutine_functions() -> None:
    class Table:
        calls = 0

        @cached(ignore=("self",))
        def size(self, name: str) -> int:
            Table.calls += 1
            return len(name)

    assert Table().size("abc") == Table().size("abc") == 3
    assert Table.calls == 1

    @cached(ignore="token")
    async def fetch(url: str, token: object) -> str:
        return url

    async def main() -> None:
        assert await fetch("a", object()) == await fetch("a", token=[]) == "a"
        assert fetch.cache_info().misses == 1

    asyncio.run(main())


def test_ignore_is_checked_when_decorating() -> None:
    wrong: Any = cached
    with pytest.raises(TypeError, match=r"ignore names 'sesion', which is no parameter of .*path"):

        @cached(ignore="sesion")
        def load(path: str) -> None: ...

    with pytest.raises(TypeError, match="ignore belongs to the default key"):
        wrong(ignore="path", key=len)
    with pytest.raises(TypeError, match="ignore must be names of parameters, not 5"):
        wrong(ignore=5)


# ---- cache= --------------------------------------------------------------------------------------


def test_several_functions_on_one_cache() -> None:
    with Cache(name="both", max_entries=50) as cache:

        @cached(cache=cache)
        def double(n: int) -> int:
            return 2 * n

        @cached(cache=cache)
        def triple(n: int) -> int:
            return 3 * n

        @cached(cache=cache)
        async def negative(n: int) -> int:
            return -n

        cache["mine"] = "kept"
        for _ in range(2):
            assert (double(2), triple(2), asyncio.run(negative(2))) == (4, 6, -2)
        assert double.cache is triple.cache is cache
        assert len(cache) == 4
        assert (cache.info().hits, cache.info().misses) == (3, 3)
        assert triple.cache_discard(2)
        assert double.cache_contains(2)
        assert not triple.cache_contains(2)
        double.cache_clear()
        assert not double.cache_contains(2)
        assert negative.cache_contains(2)
        assert cache["mine"] == "kept"
        assert double(2) == 4


def test_clearing_while_a_function_computes() -> None:
    begun, may_end, answers = threading.Event(), threading.Event(), ["old", "new"]
    with Cache(name="cleared") as cache:

        @cached(cache=cache)
        def slow() -> str:
            answer = answers.pop(0)
            if answer == "old":
                begun.set()
                may_end.wait(30)
            return answer

        thread = threading.Thread(target=slow)
        thread.start()
        begun.wait(30)
        slow.cache_clear()
        assert slow() == "new"
        may_end.set()
        thread.join()
        assert slow() == "new"


class Client:
    def __init__(self, name: str) -> None:
        self.name = name
        self.cache = Cache(name=name)
        self.calls = 0

    @cached(cache=attrgetter("cache"))
    def get(self, path: str) -> str:
        self.calls += 1
        return f"{self.name}/{path}"

    @cached(cache=lambda self: self.cache, ignore="session")
    def other(self, path: str, session: Any = None) -> str:
        self.calls += 1
        return path

    @cached(cache=attrgetter("cache"))
    async def fetch(self, path: str) -> str:
        self.calls += 1
        return path * 2


def test_each_object_has_its_cache() -> None:
    one, two = Client("one"), Client("two")
    for _ in range(2):
        assert (one.get("a"), one.other("a"), two.get("a")) == ("one/a", "a", "two/a")
        assert one.other("a", [1]) == "a"
        assert asyncio.run(one.fetch("a")) == "aa"
    assert (one.calls, two.calls) == (3, 1)
    assert one.get.cache is one.cache
    assert (len(one.cache), len(two.cache)) == (3, 1)
    assert one.get.cache_info().name == "one"
    assert Client.get.cache_contains(two, "a")
    assert one.get.cache_discard("a")
    assert two.get.cache_contains("a")
    one.other.cache_clear()
    assert one.fetch.cache_contains("a")
    assert not one.other.cache_contains("a")
    with pytest.raises(TypeError, match="caches by its first argument, and there is none"):
        Client.get()  # type: ignore[call-overload]


def test_an_object_with_a_cache_is_not_kept_alive_by_it() -> None:
    client = Client("gone")
    client.get("a")
    reference = weakref.ref(client)
    del client
    gc.collect()
    assert reference() is None


def test_bad_caches() -> None:
    wrong: Any = cached
    with pytest.raises(TypeError, match="cache must be a VolatileCache or a function"):
        wrong(cache={})
    with Cache(name="given") as cache:
        for options in ({"ttl": 5}, {"name": "n"}, {"max_entries": 5}, {"timeout": 1}):
            with pytest.raises(TypeError, match=f"{next(iter(options))} belongs to the cache"):
                wrong(cache=cache, **options)
    broken = wrong(cache=lambda self: {})(lambda self: 1)
    with pytest.raises(TypeError, match=r"cache= must return a VolatileCache, not \{\}"):
        broken(3)


# ---- skip ----------------------------------------------------------------------------------------


def test_skipped_results_are_returned_and_not_cached() -> None:
    calls = []

    @cached(skip=lambda value: value is None)
    def find(n: int) -> int | None:
        calls.append(n)
        return n if n > 0 else None

    for _ in range(2):
        assert find(-1) is None
        assert find(1) == 1
    assert calls == [-1, 1, -1]
    assert not find.cache_contains(-1)
    assert find.cache_info().entries == 1

    @cached(skip=lambda value: not value)
    async def find_later(n: int) -> list[int]:
        calls.append(n)
        await asyncio.sleep(0)
        return [] if n < 0 else [n]

    async def main() -> None:
        for _ in range(2):
            assert await find_later(-2) == []
            assert await find_later(2) == [2]
        assert await asyncio.gather(*[find_later(-3) for _ in range(4)]) == [[]] * 4

    del calls[:]
    asyncio.run(main())
    assert calls[:3] == [-2, 2, -2]
    assert find_later.cache_info().entries == 1


def test_a_skipped_part_leaves_the_whole_cached() -> None:
    @cached(skip=lambda value: value == 1)
    def part(n: int) -> int:
        return n

    calls = []

    @cached
    def whole(n: int) -> int:
        calls.append(n)
        return part(n) + 1

    assert whole(1) == whole(1) == 2
    assert calls == [1]
    assert not part.cache_contains(1)


def test_an_error_in_skip_is_raised() -> None:
    @cached(skip=lambda value: 1 // value)
    def zero() -> int:
        return 0

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            zero()


# ---- timeout -------------------------------------------------------------------------------------


def test_a_caller_that_waited_long_enough_computes() -> None:
    begun, may_end, calls = threading.Event(), threading.Event(), []

    @cached(timeout=0.05)
    def slow(n: int) -> str:
        calls.append(n)
        if len(calls) == 1:
            begun.set()
            may_end.wait(30)
            return "leader"
        return "own"

    found = []
    leader = threading.Thread(target=lambda: found.append(slow(1)))
    leader.start()
    begun.wait(30)
    assert slow(1) == "own"
    may_end.set()
    leader.join()
    assert found == ["leader"]
    assert slow(1) == "leader"
    assert calls == [1, 1]
    info = slow.cache_info()
    assert (info.hits, info.misses, info.waited) == (1, 2, 0)


def test_a_task_that_waited_long_enough_computes() -> None:
    calls = []

    @cached(timeout=0.05)
    async def slow(n: int) -> str:
        calls.append(n)
        if len(calls) == 1:
            await asyncio.sleep(0.5)
            return "leader"
        await asyncio.sleep(0.001)
        return "own"

    async def main() -> None:
        assert list(await asyncio.gather(slow(1), slow(1))) == ["leader", "own"]
        assert await slow(1) == "leader"
        info = slow.cache_info()
        assert (info.hits, info.misses, info.waited) == (1, 2, 0)
        assert list(await asyncio.gather(slow(2), slow(2))) == ["own", "own"]
        assert slow.cache_info().waited == 1

    asyncio.run(main())


def test_a_timeout_that_is_long_enough_changes_nothing() -> None:
    calls = []

    @cached(timeout=60)
    def slow(n: int) -> int:
        calls.append(n)
        time.sleep(0.05)
        return n

    threads = [threading.Thread(target=slow, args=(1,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


@pytest.mark.parametrize("bad", [-1, "1s", True, float("nan")])
def test_bad_timeouts(bad: Any) -> None:
    make: list[Callable[[], Any]] = [lambda: cached(timeout=bad), lambda: Cache(timeout=bad)]
    for one in make:
        with pytest.raises(ValueError, match="timeout must be a number of seconds"):
            one()


@pytest.mark.parametrize(
    "number", [5, 0.5, np.int64(5), np.float32(2), Fraction(1, 2), 10**400, math.inf], ids=repr
)
def test_times_are_numbers_of_every_kind(number: Any) -> None:
    with vrange.VolatileCache[str, int](ttl=number, timeout=number) as cache:
        cache["a"] = 1
        cache.set("b", 1, ttl=number)
        assert cache["a"] == cache["b"] == 1
