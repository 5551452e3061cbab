"""VolatileArray as an ndarray is used: what is read is right, whatever the kernel takes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_child import KIB, MIB, PAGE
from array_support import content_of, same

PACKED = np.dtype([("a", "u1"), ("b", "u2")])  # 3 bytes, and never at a word's beginning

TWELVE = np.dtype([("x", "f4"), ("y", "f4"), ("n", "u4")])


@pytest.mark.parametrize("block_bytes", [4 * KIB, "64KiB", 2 * MIB])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (1, "u1"),
        ((), "f8"),
        (4097, "u1"),
        ((113, 71, 3), "u1"),
        ((1001, 37), "f4"),
        (9999, PACKED),
        ((777, 5), TWELVE),
        (65537, "<M8[s]"),
        (3000, "S5"),
        ((40, 3), "(2,7)i2"),
        ((0, 5), "i4"),
        (0, "u1"),
    ],
    ids=str,
)
def test_shapes_and_dtypes(
    make: Callable[..., Any], shape: Any, dtype: Any, block_bytes: Any
) -> None:
    content = content_of(shape, dtype)
    with make(content, block_bytes=block_bytes) as a:
        assert a.shape == content.shape
        assert a.dtype == content.dtype
        assert (a.ndim, a.size, a.nbytes) == (content.ndim, content.size, content.nbytes)
        for _ in range(2):
            assert same(a[...], content)
            a.discard()
        assert bytes(a) == content.tobytes()
        with a.pin() as view:
            assert same(view, content)


INDICES: list[Any] = [
    5,
    -1,
    np.int64(7),
    slice(1000, 2000),
    slice(None, None, 7),
    slice(None, None, -1),
    slice(2500, 2, -333),
    slice(3, 3),
    ...,
    None,
    (5, 2),
    (slice(10, 900, 13), slice(None, None, -2)),
    (..., 1),
    (None, 17, None, slice(1, 3)),
    (slice(40, 50), -1, ...),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indices(make: Callable[..., Any], index: Any) -> None:
    content = content_of((3001, 5), "u4")
    with make(content, block_bytes=PAGE) as a:
        for _ in range(2):
            assert same(a[index], content[index])
            a.discard()
        with a.pin(index) as view:
            assert same(view, content[index])
        assert not np.asarray(a[index]).flags.writeable or np.isscalar(a[index])


@pytest.mark.parametrize("rows", [[3, 1, 2999], np.array([0, 0, 7]), [], "mask"], ids=str)
def test_picking_rows(make: Callable[..., Any], rows: Any) -> None:
    content = content_of((3000, 5), "u4")
    if isinstance(rows, str):
        rows = np.arange(3000) % 700 == 3
    with make(content, block_bytes=PAGE) as a:
        assert same(a[rows], content[rows])


def test_sequence(make: Callable[..., Any]) -> None:
    content = content_of((50, 300), "u4")
    with make(content, block_bytes=PAGE) as a:
        assert len(a) == 50
        assert all(same(mine, theirs) for mine, theirs in zip(a, content, strict=True))
        with pytest.raises(IndexError):
            a[50]
    with make(content_of((), "f8")) as a, pytest.raises(TypeError, match="no dimensions"):
        len(a)


def test_is_read_only(make: Callable[..., Any]) -> None:
    with make(content_of(1000, "u4")) as a:
        with pytest.raises(ValueError, match="read-only"):
            a[...][0] = 1
        with pytest.raises(TypeError):
            a[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            a[...].flags.writeable = True


def test_pickled_by_content(make: Callable[..., Any]) -> None:
    content = content_of((300, 71), "f4")
    with make(content, block_bytes=PAGE) as a:
        a.discard()
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            copy = pickle.loads(pickle.dumps(a, protocol))
            assert same(copy, content)
            assert not copy.flags.writeable


def test_copying_out(make: Callable[..., Any]) -> None:
    content = content_of((300, 71), "u2")
    with make(content, block_bytes=PAGE) as a:
        copy = np.array(a, copy=True)
        assert same(copy, content)
        copy[0] = 0
        assert same(a[...], content)
        assert same(np.array(a, dtype="f8", copy=True), content.astype("f8"))


def test_repr_says_what_it_is(make: Callable[..., Any]) -> None:
    a = make(content_of((3, 4), "u2"), name="frames")
    assert "'frames'" in repr(a)
    assert "(3, 4)" in repr(a)
    assert "resident" in repr(a) or "eager" in repr(a)
    a.close()
    with pytest.raises(ValueError, match="'frames' is closed"):
        a[0]
    a.close()
