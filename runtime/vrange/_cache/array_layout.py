"""The layout of arrays in the stored bytes, and arrays over the stored bytes.

An array that is contiguous, in either order, is stored as it lies in memory. Arrays of one value
that overlap are stored once, and overlap again when they are decoded. Any other array is stored in
the order of its items.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

ALIGNMENT = 64  # of buffers within a range: a cache line, and fast for NumPy's kernels

STEP_BYTES = 1 << 20  # copied between two checks whether there is room


def own_dtype(dtype: Any) -> Any:
    """Return a dtype that no caller can change: the names of fields can be set in place."""
    if dtype.names is None:
        return dtype
    own = dtype.newbyteorder("|")  # a copy, as "|" keeps the order; copy= would return the same
    return own if own.fields == dtype.fields else dtype  # titles are lost


class Strided:
    """An array that is not contiguous: it is stored in the order of its items."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        self.nbytes: int = array.nbytes

    def content(self) -> Any:
        """Return a copy of the array, as bytes."""
        numpy = sys.modules["numpy"]
        return numpy.ascontiguousarray(self._array).reshape(-1).view(numpy.uint8)

    def write(self, memory: Any, at: int, before_step: Callable[[int], None]) -> None:
        """Write it into memory in steps of rows. Call before_step with the bytes still left."""
        numpy, array = sys.modules["numpy"], self._array
        to = numpy.ndarray(array.shape, array.dtype, memoryview(memory), at)
        rows = len(array)
        step = max(1, rows * STEP_BYTES // array.nbytes)
        for row in range(0, rows, step):
            before_step(array.nbytes * (rows - row) // rows)
            to[row : row + step] = array[row : row + step]


class ArrayPlace:
    """The place of an array within a value, and how it is decoded."""

    __slots__ = ("_block", "_dtype", "_is_writable", "_offset", "_shape", "_strides", "is_private")

    def __init__(
        self,
        array: np.ndarray[Any, Any],
        block: int,
        offset: int,
        strides: tuple[int, ...] | None,
        is_private: bool,
        is_writable: bool,
    ) -> None:
        self._dtype, self._shape, self._strides = own_dtype(array.dtype), array.shape, strides
        self._block, self._offset = block, offset
        self.is_private, self._is_writable = is_private, is_writable

    def load(self, blocks: Blocks) -> Any:
        """Return the array: a view of the stored bytes, or of the caller's own copy."""
        numpy, dtype = sys.modules["numpy"], own_dtype(self._dtype)
        if self._block < 0:
            array = numpy.empty(self._shape, dtype)
        else:
            buffer = blocks.copied(self._block) if self.is_private else blocks.view(self._block)
            array = numpy.ndarray(self._shape, dtype, buffer, self._offset, self._strides)
        if not self._is_writable:
            array.flags.writeable = False
        return array


class Blocks:
    """The stored blocks of one value that is being decoded, and copies of them."""

    def __init__(self, stored: memoryview, places: Sequence[tuple[int, int]]) -> None:
        self._stored, self._places = stored, places
        self._copies: dict[int, Any] = {}

    def view(self, block: int) -> memoryview:
        """Return the stored block, read-only."""
        start, end = self._places[block]
        return self._stored[start:end]

    def copied(self, block: int) -> Any:
        """Return this value's own copy of the block: the same copy each time."""
        if block not in self._copies:
            numpy = sys.modules["numpy"]
            self._copies[block] = numpy.frombuffer(self.view(block), numpy.uint8).copy()
        return self._copies[block]


class _Memory:
    """The memory under some arrays, for NumPy. It keeps the arrays alive."""

    def __init__(self, address: int, nbytes: int, arrays: object) -> None:
        self.__array_interface__ = {
            "data": (address, True),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }
        self._arrays = arrays


class Layout:
    """The blocks that the arrays of a value take, and each array's place in them."""

    def __init__(self, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        self._arrays = arrays
        self.blocks: list[Any] = []  # the buffers to store
        self.skews: list[int] = []  # where a block has to begin, above a multiple of ALIGNMENT
        self.places: list[tuple[int, int, tuple[int, ...] | None]] = [(-1, 0, None)] * len(arrays)
        dense: list[int] = []
        others: list[int] = []
        for number, array in enumerate(arrays):
            if array.nbytes:
                flags = array.flags
                is_dense = flags.c_contiguous or flags.f_contiguous
                (dense if is_dense else others).append(number)
        if len(dense) == 1 and not others:
            self._add_alone(dense[0], arrays[dense[0]].strides)
        else:
            self._merge(dense, others)

    def _add_alone(self, number: int, strides: tuple[int, ...] | None) -> None:
        array = self._arrays[number]
        if strides is None:
            self.blocks.append(Strided(array))
        else:
            flat = array if array.flags.c_contiguous else array.T
            self.blocks.append(flat.reshape(-1).view(sys.modules["numpy"].uint8))
        self.skews.append(0)
        self.places[number] = (len(self.blocks) - 1, 0, strides)

    def _merge(self, dense: list[int], others: list[int]) -> None:
        arrays = self._arrays
        extents = sorted((*_extent(arrays[number]), number) for number in dense)
        starts: list[int] = []
        ends: list[int] = []
        members: list[list[int]] = []
        for start, end, number in extents:
            if ends and start < ends[-1]:
                ends[-1] = max(ends[-1], end)
                members[-1].append(number)
            else:
                starts.append(start)
                ends.append(end)
                members.append([number])
        alone = []
        for number in others:
            start, end = _extent(arrays[number])
            at = bisect_right(starts, start) - 1
            if at >= 0 and end <= ends[at]:
                members[at].append(number)
            else:
                alone.append(number)
        for start, end, numbers in zip(starts, ends, members, strict=True):
            if len(numbers) == 1:
                self._add_alone(numbers[0], arrays[numbers[0]].strides)
                continue
            kept = [arrays[number] for number in numbers]
            self.blocks.append(
                sys.modules["numpy"].asarray(
                    _Memory(start, end - start, kept)
                )  # all of it is theirs
            )
            self.skews.append(start % ALIGNMENT)
            for number in numbers:
                first = arrays[number].__array_interface__["data"][0]
                self.places[number] = (len(self.blocks) - 1, first - start, arrays[number].strides)
        for number in alone:
            self._add_alone(number, None)


def _extent(array: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Return the address of an array's first byte, and of the byte after its last."""
    low = high = array.__array_interface__["data"][0]
    for length, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += (length - 1) * stride
        else:
            high += (length - 1) * stride
    return low, high + array.itemsize
