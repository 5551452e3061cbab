"""Checks what an array is made from, and what it is indexed with."""

from __future__ import annotations

import operator
from types import EllipsisType
from typing import Any

import numpy as np

from vrange._core import lib
from vrange.sizes import parse_bytes

_BLOCK_BYTES_MOST: int = lib.VRANGE_BLOCK_BYTES_MOST


def checked_shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the dimensions, or raise TypeError or ValueError."""
    parts = shape if isinstance(shape, tuple | list) else (shape,)
    try:
        checked = tuple(operator.index(n) for n in parts)
    except TypeError:
        raise TypeError(f"shape must be an int or a tuple of ints, not {shape!r}") from None
    if any(n < 0 for n in checked):
        raise ValueError(f"shape must not be negative, but is {checked}")
    return checked


def checked_block_bytes(block_bytes: int | str) -> int:
    """Return the size of a block in bytes, or raise TypeError or ValueError."""
    size = parse_bytes(block_bytes, "block_bytes")
    page: int = lib.vrange_page_bytes()
    if size < page or size > _BLOCK_BYTES_MOST or size & (size - 1):
        raise ValueError(
            f"block_bytes must be a power of two from {page} to {_BLOCK_BYTES_MOST}, not {size}"
        )
    return size


def rows_of(index: Any, shape: tuple[int, ...]) -> list[int] | None:
    """Return the rows that a list, an int array or a mask selects; None for any other index."""
    if isinstance(index, EllipsisType | slice | int | tuple | np.integer) or index is None:
        return None
    picked = np.asarray(index)
    if picked.ndim != 1 or not shape:
        raise IndexError(
            f"an array with a Python fill takes ints, slices, and one list or mask of rows, not "
            f"{index!r}: pin a part and index that"
        )
    if picked.dtype == bool:
        if len(picked) != shape[0]:
            raise IndexError(f"a mask of {len(picked)} rows for an array of {shape[0]}")
        picked = np.flatnonzero(picked)
    elif picked.size == 0:
        return []
    return [operator.index(i) for i in picked]


def checked_pin_index(index: Any) -> None:
    """Raise IndexError unless the index is made of what selects a view: ints and slices."""
    for part in index if isinstance(index, tuple) else (index,):
        plain = part is None or part is Ellipsis or isinstance(part, slice | int | np.integer)
        if not plain or isinstance(part, bool):
            raise IndexError(
                f"only ints and slices can be pinned, not {part!r}: pin a part, then index that"
            )


def extent_of(view: np.ndarray[Any, Any], whole: np.ndarray[Any, Any]) -> tuple[int, int, int]:
    """Return a view's start, and the extent of its bytes, as distances from the whole's start."""
    start: int = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    spans = [(n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True)]
    low = start + sum(span for span in spans if span < 0)
    high = start + sum(span for span in spans if span > 0) + view.dtype.itemsize
    return start, low, high
