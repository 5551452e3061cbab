"""A fill that is the user's own Python function."""

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
    """Call `function(start, out)` for the elements that a span of an array's bytes belongs to.

    It refers to nothing but the function, so that an unused array is freed at once.
    """

    def __init__(self, function: Function, dtype: np.dtype[Any], name: str) -> None:
        self._function = function
        self._dtype = dtype
        self._name = name

    def put(self, offset: int, out: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Fill `out` with the array's bytes from `offset` on.

        An exception of the function propagates. If the function reports that it wrote fewer
        elements than requested, raise RegenerationError.
        """
        item = self._dtype.itemsize
        start, end = offset // item, -(-(offset + len(out)) // item)
        # If a function skips elements without reporting it, they are zeros and not old heap
        # content.
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
        """Return the regenerator that runs it inside a touch."""
        put = self.put

        def put_at(address: int, offset: int, nbytes: int) -> None:
            memory = ffi.buffer(ffi.cast("char *", address), nbytes)
            put(offset, np.frombuffer(memory, np.uint8))

        return Regenerator(
            ffi.cast("vrange_regenerate", hit.python_regenerator()),
            ffi.cast("void *", id(put_at)),
            (put_at,),
        )
