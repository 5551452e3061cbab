"""Singletons come back as themselves; what can't be told apart or pickled is not kept."""

from __future__ import annotations

import enum
import gc
import sqlite3
import sys
import tempfile
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

import vrange

MISSING = object()


class Names:
    ABSENT = object()


class Settings:
    """Compares by identity, as most classes."""

    debug = False


class Equal:
    """Has `__eq__`, and changes."""

    def __init__(self) -> None:
        self.items = [1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]


class Slotted:
    __slots__ = ("x",)


class Colour(enum.Enum):
    RED = 1


SETTINGS, EQUAL, SLOTTED = Settings(), Equal(), Slotted()

SINGLETONS: list[Any] = [
    MISSING,
    Names.ABSENT,
    SETTINGS,
    EQUAL,
    SLOTTED,
    Colour.RED,
    None,
    NotImplemented,
    Ellipsis,
    Settings,
    int,
    len,
    sys,
    sys.intern,
    threading.Thread.start,
]


def name(value: Any) -> str:
    return type(value).__name__


@pytest.fixture(params=[0, "auto"])
def cache(request: pytest.FixtureRequest) -> Iterator[vrange.VolatileCache[Any, Any]]:
    with vrange.VolatileCache[Any, Any](hot_bytes=request.param) as cache:
        yield cache


@pytest.mark.parametrize("value", SINGLETONS, ids=name)
def test_singletons_come_back_as_themselves(
    cache: vrange.VolatileCache[Any, Any], value: Any
) -> None:
    for _ in range(3):
        assert cache.get_or_compute("k", lambda: value) is value
    assert cache.info().regenerated == 1
    cache["k"] = value
    assert cache["k"] is value


@pytest.mark.parametrize("value", SINGLETONS, ids=name)
def test_singletons_come_back_as_themselves_at_any_depth(
    cache: vrange.VolatileCache[Any, Any], value: Any
) -> None:
    def make() -> Any:
        found: dict[Any, Any] = {"deep": [(1, {"er": value}, {1, 2})], "again": value}
        if type(value).__hash__ is not None:
            found[value] = "as a key"
        return found

    for _ in range(3):
        answer = cache.get_or_compute("k", make)
        assert answer["deep"][0][1]["er"] is value
        assert answer["again"] is value
        assert type(value).__hash__ is None or answer[value] == "as a key"
    assert cache.info().regenerated == 1


def test_a_singleton_that_its_module_got_later(cache: vrange.VolatileCache[Any, Any]) -> None:
    cache["before"] = [MISSING]  # modules have been looked at
    module = types.ModuleType("settings_of_a_test")
    module.Late = type("Late", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        cache["before"] = [Names.ABSENT]
        module.late = module.Late()  # type: ignore[attr-defined]
        module.mark = object()  # type: ignore[attr-defined]
        cache["k"] = [module.late, 3]
        assert cache["k"][0] is module.late
        old, module.late = module.late, module.Late()  # type: ignore[attr-defined]
        assert cache["k"][0] is old, "the cache has what was stored"
    finally:
        del sys.modules[module.__name__]


def test_lists_and_dicts_of_a_module_are_data(cache: vrange.VolatileCache[Any, Any]) -> None:
    answer = cache.get_or_compute("k", lambda: SINGLETONS)
    answer.append(1)
    assert cache["k"] == SINGLETONS
    assert 1 not in SINGLETONS


def test_what_compares_by_identity_is_one_object_while_it_is_held(
    cache: vrange.VolatileCache[Any, Any],
) -> None:
    def settings() -> Any:
        return cache.get_or_compute("k", Settings)

    for _ in range(3):
        assert settings() is settings()
        assert settings() == settings()
    first = settings()
    first.debug = True
    assert settings() is first
    gone = weakref.ref(first)
    del first
    cache._core.cool(None)
    gc.collect()
    assert gone() is None, "the cache does not keep it"
    assert isinstance(settings(), Settings)


def row_of_a_database() -> sqlite3.Row:
    with closing(sqlite3.connect(":memory:")) as database:
        return sqlite3.Row(database.execute("select 1"), (1,))


NOT_KEPT: dict[str, Callable[[], Any]] = {
    "object": object,
    "_io.TextIOWrapper": partial(tempfile.TemporaryFile, "w"),
    "_thread.lock": threading.Lock,
    "function": lambda: lambda: 1,
    "generator": lambda: (n for n in range(2)),
    "sqlite3.Row": row_of_a_database,
    "memoryview": lambda: memoryview(b"x"),
    "frame": lambda: sys._getframe(),
}


@pytest.mark.parametrize("kind", NOT_KEPT)
@pytest.mark.parametrize("is_deep", [False, True])
def test_what_can_not_be_kept_is_returned_with_one_warning(kind: str, is_deep: bool) -> None:
    made = []

    @vrange.cached
    def rows(n: int) -> Any:
        made.append(NOT_KEPT[kind]())
        return [made[-1]] if is_deep else made[-1]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in (1, 1, 2):
            answer = rows(n)
            assert (answer[0] if is_deep else answer) is made[-1]
    assert len(made) == 3, "it is computed at each call"
    assert rows.cache_info().entries == 0
    mine = [each for each in caught if each.category is vrange.NotKeptWarning]
    assert len(mine) == 1
    text = str(mine[0].message)
    assert "rows()" in text
    assert ("list" if is_deep else kind) in text
    assert kind.rpartition(".")[2] in text or kind == "function"
    assert mine[0].filename == __file__
    for each in made:
        getattr(each, "close", lambda: None)()


def test_what_a_function_raises_stays_what_it_is() -> None:
    @vrange.cached
    def deep(n: int) -> Any:
        return [deep(n + 1)]

    with pytest.raises(RecursionError):
        deep(0)


class InterruptedWork(Exception):
    pass


class Odd:
    turns = 0

    def __reduce__(self) -> Any:
        Odd.turns += 1
        if Odd.turns == 1:
            raise InterruptedWork  # as a signal's handler may
        return Odd, ()


def test_a_signal_while_a_value_is_pickled_is_not_taken_for_the_values_fault() -> None:
    with vrange.VolatileCache[str, Any]() as cache, pytest.raises(InterruptedWork):
        cache.get_or_compute("k", Odd)
