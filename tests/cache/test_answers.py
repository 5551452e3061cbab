"""What is returned first, from the hot front, from memory and after a purge is the same.

For many kinds of values: equal, of the same types, as writable and sharing as much, at any depth;
and whatever callers do to an answer, later answers are what they would have been.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime
import decimal
import gc
import threading
import types
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import vrange

LARGE = 3000


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Record:
    values: Any
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Frozen:
    values: tuple[int, ...]


class Model:
    """Compares by identity, and has arrays."""

    def __init__(self) -> None:
        self.weights = np.arange(float(LARGE))
        self.steps = [1, 2]


class Table(np.ndarray[Any, Any]):
    pass


class Words(dict[str, Any]):
    pass


@pytest.mark.parametrize("make", [lambda: np.arange(100), lambda: np.zeros((300, 300), order="F")])
@pytest.mark.parametrize("copy", [False, True])
def test_an_array_that_is_not_stored_is_as_writable_as_a_stored_one(make: Any, copy: bool) -> None:
    made = make()
    with vrange.VolatileCache[str, Any](max_bytes=0, copy=copy) as cache:
        refused = cache.get_or_compute("refused", lambda: made)
        assert cache.info().refused == 1
    with vrange.VolatileCache[str, Any](copy=copy) as cache:

        def compute() -> Any:
            cache.clear()
            return made

        called_off = cache.get_or_compute("key", compute)
        assert "key" not in cache
        stored = cache.get_or_compute("key", lambda: made)
        for answer in (refused, called_off, stored):
            assert type(answer) is np.ndarray
            assert answer.flags.writeable == copy
            np.testing.assert_equal(answer, made)
    assert made.flags.writeable, "the function's own array stays as it is"


def twice() -> Any:
    array = np.arange(LARGE)
    return [array, {"again": array}]


def views() -> Any:
    base = np.arange(LARGE)
    return {"base": base, "part": base[100:200], "steps": base[::7], "back": base[::-1]}


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "x": np.arange(2000.0),
            "n": np.arange(2000),
            "day": pd.date_range("2000", periods=2000),
            "zone": pd.date_range("2000", periods=2000, tz="Europe/Paris"),
            "word": ["a", "b"] * 1000,
            "kind": pd.Categorical(["u", "v"] * 1000),
            "maybe": pd.array([1, None] * 1000, dtype="Int64"),
        }
    )


def masked() -> Any:
    return np.ma.masked_greater(np.arange(LARGE), 9)


def structured() -> Any:
    return np.ones(2000, [("a", "<i4"), ("b", ">f8"), ("c", "S3")])


def csr() -> Any:
    matrix = sp.random(200, 200, 0.1, "csr", random_state=1)
    return (matrix @ matrix).tocsr()


KINDS: dict[str, Callable[[], Any]] = {
    "int": lambda: 12,
    "str": lambda: "ßx" * LARGE,
    "bytes": lambda: b"x" * LARGE,
    "tuple": lambda: (1, "x", None),
    "date": lambda: datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "decimal": lambda: decimal.Decimal("1.5"),
    "uuid": lambda: uuid.UUID(int=3),
    "frozen": lambda: Frozen((1, 2)),
    "list": lambda: [1, [2, "x"]],
    "dict": lambda: {"a": [1], 2: {"b": (3,)}},
    "set": lambda: {1, 2, 3},
    "bytearray": lambda: bytearray(b"abc"),
    "deque": lambda: collections.deque([1, 2]),
    "dict subclass": lambda: Words(a=np.arange(LARGE)),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "record": lambda: Record(np.arange(LARGE), ["x"]),
    "namespace": lambda: types.SimpleNamespace(a=np.arange(LARGE)),
    "array": lambda: np.arange(LARGE),
    "small array": lambda: np.arange(3),
    "empty array": lambda: np.zeros((0, 3)),
    "0-d array": lambda: np.array(3.5),
    "Fortran array": lambda: np.asfortranarray(np.arange(6000.0).reshape(60, 100)),
    "strided array": lambda: np.arange(LARGE)[::3],
    "structured array": structured,
    "datetimes": lambda: np.arange("2000-01-01", "2010-01-01", dtype="M8[D]"),
    "read-only array": lambda: np.broadcast_to(np.arange(100), (50, 100)),
    "object array": lambda: np.array([1, "x", None], dtype=object),
    "array subclass": lambda: np.arange(LARGE).view(Table),
    "record array": lambda: np.zeros(LARGE, [("a", "i4")]).view(np.recarray),
    "masked array": masked,
    "scalar": lambda: np.float32(1.5),
    "tuple of arrays": lambda: (np.arange(LARGE), np.arange(3), np.zeros(0)),
    "named tuple of arrays": lambda: Pair(np.arange(LARGE), np.ones((3, 4), order="F")),
    "dict of arrays": lambda: {"w": np.arange(LARGE), "deep": [{"v": np.ones((50, 60)).T}]},
    "dict of odd arrays": lambda: {
        "steps": np.arange(LARGE)[::3],
        "dates": np.arange("2000-01-01", "2010-01-01", dtype="M8[D]"),
        "structured": structured(),
        "zero": np.array(3.5),
        "objects": np.array([1, "x", None], dtype=object),
    },
    "the same array twice": twice,
    "views of one array": views,
    "frame": frame,
    "series": lambda: pd.Series(np.arange(2000.0), name="x"),
    "index": lambda: pd.Index(np.arange(2000)[::-1]),
    "datetime index": lambda: pd.date_range("2000", periods=2000, freq="h"),
    "multi-index": lambda: pd.MultiIndex.from_product([range(30), ["a", "b"]]),
    "frames in a dict": lambda: {"a": frame(), "b": [frame()["x"]]},
    "csr": csr,
    "csc in a list": lambda: [csr().tocsc()],
}


def parts(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield a value and what it has, each with how to get there."""
    yield path, value
    if depth > 6:
        return
    inside: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        inside = [(f"[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, list | tuple | collections.deque):
        inside = [(f"[{n}]", item) for n, item in enumerate(value)]
    elif isinstance(value, pd.DataFrame):
        inside = [(f"[{name!r}]", value[name]) for name in value]
    elif isinstance(value, pd.Series):
        inside = [(".to_numpy()", value.to_numpy()), (".index", value.index)]
    elif sp.issparse(value):
        inside = [(f".{name}", getattr(value, name)) for name in ("data", "indices", "indptr")]
    elif isinstance(value, Record | types.SimpleNamespace | Model):
        inside = [(f".{name}", item) for name, item in vars(value).items()]
    for step, item in inside:
        yield from parts(item, path + step, depth + 1)


def looks(value: Any) -> list[Any]:
    """Describe all that a caller may see of a value, but for where it lies in memory."""
    found = []
    seen: dict[int, str] = {}
    arrays: list[tuple[str, Any]] = []
    for path, part in parts(value):
        one: list[Any] = [path, type(part)]
        if isinstance(part, np.ndarray):
            flags = part.flags
            one += [part.dtype, part.shape, flags.writeable, flags.c_contiguous, flags.f_contiguous]
            one += [repr(part.tolist())]
            arrays.append((path, part))
        elif isinstance(part, pd.DataFrame):
            one += [str(part.dtypes.tolist()), part.to_csv()]
        elif isinstance(part, pd.Series | pd.Index):
            one += [str(part.dtype), part.name, repr(list(part))]
        elif not isinstance(part, Model | types.SimpleNamespace | Record) and not sp.issparse(part):
            one += [repr(part)]
        if isinstance(part, np.ndarray | list | dict):
            one += [seen.setdefault(id(part), path)]
        found.append(one)
    for at, (path, array) in enumerate(arrays):
        found += [
            [path, "shares with", other]
            for other, before in arrays[:at]
            if np.shares_memory(array, before)
        ]
    return found


def change(value: Any) -> bool:
    """Change all that can be changed of a value, in place."""
    has_changed = False
    for _, part in list(parts(value)):
        if isinstance(part, np.ndarray) and part.size:
            if part.flags.writeable:
                part[...] = np.zeros((), part.dtype)
                has_changed = True
            else:
                with pytest.raises(ValueError, match="read-only"):
                    part[...] = part.flat[0]
        elif isinstance(part, pd.DataFrame):
            part.loc[0, "x"] = -1.0
            part["n"] += 1
            part.iloc[1, 1] = 77
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # newer pandas would rather not have it
                part.sort_values("x", ascending=False, inplace=True)
            part.loc[:, "maybe"] = part["maybe"].fillna(0)
            part["new"] = 1
            has_changed = True
        elif isinstance(part, pd.Series):
            part.iloc[0] = part.iloc[1]
            part.name = "changed"
            has_changed = True
        elif isinstance(part, dict):
            part["added"] = 1
            has_changed = True
        elif isinstance(part, list | bytearray | collections.deque):
            part.append(1)
            has_changed = True
        elif isinstance(part, set):
            part.add("added")
            has_changed = True
    return has_changed


def check_that_changes_change_no_other(answer: Callable[[], Any], wanted: list[Any]) -> None:
    for _ in range(4):
        again = answer()
        assert looks(again) == wanted
        change(again)


def purge(cache: vrange.VolatileCache[Any, Any]) -> None:
    gc.collect()
    assert cache.discard() > 0


@pytest.mark.parametrize("hot_bytes", [0, "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_first_and_later_answers_are_the_same(kind: str, hot_bytes: int | str) -> None:
    make = KINDS[kind]
    calls = []

    @vrange.cached(hot_bytes=hot_bytes)
    def answer() -> Any:
        calls.append(1)
        return make()

    first = looks(answer())
    assert len(calls) == 1
    for _ in range(4):
        assert looks(answer()) == first
    assert len(calls) == 1, "these were hits"
    purge(answer.cache)
    assert looks(answer()) == first
    assert len(calls) == 2, "and this one was computed again"
    assert looks(answer()) == first
    wanted = make()
    pairs = dict(parts(answer()))
    for path, part in parts(wanted):
        assert type(part) is type(pairs[path])
        if isinstance(part, np.ndarray):
            assert repr(part.tolist()) == repr(pairs[path].tolist())


@pytest.mark.parametrize("hot_bytes", [0, "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_changing_an_answer_changes_no_other(kind: str, hot_bytes: int | str) -> None:
    kept = []

    @vrange.cached(hot_bytes=hot_bytes)
    def answer() -> Any:
        kept.append(KINDS[kind]())
        return kept[-1]

    first = answer()
    wanted = looks(first)
    change(kept[0])  # what the function made stays its own
    assert looks(answer()) == wanted
    change(first)
    check_that_changes_change_no_other(answer, wanted)
    del first
    purge(answer.cache)
    assert looks(answer()) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_value_is_as_it_was_when_it_was_stored(kind: str) -> None:
    with vrange.VolatileCache[str, Any]() as cache:
        value = KINDS[kind]()
        cache["k"] = value
        wanted = looks(cache["k"])
        change(value)
        check_that_changes_change_no_other(lambda: cache["k"], wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_writable_and_each_callers_own(kind: str) -> None:
    @vrange.cached(copy=True)
    def answer() -> Any:
        return KINDS[kind]()

    first = answer()
    wanted = looks(first)
    for _, part in parts(first):
        if isinstance(part, np.ndarray) and "frame" not in kind and kind != "series":
            assert part.flags.writeable
    change(first)
    check_that_changes_change_no_other(answer, wanted)
    del first
    purge(answer.cache)
    assert looks(answer()) == wanted


@pytest.mark.parametrize("is_async", [False, True])
def test_callers_that_wait_get_an_object_of_their_own(is_async: bool) -> None:
    release, calls = threading.Event(), []

    def make() -> Any:
        calls.append(1)
        release.wait(10)
        return ["x"]

    with vrange.VolatileCache[str, Any]() as cache:
        if is_async:

            async def compute() -> Any:
                calls.append(1)
                await asyncio.sleep(0.05)
                return ["x"]

            async def main() -> list[Any]:
                return await asyncio.gather(
                    *(cache.get_or_compute_async("k", compute) for _ in range(4))
                )

            answers = asyncio.run(main())
        else:
            with ThreadPoolExecutor(4) as pool:
                waiting = [pool.submit(cache.get_or_compute, "k", make) for _ in range(4)]
                release.set()
                answers = [each.result() for each in waiting]
        assert len(calls) == 1
        for answer in answers:
            assert answer == ["x"]
            answer.append("mine")
        assert cache["k"] == ["x"]
