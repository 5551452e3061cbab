"""An answer that is not stored is as writable, at any depth, as one that is."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import vrange
from vrange._cache.unstored import as_answered

Make = Callable[[], Any]


class Pair(NamedTuple):
    left: Any
    right: Any


class Words(dict[str, Any]):
    pass


class Items(list[Any]):
    pass


class Box:
    def __init__(self, array: Any) -> None:
        self.array = array


def defaults() -> Any:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    found["a"].append(np.arange(9))
    return found


KINDS: dict[str, Make] = {
    "array": lambda: np.arange(100),
    "large array": lambda: np.ones((300, 300), order="F"),
    "read-only array": lambda: np.broadcast_to(np.arange(3), (4, 3)),
    "tuple": lambda: (np.arange(9), "a", np.ones(5000)),
    "list": lambda: [np.arange(9), 1],
    "dict": lambda: {"a": np.arange(9), 3: None},
    "nested": lambda: {"a": [(1, np.arange(9)), {"b": (np.ones(5000),)}]},
    "namedtuple": lambda: Pair(np.arange(9), [np.arange(3)]),
    "subclasses": lambda: Words(a=Items([np.arange(9)]), b=np.arange(2)),
    "ordered": lambda: OrderedDict(b=np.arange(9), a=1),
    "defaultdict": defaults,
    "of objects": lambda: [np.array([1, "a"], object), Box(np.arange(9))],
    "no array": lambda: [1, "a", {"b": (2, 3)}],
}


# ---- ways to get an answer that is not stored ----------------------------------------------------


def refused(make: Make, **options: Any) -> Any:
    with vrange.VolatileCache[str, Any](max_bytes=0, **options) as cache:
        return cache.get_or_compute("key", make)


def called_off(make: Make, **options: Any) -> Any:
    with vrange.VolatileCache[str, Any](**options) as cache:

        def compute() -> Any:
            cache.clear()
            return make()

        return cache.get_or_compute("key", compute)


def in_its_own_computation(make: Make, **options: Any) -> Any:
    with vrange.VolatileCache[str, Any](**options) as cache:
        inner: list[Any] = []

        def compute() -> Any:
            inner.append(cache.get_or_compute("key", make))
            return 0

        cache.get_or_compute("key", compute)
        return inner[0]


def too_late(make: Make, **options: Any) -> Any:
    with vrange.VolatileCache[str, Any](timeout=0, **options) as cache:
        begun, go = threading.Event(), threading.Event()

        def compute() -> Any:
            begun.set()
            assert go.wait(60)

        leader = threading.Thread(target=cache.get_or_compute, args=("key", compute))
        leader.start()
        assert begun.wait(60)
        try:
            return cache.get_or_compute("key", make)
        finally:
            go.set()
            leader.join()


def skipped(make: Make, **options: Any) -> Any:
    @vrange.cached(skip=lambda value: True, **options)
    def function() -> Any:
        return make()

    return function()


def asynchronously(way: str) -> Callable[..., Any]:
    def get(make: Make, **options: Any) -> Any:
        async def main() -> Any:
            max_bytes = 0 if way == "refused" else None
            timeout = 0 if way == "too late" else None
            with vrange.VolatileCache[str, Any](
                max_bytes=max_bytes, timeout=timeout, **options
            ) as cache:
                go = asyncio.Event()

                async def compute() -> Any:
                    if way == "called off":
                        cache.clear()
                    if way == "in its own computation":
                        return ["inner", await cache.get_or_compute_async("key", value)]
                    return make()

                async def value() -> Any:
                    return make()

                async def wait() -> None:
                    await go.wait()

                if way == "too late":
                    leader = asyncio.ensure_future(cache.get_or_compute_async("key", wait))
                    await asyncio.sleep(0)
                answer = await cache.get_or_compute_async("key", compute)
                if way == "too late":
                    go.set()
                    await leader
                return answer[1] if way == "in its own computation" else answer

        return asyncio.run(main())

    return get


WAYS: dict[str, Callable[..., Any]] = {
    "refused": refused,
    "called off": called_off,
    "in its own computation": in_its_own_computation,
    "too late": too_late,
    "skipped": skipped,
} | {
    f"{way}, async": asynchronously(way)
    for way in ("refused", "called off", "in its own computation", "too late")
}


# ---- tests ---------------------------------------------------------------------------------------


def shape(value: Any) -> Any:
    """Return what a caller can see of a value, and what may be written to."""
    if isinstance(value, np.ndarray):
        return type(value), value.flags.writeable, value.dtype, value.tolist()
    if isinstance(value, dict):
        return type(value), [(key, shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    return shape(value.array) if isinstance(value, Box) else value


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_as_writable_as_a_stored_one(kind: str, way: str, copy: bool) -> None:
    make = KINDS[kind]
    with vrange.VolatileCache[str, Any](copy=copy) as cache:
        first = cache.get_or_compute("key", make)
        later = cache.get_or_compute("key", make)
        assert shape(first) == shape(later)
        made: list[Any] = []

        def make_once() -> Any:
            made.append(make())
            return made[-1]

        got = WAYS[way](make_once, copy=copy)
        assert shape(got) == shape(later)
        assert [shape(value) for value in made] == [shape(make())], "the function's own stays"


@pytest.mark.parametrize("options", [{"max_entries": 0}, {"timeout": 0}], ids=repr)
def test_computations_are_counted_though_their_values_are_not_stored(
    options: dict[str, Any],
) -> None:
    async def nothing() -> None:
        await asyncio.sleep(0.05)

    async def main(cache: vrange.VolatileCache[str, Any]) -> None:
        await asyncio.gather(*[cache.get_or_compute_async("b", nothing) for _ in range(3)])

    with vrange.VolatileCache[str, Any](**options) as cache:
        for _ in range(2):
            cache.get_or_compute("a", lambda: cache.get_or_compute("a", lambda: 1))
            cache.clear()
            cache.get_or_compute("a", lambda: cache.get_or_compute("a", lambda: 1))
            assert cache.info().regenerated == 2
            asyncio.run(main(cache))
            assert cache.info().regenerated == 5
            assert cache.info().regenerate_seconds > 0
            with pytest.raises(ZeroDivisionError):
                cache.get_or_compute("c", lambda: 1 // 0)
            assert cache.info().regenerated == 5
            cache.clear()


def test_what_was_one_object_stays_one() -> None:
    array: Any = np.arange(9)
    rest: list[Any] = [array]
    value = (array, rest, {"rest": rest})
    rest.append(value)
    got = as_answered(value)
    assert got[0] is got[1][0]
    assert got[1] is got[2]["rest"]
    assert got[1][1] is got
    assert not got[0].flags.writeable
    assert array.flags.writeable
    assert rest == [array, value]


def test_a_container_with_state_stays_itself() -> None:
    class Session(dict[str, Any]):
        def __init__(self) -> None:
            super().__init__(a=np.arange(9))
            self.lock = threading.Lock()

    class Own(list[Any]):
        def __reduce__(self) -> Any:
            raise AssertionError

    session, own = Session(), Own([np.arange(9)])
    got = as_answered([session, own, np.arange(9)])
    assert got[0] is session
    assert got[1] is own
    assert not got[2].flags.writeable


def test_what_can_never_be_stored_is_the_functions_own() -> None:
    value = {"a": np.arange(9), "f": lambda: None}
    with vrange.VolatileCache[str, Any]() as cache, pytest.warns(vrange.NotKeptWarning):
        assert cache.get_or_compute("key", lambda: value) is value


def test_values_without_arrays_are_not_built_again() -> None:
    value = [1, (2, {"a": collections.deque([np.arange(3)])}), np.array([None])]
    assert as_answered(value) is value


def test_a_value_that_is_nested_too_deeply_stays_itself() -> None:
    value: list[Any] = [np.arange(9)]
    for _ in range(100_000):
        value = [value]
    assert as_answered(value) is value
    while isinstance(value, list):  # freeing it at once would recurse
        value = value[0]
