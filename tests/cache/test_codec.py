"""Values go into memory and come back: equal, of their own type, without a copy where promised."""

from __future__ import annotations

import ctypes
import dataclasses
import datetime
import decimal
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import address_of_buffer

import vrange

Cache = vrange.VolatileCache[Any, Any]


@dataclasses.dataclass
class Point:
    x: int
    y: tuple[int, ...] = ()


class Text(str):
    __slots__ = ()


class Blob(bytes):
    pass


class Table(np.ndarray[Any, Any]):
    pass


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        10**3000,
        1.5,
        float("inf"),
        1 + 2j,
        Ellipsis,
        NotImplemented,
        (),
        [],
        {},
        frozenset({1, 2}),
        range(5),
        slice(1, 2),
        b"",
        b"x",
        "",
        "ß∂€😀",
        "\ud800 alone \udfff",
        bytearray(b"changeable"),
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
        decimal.Decimal("1.10"),
        Point(1, (2, 3)),
        dict,
        int,
        Point,
        len,
        print,
        np.float32(1.5),
        np.datetime64("2024-02-29", "ns"),
        np.dtype("f8,i4"),
        Text("subclass"),
        Blob(b"subclass"),
        [1, [2, {"k": (3, None)}]],
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!a}",
)
@pytest.mark.parametrize("large", [False, True])
def test_value_comes_back_equal_and_of_its_type(cache: Cache, value: Any, large: bool) -> None:
    wanted = [value, os.urandom(3000)] if large else value
    cache["k"] = wanted
    for _ in range(2):
        got = cache["k"]
        assert type(got) is type(wanted)
        assert got == wanted or (got is wanted)
        inner = got[0] if large else got
        assert type(inner) is type(value)
        assert str(inner).encode("utf-8", "surrogatepass") == str(value).encode(
            "utf-8", "surrogatepass"
        )
    assert cache.discard("k") == 1
    with pytest.raises(KeyError):
        cache["k"]


@pytest.mark.parametrize(
    "size", [0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 65_536, 1_000_003, (1 << 20) + 1]
)
def test_every_size_of_bytes_and_text(cache: Cache, size: int) -> None:
    data = os.urandom(size)
    text = ("aé€😀\ud812" * size)[:size]
    cache["bytes"], cache["text"], cache["array"] = data, text, bytearray(data)
    assert (cache["bytes"], cache["text"], cache["array"]) == (data, text, data)
    assert type(cache["bytes"]) is bytes
    assert type(cache["text"]) is str
    assert type(cache["array"]) is bytearray


def test_bytes_are_copied_out(cache: Cache) -> None:
    cache["k"] = os.urandom(10_000)
    held = cache["k"]
    copy = bytes(bytearray(held))
    cache.discard()
    assert held == copy


def zero_copy(array: np.ndarray[Any, Any], cache: Cache) -> bool:
    """Whether the array lies in the cache's memory: it keeps what it lies in from going."""
    info = cache.info()
    return info.pinned_bytes >= array.nbytes and cache.discard() == 0


ARRAYS: dict[str, Callable[[], Any]] = {
    "plain": lambda: np.arange(5000),
    "two dimensions": lambda: np.arange(6000.0).reshape(60, 100),
    "Fortran's order": lambda: np.asfortranarray(np.arange(6000.0).reshape(60, 100)),
    "transposed": lambda: np.arange(6000.0).reshape(10, 20, 30).T,
    "every other": lambda: np.arange(10_000)[::2],
    "backwards": lambda: np.arange(5000)[::-1],
    "broadcast": lambda: np.broadcast_to(np.arange(100), (50, 100)),
    "swapped axes": lambda: np.arange(6000).reshape(10, 20, 30).swapaxes(0, 1),
    "datetime64": lambda: np.arange("2000-01-01", "2020-01-01", dtype="M8[D]"),
    "timedelta64": lambda: np.arange(5000).astype("m8[us]"),
    "structured": lambda: np.ones(500, [("a", "<i4"), ("b", ">f8"), ("c", "S3"), ("d", "u1", 7)]),
    "aligned": lambda: np.zeros(500, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
    "big-endian": lambda: np.arange(5000, dtype=">u4"),
    "text": lambda: np.full(500, "čšž", "U7"),
    "void": lambda: np.zeros(500, "V13"),
    "bool": lambda: np.arange(9000) % 3 == 0,
    "half": lambda: np.arange(3000, dtype=np.float16),
    "complex": lambda: np.arange(3000) * 1j,
    "long double": lambda: np.arange(3000, dtype=np.longdouble),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_large_arrays_are_views_of_the_cache(cache: Cache, make: Callable[[], Any]) -> None:
    given, wanted = make(), make().copy(order="K")
    stored = cache.get_or_compute("k", lambda: given)
    assert not np.shares_memory(stored, given)
    if given.flags.writeable:
        given.view(np.uint8 if given.dtype.hasobject else given.dtype)[...] = np.zeros(
            (), given.dtype
        )
    del stored
    got = cache["k"]
    assert type(got) is np.ndarray
    assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
    assert (got == wanted).all()
    assert got.flags.f_contiguous or got.flags.c_contiguous
    assert zero_copy(got, cache)
    again = cache["k"]
    assert np.shares_memory(got, again)
    del got, again
    assert cache.discard() == 1


def test_order_is_kept(cache: Cache) -> None:
    cache["F"] = ARRAYS["Fortran's order"]()
    cache["C"] = ARRAYS["two dimensions"]()
    assert cache["F"].flags.f_contiguous
    assert not cache["F"].flags.c_contiguous
    assert cache["C"].flags.c_contiguous


@pytest.mark.parametrize("size", [10, 10_000])
def test_arrays_are_read_only_for_good(cache: Cache, size: int) -> None:
    cache["k"] = np.arange(size)
    got = cache["k"]
    views = [got, got[1:], got.view("u1"), got.reshape(2, -1), np.asarray(got), got.T]
    for view in views:
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1
    if size == 10:
        return  # a small one is the caller's own copy
    for view in views:
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag to True"):
            view.setflags(write=True)
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag to True"):
            view.flags.writeable = True
    with pytest.raises(TypeError, match="read-only"):
        memoryview(got)[0] = 1
    with pytest.raises((BufferError, ValueError, TypeError)):
        np.frombuffer(memoryview(got).cast("B"), np.uint8).setflags(write=True)
    with pytest.raises(TypeError, match="read-only"):
        memoryview(got.base)[0] = 1
    with pytest.raises((TypeError, BufferError)):
        ctypes.c_char.from_buffer(got)
    lease = got.base
    assert np.ndarray(4, np.uint8, lease).flags.writeable is False
    without_buffers = pickle.dumps(got, 5, buffer_callback=lambda buffer: None)
    with pytest.raises(ValueError, match="read-only"):
        pickle.loads(without_buffers, buffers=[lease]).sort()
    assert (cache["k"] == np.arange(size)).all()


@pytest.mark.parametrize(
    "array",
    [
        np.array(5),
        np.zeros(0),
        np.zeros((3, 0, 2), "M8[s]"),
        np.zeros(1, "i1,f8"),
        np.array("text"),
        np.zeros((4, 4), order="F"),
    ],
    ids=lambda array: f"{array.shape}{array.dtype}",
)
def test_small_arrays(cache: Cache, array: np.ndarray[Any, Any]) -> None:
    cache["k"] = array
    got = cache["k"]
    assert type(got) is np.ndarray
    assert (got.shape, got.dtype) == (array.shape, array.dtype)
    assert got.tobytes() == array.tobytes()
    assert not got.flags.writeable


def test_arrays_of_objects(cache: Cache) -> None:
    for array in (
        np.array([None, "x", 3] * 2000, dtype=object),
        np.array(["x" * (n % 50) for n in range(5000)], dtype=np.dtypes.StringDType()),
        np.array([(1, "x"), (2, None)] * 1000, dtype=[("a", "i4"), ("b", "O")]),
    ):
        cache["k"] = array
        got = cache["k"]
        assert got.dtype == array.dtype
        assert got.tolist() == array.tolist()


def test_subclasses_of_arrays_stay_what_they_are(cache: Cache) -> None:
    masked = np.ma.masked_greater(np.arange(3000), 2990)
    cache["masked"], cache["table"] = masked, np.arange(3000).view(Table)
    cache["record"] = np.rec.fromarrays(
        [np.arange(3000), np.ones(3000)], dtype=[("a", int), ("b", float)]
    )
    assert type(cache["masked"]) is np.ma.MaskedArray
    assert cache["masked"].sum() == masked.sum()
    assert type(cache["table"]) is Table
    assert type(cache["record"]) is np.recarray
    assert cache["record"].a[-1] == 2999


@given(
    hnp.scalar_dtypes(),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=20),
    st.permutations(range(4)),
    st.integers(-3, 3).filter(bool),
)
def test_any_array(
    dtype: np.dtype[Any], shape: tuple[int, ...], axes: list[int], step: int
) -> None:
    raw = np.random.default_rng(0).bytes(max(1, int(np.prod(shape)) * dtype.itemsize))
    array = np.frombuffer(raw, np.uint8)[: int(np.prod(shape)) * dtype.itemsize].view(dtype)
    array = array.reshape(shape).transpose([axis for axis in axes if axis < len(shape)])
    if len(shape):
        array = array[::step]
    with Cache(arena_bytes="16MiB", hot_bytes=0) as cache:
        cache["k"] = array
        got = cache["k"]
    assert (type(got), got.dtype, got.shape) == (np.ndarray, array.dtype, array.shape)
    if array.dtype != np.longdouble and array.dtype != np.clongdouble:  # they have padding
        assert got.tobytes() == array.tobytes()
    assert not got.flags.writeable


def test_columns_of_a_frame_are_not_copied(cache: Cache) -> None:
    frame = pd.DataFrame(
        {
            "int": np.arange(50_000),
            "float": np.linspace(0, 1, 50_000),
            "time": pd.date_range("2000", periods=50_000, freq="h"),
            "text": ["a", "b"] * 25_000,
            "class": pd.Categorical(["u", "v"] * 25_000),
        },
        index=pd.RangeIndex(50_000),
    )
    cache["k"] = frame
    got = cache["k"]
    pd.testing.assert_frame_equal(got, frame)
    for name in ("int", "float"):
        column = got[name].to_numpy()
        assert not column.flags.writeable
        assert np.shares_memory(column, cache["k"][name].to_numpy())
        with pytest.raises(ValueError, match=r"WRITEABLE|read-only"):
            column.flags.writeable = True
    column = got["int"].to_numpy()
    del got
    assert cache.discard() == 0, "a column that is held holds the frame's range"
    assert column.sum() == 50_000 * 49_999 // 2
    del column
    assert cache.discard() == 1


def test_buffers_inside_of_anything_are_aligned_and_kept_apart(cache: Cache) -> None:
    value: dict[Any, np.ndarray[Any, Any]]
    value = {n: np.full(n + 1, n, np.int16) for n in range(300)}
    value["empty"], value["large"] = np.zeros(0), np.arange(100_000)
    cache["k"] = value
    got = cache["k"]
    assert list(got) == list(value)
    for name, array in value.items():
        assert (got[name] == array).all()
        if array.size:
            assert address_of_buffer(got[name]) % 64 == 0
            assert not got[name].flags.writeable


@pytest.mark.parametrize("count", [2047, 2048, 5000])
def test_any_number_of_buffers(cache: Cache, count: int) -> None:
    cache["k"] = [np.full(100, n) for n in range(count)]
    got = cache["k"]
    assert len(got) == count
    assert all((array == n).all() and not array.flags.writeable for n, array in enumerate(got))
    last = got[-1]
    del got
    assert cache.discard() == 0
    assert (last == count - 1).all()


class Raises:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError("inside of __reduce__")


@pytest.mark.parametrize(
    "value",
    [lambda: 1, (n for n in range(2)), open, memoryview(b"x"), [[lambda: 1]], Raises(), object()],
)
def test_what_can_not_be_pickled_is_as_if_purged_at_once(cache: Cache, value: Any) -> None:
    if value is open:
        value = open(os.devnull)  # noqa: SIM115
    cache["k"] = 1
    try:
        with pytest.warns(vrange.NotKeptWarning, match=r"a value of type .* can't be pi"):
            cache["k"] = value
        cache["k"] = value  # said once
    finally:
        getattr(value, "close", lambda: None)()
    assert "k" not in cache
    assert cache.info().entries == 0


def test_a_value_nested_too_deeply_raises_recursion_error(cache: Cache) -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(RecursionError):
        cache["k"] = nested
    assert "k" not in cache
    while nested:
        nested = nested.pop()


def test_what_is_small_is_packed() -> None:
    for small in (b"x" * 2048, "x" * 2048, [np.arange(3), "x"], np.zeros(256), (1, ("a", None))):
        with Cache(arena_bytes="1MiB", hot_bytes=0) as cache:
            for n in range(20):
                cache[n] = small
            assert cache._account.read().ranges == 1
            assert all(str(cache[n]) == str(small) for n in range(20))


def test_arrays_alike_keep_what_tells_them_apart() -> None:
    plain = np.arange(3000, dtype="f8")
    told = plain.astype(np.dtype("f8", metadata={"unit": "m"}))
    swapped = plain.astype(">f8")
    with Cache(hot_bytes=0) as cache:
        for key, value in (("plain", plain), ("told", told), ("swapped", swapped)):
            cache[key] = value
        cache["rows"] = plain.reshape(30, 100)
        assert cache["plain"].dtype.metadata is None
        assert cache["told"].dtype.metadata == {"unit": "m"}
        assert cache["swapped"].dtype.byteorder == ">"
        assert cache["rows"].shape == (30, 100)
        assert all((cache[key] == plain).all() for key in ("plain", "told", "swapped"))
