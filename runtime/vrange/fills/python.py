"""A function of the user's own, in Python."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from vrange._core import ffi, hit
from vrange.errors import RegenerationError
from vrange.fills.base import Regenerator

Function = Callable[[int, np.ndarray[Any, Any]], int | None]


class Python:
    """Calls `function(start, out)` for the elements of an array that a span of bytes is of.

    It refers to nothing but the function, so that an array that nobody holds goes at once.
    """

    def __init__(self, function: Function, dtype: np.dtype[Any], name: str) -> None:
        self._function = function
        self._dtype = dtype
        self._name = name

    def put(self, offset: int, out: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Fills `out` with the array's bytes from `offset` on. What the function raises is raised;
        RegenerationError where it says that it wrote less than was asked for.
        """
        item = self._dtype.itemsize
        start, end = offset // item, -(-(offset + len(out)) // item)
        # Zeros, not what the heap had there, for who forgets some and doesn't say so.
        elements = np.zeros(end - start, self._dtype)
        written = self._function(start, elements)
        if written is not None and operator.index(written) != len(elements):
            raise RegenerationError(
                f"the fill of array {self._name!r} wrote {written} elements of {len(elements)} "
                f"from {start} on"
            )
        skip = offset - start * item
        out[:] = elements.view(np.uint8)[skip : skip + len(out)]

    def regenerator(self) -> Regenerator:
        """What runs it inside a touch."""
        put = self.put

        def put_at(address: int, offset: int, nbytes: int) -> None:
            memory = ffi.buffer(ffi.cast("char *", address), nbytes)
            put(offset, np.frombuffer(memory, np.uint8))

        return Regenerator(
            ffi.cast("vrange_regenerate", hit.python_regenerator()),
            ffi.cast("void *", id(put_at)),
            (put_at,),
        )
