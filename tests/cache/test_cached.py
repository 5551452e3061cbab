"""@cached beside functools.cache: the same calls, the same answers."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vrange
from vrange import cached

Decorator = Callable[..., Any]
both = pytest.mark.parametrize("decorate", [cached, functools.cache], ids=["vrange", "functools"])
both_typed = pytest.mark.parametrize(
    "decorate",
    [cached(typed=True), functools.lru_cache(maxsize=None, typed=True)],
    ids=["vrange", "functools"],
)


@cached
def at_module_level(n: int, *, step: int = 1) -> list[int]:
    """Counts up."""
    return list(range(0, n, step))


@cached
async def coroutine_at_module_level(n: int) -> int:
    return n


def counting(decorate: Decorator) -> tuple[Any, list[tuple[Any, ...]]]:
    calls: list[tuple[Any, ...]] = []

    @decorate
    def function(*args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        return repr((args, kwargs))

    return function, calls


arguments = st.sampled_from(
    [0, 1, True, False, 1.0, -0.0, 0.0, "a", "b", "", b"a", None, (), (1,), ("a",), (1, 2), 2]
)


@given(
    st.lists(
        st.tuples(
            st.lists(arguments, max_size=3),
            st.dictionaries(st.sampled_from("abc"), arguments, max_size=2),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_the_same_calls_are_the_same_as_for_functools(
    calls: list[tuple[list[Any], dict[str, Any]]], typed: bool
) -> None:
    ours, our_calls = counting(cached(typed=typed))
    theirs, their_calls = counting(functools.lru_cache(maxsize=None, typed=typed))
    for args, kwargs in calls:
        assert ours(*args, **kwargs) == theirs(*args, **kwargs)
        assert len(our_calls) == len(their_calls), (args, kwargs)
    assert ours.cache_info().hits == theirs.cache_info().hits
    assert ours.cache_info().misses == theirs.cache_info().misses
    ours.cache.close()


@both
def test_order_of_keywords_and_positions_matter(decorate: Decorator) -> None:
    function, calls = counting(decorate)
    function(1, 2)
    function(1, b=2)
    function(a=1, b=2)
    function(b=2, a=1)
    function((1, 2))
    function("a", 1)
    function(a=1)
    assert len(calls) == 7
    function(1, 2)
    function(b=2, a=1)
    assert len(calls) == 7


@both_typed
def test_typed(decorate: Decorator) -> None:
    function, calls = counting(decorate)
    for one in (1, 1.0, True):
        function(one)
        function(x=one)
        function((one,))
    assert len(calls) == 7, "what is inside of a tuple is not looked at"


@both
def test_unhashable_arguments(decorate: Decorator) -> None:
    function, calls = counting(decorate)
    unhashable: list[Any] = [[], {}, {1}, ([],)]
    for bad in unhashable:
        with pytest.raises(TypeError, match="unhashable"):
            function(bad)
        with pytest.raises(TypeError, match="unhashable"):
            function(x=bad)
    assert not calls


@both
def test_exceptions_are_not_cached(decorate: Decorator) -> None:
    calls = []

    @decorate
    def fail(n: int) -> int:
        calls.append(n)
        if len(calls) < 3:
            raise ZeroDivisionError(len(calls))
        return n

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail(1)
    assert fail(1) == fail(1) == 1
    assert len(calls) == 3


@both
def test_recursion(decorate: Decorator) -> None:
    @decorate
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(80) == 23416728348467685
    assert (fibonacci.cache_info().misses, fibonacci.cache_info().hits) == (81, 78)


@both
def test_methods(decorate: Decorator) -> None:
    class Thing:
        def __init__(self, name: str) -> None:
            self.name = name
            self.calls = 0

        @decorate
        def method(self, n: int) -> str:
            self.calls += 1
            return f"{self.name}{n}"

        @classmethod
        @decorate
        def of_class(cls, n: int) -> str:
            return f"{cls.__name__}{n}"

        @staticmethod
        @decorate
        def static(n: int) -> int:
            return -n

        @property
        @decorate
        def size(self) -> int:
            self.calls += 1
            return 7

    class Heir(Thing):
        pass

    one, two = Thing("one"), Thing("two")
    assert (one.method(1), one.method(1), two.method(1)) == ("one1", "one1", "two1")
    assert (one.calls, two.calls) == (1, 1)
    assert Thing.method(one, 1) == "one1"
    assert one.calls == 1
    assert (Thing.of_class(1), Heir.of_class(1), one.of_class(1)) == ("Thing1", "Heir1", "Thing1")
    assert (Thing.static(3), one.static(3)) == (-3, -3)
    assert one.size == one.size == 7
    assert one.calls == 2
    assert Thing.method.cache_info().misses == 2
    bound = one.method
    assert bound.__self__ is one
    assert bound.__func__ is Thing.__dict__["method"]
    assert bound.__name__ == "method"
    Thing.method.cache_clear()
    assert one.method(1) == "one1"
    assert one.calls == 3


@both
def test_the_arguments_are_kept_alive_by_the_cache_and_no_longer(decorate: Decorator) -> None:
    class Key:
        pass

    function = decorate(lambda _: 1)
    key = Key()
    alive = weakref.ref(key)
    function(key)
    del key
    gc.collect()
    assert alive() is not None
    function.cache_clear()
    gc.collect()
    assert alive() is None


@both
def test_a_function_nobody_has_any_more_is_collected(decorate: Decorator) -> None:
    function, _ = counting(decorate)
    function(1)
    alive = weakref.ref(function)
    before = len(vrange.stats().accounts)
    del function
    gc.collect()
    assert alive() is None
    if decorate is cached:
        assert len(vrange.stats().accounts) == before - 1


@both
def test_it_looks_like_the_function(decorate: Decorator) -> None:
    def plain(a: int, b: str = "x", *, c: float = 1.0) -> str:
        """Says what it does."""
        return ""

    plain.__dict__["mark"] = "kept"
    function = decorate(plain)
    assert function.__wrapped__ is plain
    assert (function.__name__, function.__doc__) == ("plain", "Says what it does.")
    assert (function.__module__, function.__qualname__) == (plain.__module__, plain.__qualname__)
    assert function.mark == "kept"
    assert inspect.signature(function) == inspect.signature(plain)
    assert inspect.unwrap(function) is plain
    assert inspect.getsource(function) == inspect.getsource(plain)
    assert callable(function)
    assert function.__annotations__ == plain.__annotations__


def test_copies_and_pickles_are_the_function_itself() -> None:
    for function in (at_module_level, coroutine_at_module_level):
        assert copy.copy(function) is function
        assert copy.deepcopy(function) is function
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(function, protocol)) is function
    assert copy.deepcopy({"f": at_module_level})["f"] is at_module_level


def test_parameters_and_what_it_says_of_itself() -> None:
    def key(n: int) -> int:
        return n % 2

    @cached(name="odd", key=key, typed=True, ttl=5, max_bytes="1MiB", max_entries=9, hot_bytes=0)
    def function(n: int) -> int:
        return n

    parameters = {
        "name": "odd",
        "key": key,
        "typed": True,
        "ttl": 5,
        "stale": None,
        "max_bytes": "1MiB",
        "max_entries": 9,
        "maxsize": 9,
        "hot_bytes": 0,
        "ignore": (),
        "cache": None,
        "skip": None,
        "timeout": None,
        "copy": False,
        "on_evict": None,
        "shared": False,
        "below": None,
        "tags": None,
    }
    assert function.cache_parameters() == parameters
    function.cache_parameters()["name"] = "changed"
    assert function.cache_parameters() == parameters
    assert function.cache.name == function.cache_info().name == "odd"
    assert (function(1), function(3), function(4)) == (1, 1, 4)
    assert "<cached <function" in repr(function)
    assert "'odd'" in repr(function)
    assert at_module_level.cache.name == f"{__name__}.at_module_level"


def test_long_names_keep_their_end() -> None:
    def function() -> None: ...

    function.__qualname__ = "ü" * 50 + "end"
    name = cached(function).cache.name
    assert name.endswith("üend")
    assert len(name.encode()) <= 63


@pytest.mark.parametrize("bad", [1.5, True, "name", None, []])
def test_what_is_not_callable(bad: Any) -> None:
    if bad is not None:
        with pytest.raises(TypeError, match="cached decorates a callable, not"):
            cached(bad)
    with pytest.raises(TypeError, match="cached decorates a callable, not"):
        cached()(bad)


def test_bad_parameters() -> None:
    no_function: Any = 5
    wrong_name: Any = cached
    with pytest.raises(TypeError, match="key must be callable or None, not 5"):
        cached(key=no_function)(len)
    with pytest.raises(ValueError, match="ttl must"):
        cached(ttl=-1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        wrong_name(size=5)
    with pytest.raises(TypeError, match="another name of max_entries, but they are 5 and 6"):
        wrong_name(maxsize=5, max_entries=6)
    with pytest.raises(TypeError, match="another name of max_entries, but they are 5 and 6"):
        wrong_name(5, max_entries=6)
    with pytest.raises(ValueError, match="max_entries must be at least 0"):
        cached(max_entries=-1)


@pytest.mark.parametrize("decorate", [cached(2), cached(maxsize=2), cached(max_entries=2)])
def test_a_number_of_entries_as_for_lru_cache(decorate: Decorator) -> None:
    function, _ = counting(decorate)
    for n in range(50):
        function(n)
    assert function.cache_info().entries <= 2
    parameters = function.cache_parameters()
    assert parameters["maxsize"] == parameters["max_entries"] == 2
    assert cached(None)(len).cache_parameters()["maxsize"] is None


@pytest.mark.parametrize("maxsize", [0, -1])
def test_no_entries_as_for_lru_cache(maxsize: int) -> None:
    ours: Any = cached(maxsize)(list)
    theirs: Any = functools.lru_cache(maxsize)(list)
    for _ in range(3):
        assert ours("ab") == theirs("ab")
    assert ours("ab") is not ours("ab")
    ours("ab").append("c")
    assert ours("ab") == ["a", "b"]
    assert ours.cache_info().hits == theirs.cache_info().hits == 0
    assert tuple(ours.cache_info()) == (0, 7, 0, 0)
    assert ours.cache_parameters()["maxsize"] == theirs.cache_parameters()["maxsize"] == 0
    assert not ours.cache_contains("ab")


def test_coroutine_functions_and_caches_of_no_entries() -> None:
    calls = []

    @cached(maxsize=0)
    async def double(n: int) -> int:
        calls.append(n)
        return 2 * n

    assert [asyncio.run(double(4)) for _ in range(3)] == [8, 8, 8]
    assert calls == [4, 4, 4]
    assert (double.cache_info().misses, double.cache_info().entries) == (3, 0)
    with vrange.VolatileCache[str, int](max_entries=0) as cache:
        cache["a"] = 1
        assert "a" not in cache
        assert cache.get_or_compute("a", lambda: 2) == 2
        assert len(cache) == 0


class Fetch:
    """Objects of it are called as coroutine functions are."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, url: str) -> str:
        self.calls += 1
        await asyncio.sleep(0)
        return url


class Pages:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize("wrap", [lambda fetch: fetch, functools.partial])
def test_an_object_with_a_coroutine_function_as_its_call(wrap: Any) -> None:
    fetch = Fetch()
    function = cached(wrap(fetch))

    async def main() -> Any:
        return await asyncio.gather(*[function("a") for _ in range(3)])

    assert asyncio.run(main()) == ["a"] * 3
    assert asyncio.run(main()) == ["a"] * 3
    assert fetch.calls == 1
    assert inspect.iscoroutinefunction(function)


def test_an_object_with_a_generator_function_as_its_call_is_refused() -> None:
    with pytest.raises(TypeError, match="generator function"):
        cached(Pages())


def test_generator_functions_are_refused_when_they_are_decorated() -> None:
    def numbers() -> Any:
        yield 1

    async def later() -> Any:
        yield 1

    class Rows:
        def rows(self) -> Any:
            yield 1

    for bad, kind in (
        (numbers, "is a generator function"),
        (functools.partial(numbers), "is a generator function"),
        (later, "is an asynchronous generator function"),
        (Rows().rows, "is a generator function"),
        (staticmethod(numbers), "is a generator function"),
    ):
        with pytest.raises(TypeError, match=kind):
            cached(bad)
        with pytest.raises(TypeError, match=kind):
            cached(ttl=60)(bad)


def test_a_key_function() -> None:
    calls = []

    @cached(key=lambda path, **options: path.lower())
    def load(path: str, **options: int) -> str:
        calls.append(path)
        return path

    assert load("A", deep=1) == load("a", deep=2) == "A"
    assert calls == ["A"]

    def unhashable(n: int) -> Any:
        return [n]

    @cached(key=unhashable)
    def bad(n: int) -> int:
        return n

    with pytest.raises(TypeError, match="unhashable"):
        bad(1)

    @cached(key=lambda n: 1 // n)
    def divides(n: int) -> int:
        return n

    with pytest.raises(ZeroDivisionError):
        divides(0)
