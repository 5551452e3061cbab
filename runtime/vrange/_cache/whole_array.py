"""Codes an array that is a whole value: as it lies in memory, or in the order of its items."""

from __future__ import annotations

import sys
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from vrange._cache.array_layout import Strided, own_dtype
from vrange._cache.collector import Collector, room_for
from vrange._core import hit
from vrange._numpy_table import numpy_core

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

_EXPORTED = "biufc"  # dtypes whose arrays export their buffer; datetimes, for one, do not


def encode_array(
    array: np.ndarray[Any, Any], collector: Collector, *, copies: bool = False
) -> hit.Form:
    """Return the form in which an array that is the whole value is stored.

    It is decoded as a read-only view, or, with `copies`, as a copy for each caller.
    """
    numpy = sys.modules["numpy"]
    collector.owe(array.nbytes)
    flags, dtype, order = array.flags, array.dtype, "C"
    flat: Any = array
    if flags.f_contiguous and not flags.c_contiguous:
        flat, order = array.T, "F"
    decode: Callable[..., Any]
    if copies:
        decode = partial(_copy, array.shape, own_dtype(dtype), order)
    elif dtype.isbuiltin == 1:
        decode = hit.Viewer(_numpy_table(), array.shape, dtype, order == "F")
    else:  # no shared Viewer: equal dtypes may differ, for example in their metadata
        know_arrays()
        kind = numpy.ndarray if dtype.names is None else _with_own_dtype
        decode = partial(kind, array.shape, own_dtype(dtype), order=order)
    if not flat.flags.c_contiguous:
        flat = Strided(array)
    elif dtype.kind not in _EXPORTED or array.nbytes >= hit.ROOM_BYTES:
        flat = flat.reshape(-1).view(numpy.uint8)
    collector.parts.append(flat)
    # Callers would share the names of a dtype's fields, which can be set in place.
    is_private = copies or dtype.names is not None
    return collector.form(decode, refers=not copies, is_view=True, is_private=is_private)


@cache
def know_arrays() -> None:
    """Let the native core tell arrays from other values: no two callers get one array object."""
    hit.Viewer(_numpy_table(), (), sys.modules["numpy"].dtype("u1"), False)


@cache
def _numpy_table() -> object:
    return numpy_core()._ARRAY_API


def _with_own_dtype(shape: Any, dtype: Any, stored: Any, *, order: Any) -> Any:
    return sys.modules["numpy"].ndarray(shape, own_dtype(dtype), stored, order=order)


def _copy(shape: tuple[int, ...], dtype: Any, order: Any, stored: Any) -> Any:
    view = _with_own_dtype(shape, dtype, stored, order=order)
    room = room_for(view.nbytes)
    try:
        return view.copy(order="K")
    finally:
        room.release()
