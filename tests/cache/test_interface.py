"""What a cache has of a dict and of lru_cache, and how it is shown, copied and pickled."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import vrange

Cache = vrange.VolatileCache[Any, Any]


# ---- as a dict -----------------------------------------------------------------------------------


def test_unions_are_new_caches() -> None:
    with Cache(name="one", max_entries=100) as one, Cache(name="two") as two:
        one.update(a=1, b=2)
        two.update(b=3, c=np.arange(2000))
        for both in (one | two, one | dict(two)):
            assert isinstance(both, vrange.VolatileCache)
            assert (both["a"], both["b"], int(both["c"][9])) == (1, 3, 9)
            assert both.info().max_entries == 100
            both.close()
        both = {"b": 7, "z": 8} | one
        assert sorted(both.items()) == [("a", 1), ("b", 2), ("z", 8)]
        assert sorted(one.items()) == [("a", 1), ("b", 2)]
        with pytest.raises(TypeError, match="unsupported operand"):
            one | [("a", 2)]  # type: ignore[operator]


def test_union_in_place() -> None:
    with Cache(name="one") as one:
        before = one
        one |= {"a": 1}
        one |= [("b", 2)]
        assert one is before
        assert sorted(one.items()) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("make", [Cache.copy, copy.copy], ids=["copy", "copy.copy"])
def test_a_copy_has_the_values_and_parameters(make: Callable[[Cache], Cache]) -> None:
    with Cache(name="one", max_bytes="8MiB", ttl=60) as one:
        one.update(a=1, b="two")
        with make(one) as other:
            assert sorted(other) == ["a", "b"]
            assert other.info().max_bytes == 8 << 20
            assert other.name != one.name
            other["a"] = 7
            del other["b"]
            assert (one["a"], one["b"]) == (1, "two")
        with one.copy(name="named") as other:
            assert other.name == "named"


def test_a_subclass_has_defaults() -> None:
    class Lengths(vrange.VolatileCache[str, int]):
        def __missing__(self, key: str) -> int:
            self[key] = len(key)
            return self[key]

    with Lengths(name="lengths") as lengths:
        assert lengths["abc"] == 3
        assert "abc" in lengths
        assert lengths.get("other") is None
        assert "other" not in lengths


# ---- as lru_cache --------------------------------------------------------------------------------


def test_figures_are_those_of_lru_cache() -> None:
    ours, theirs = vrange.cached(maxsize=128)(abs), functools.lru_cache(128)(abs)
    for function in (ours, theirs):
        for n in (1, 2, 1, -1, 1):
            function(n)
    info = ours.cache_info()
    hits, misses, maxsize, currsize = info
    assert (hits, misses, maxsize, currsize) == theirs.cache_info()
    assert info == theirs.cache_info()
    assert info == (2, 3, 128, 3)
    assert info != (2, 3, 128, 4)
    assert (info.hits, info.misses, info.maxsize, info.currsize) == (2, 3, 128, 3)
    assert (info[0], info[-1], len(info), info[1:3]) == (2, 3, 4, (3, 128))
    assert tuple(info) == tuple(ours.cache_info())  # bytes move from idle to offered meanwhile
    ours(7), theirs(7)
    assert info != ours.cache_info()
    assert theirs.cache_parameters().items() <= ours.cache_parameters().items()
    assert theirs.cache_info()._asdict().items() <= ours.cache_info()._asdict().items()


# ---- arguments that can't be hashed --------------------------------------------------------------


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(TypeError, match="unhashable type: 'list'") as caught:
        call()
    return str(caught.value)


def test_what_can_not_be_hashed_is_refused_with_a_way_out() -> None:
    @vrange.cached
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @vrange.cached
    async def total_later(numbers: list[int]) -> int:
        return sum(numbers)

    @vrange.cached(key=lambda numbers: numbers)
    def by_key(numbers: list[int]) -> int:
        return sum(numbers)

    for told in (
        refused(lambda: total([1])),
        refused(lambda: total(numbers=[1])),
        refused(lambda: asyncio.run(total_later([1]))),
        refused(lambda: by_key([1])),
    ):
        assert "key=vrange.keys.content" in told
        assert "test_what_can_not_be_hashed" in told


def test_an_error_of_the_function_stays_its_own() -> None:
    @vrange.cached
    def fails(n: int) -> None:
        {}[[n]]  # type: ignore[index]

    @vrange.cached
    async def fails_later(n: int) -> None:
        {}[[n]]  # type: ignore[index]

    class Odd:
        def __hash__(self) -> int:
            raise TypeError("odd")

    assert "vrange" not in refused(lambda: fails(1))
    assert "vrange" not in refused(lambda: asyncio.run(fails_later(1)))
    with pytest.raises(TypeError, match="odd"):
        fails(Odd())  # type: ignore[arg-type]


# ---- pickles -------------------------------------------------------------------------------------


class Mine(vrange.VolatileCache[str, int]):
    pass


class Holder:
    def __init__(self) -> None:
        self.cache = Mine(name="of a holder")


@pytest.mark.parametrize("act", [pickle.dumps, copy.deepcopy])
def test_the_message_names_the_cache_that_can_not_be_pickled(act: Callable[[Any], Any]) -> None:
    for held in (Mine(name="of a holder"), Holder(), [Holder()]):
        with pytest.raises(TypeError, match="Mine 'of a holder' can't be pickled"):
            act(held)


# ---- shown ---------------------------------------------------------------------------------------


def test_what_is_shown_fits_a_line() -> None:
    function = vrange.cached(abs)
    function(3), function(3)
    with Mine(name="mine") as mine:
        mine["a"] = 1
        shown = [mine, mine.info(), vrange.stats(), vrange.stats().reserve, function.cache_info()]
        shown.append(vrange.stats().time_to_free["cache", "released"])
        for one in shown:
            assert "\n" not in repr(one)
            assert len(repr(one)) <= 240, repr(one)
        assert repr(mine).startswith("<Mine 'mine': 1 entries, ")
        assert "hits=1, misses=1" in repr(function.cache_info())
    assert repr(mine) == "<Mine 'mine', closed>"


class Parts(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_a_bar_and_the_hit_ratio() -> None:
    with Cache(name="<b>&</b>") as cache:
        assert "no requests yet" in Parts(cache._repr_html_()).text
        for key in (1, 2, 1, 1):
            cache.get_or_compute(key, lambda: "v")
        for shown in (cache, cache.info()):
            parts = Parts(shown._repr_html_())
            assert "<b>&</b>: 50.0% hits, 2 entries" in parts.text
            assert sum(int(title.split(": ")[1]) for title in parts.titles) == 4
            assert "missed: 2" in parts.titles


# ---- the package ---------------------------------------------------------------------------------


def test_the_package_lists_its_names_and_tells_its_version() -> None:
    code = """
import vrange
assert set(vrange.__all__) <= set(dir(vrange)), set(vrange.__all__) - set(dir(vrange))
vrange.VolatileCache(), vrange.cached
import sys
assert "numpy" not in sys.modules and "vrange.metrics" not in sys.modules
assert not {"hashlib", "importlib.abc", "tempfile", "asyncio"} & set(sys.modules)
from importlib.metadata import version
assert vrange.__version__ == version("vrange")
assert "__version__" in dir(vrange)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    for command in (["-m", "vrange", "--version"], ["-m", "vrange.cli", "--version"]):
        told = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=60
        )
        assert (told.returncode, told.stdout) == (0, f"vrange {vrange.__version__}\n")
