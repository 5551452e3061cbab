"""An ordinary array, filled once: a VolatileArray with eager=True, or below the refault rung."""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import numpy as np

from vrange._core import ffi, lib
from vrange.errors import ArenaFullError, RegenerationError, VrangeError
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


def filled_once_if_room(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: NativeFill | Python,
    block_bytes: int,
    name: str,
    why: str,
) -> np.ndarray[Any, Any]:
    """Return what filled_once() returns, if it fits below the memory limit.

    An array that refills may be larger than memory. Made an ordinary one, it would be the reason
    for a kill. `why` tells why it can't refill. Raises VrangeError if there is no room.
    """
    size = math.prod(shape) * dtype.itemsize
    if size >= 1 << 63 or lib.vrange_room_take(size):
        raise VrangeError(
            f"array {name!r} needs the refault rung, which this process lacks ({why}), and its "
            f"{format_bytes(size)} do not fit into the memory that is left as an ordinary array"
        )
    try:
        out = filled_once(shape, dtype, fill, block_bytes, name)
    finally:
        lib.vrange_room_give(size)
    _warn_once(why)
    return out


@cache
def _warn_once(why: str) -> None:
    warnings.warn(
        "volatile arrays are ordinary ones in this process: filled once, and never given back "
        f"while they are used. It lacks the refault rung ({why}). eager=True says that this is "
        "meant, and eager=False refuses it",
        RuntimeWarning,
        stacklevel=4,
    )
