"""An ordinary array, filled once: what a VolatileArray is with eager=True."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vrange._core import ffi
from vrange.errors import ArenaFullError, RegenerationError
from vrange.fills.base import NativeFill
from vrange.fills.python import Python
from vrange.sizes import format_bytes


def filled_once(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: NativeFill | Python,
    block_bytes: int,
    name: str,
) -> np.ndarray[Any, Any]:
    """Return a read-only array with the fill's content.

    Raises ArenaFullError if there is no memory, and RegenerationError if the fill fails.
    """
    try:
        out = np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:  # ValueError: larger than the address space
        raise ArenaFullError(
            f"{format_bytes(math.prod(shape) * dtype.itemsize)} of memory for array {name!r} "
            "is not available"
        ) from error
    flat = out.reshape(-1).view(np.uint8)
    if isinstance(fill, Python):
        try:
            fill.put(0, flat)
        except RegenerationError:
            raise
        except Exception as error:
            raise RegenerationError(f"the fill of array {name!r} failed") from error
    elif out.size:
        bound = fill.bind(dtype, out.nbytes, block_bytes)
        failure = bound.function(ffi.from_buffer(flat), 0, out.nbytes, bound.context)
        if failure:
            raise RegenerationError(f"the fill of array {name!r} failed (error {failure})")
    out.flags.writeable = False
    return out
