"""A C function of the user's own."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from vrange._core import ffi
from vrange.fills.base import NativeFill, Regenerator

if TYPE_CHECKING:
    import numpy as np


def _address(pointer: Any, name: str) -> int:
    """The address in an int, a cffi or ctypes pointer, or a Numba cfunc."""
    if isinstance(pointer, int):
        return pointer
    if isinstance(pointer, ffi.CData):
        return int(ffi.cast("uintptr_t", pointer))
    if isinstance(getattr(pointer, "address", None), int):
        return int(pointer.address)
    if isinstance(pointer, ctypes.c_void_p):
        return pointer.value or 0
    # A cdata of another FFI instance is a CData too; what is left is of ctypes.
    try:
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0
    except (TypeError, ctypes.ArgumentError):
        raise TypeError(
            f"{name} must be an address, a cffi or ctypes pointer or a numba.cfunc, not {pointer!r}"
        ) from None


class native(NativeFill):
    """Calls `int function(void *to, size_t offset, size_t bytes, void *context)`.

    It has to put the array's bytes `offset` to `offset + bytes` at `to`, the same each time, and
    return 0, or an errno. It runs in a signal handler on the thread that touched the array: no
    allocation, no locks, no Python. `function` is from cffi, ctypes or numba.cfunc, or an address;
    so is `context`. Both are kept alive. TypeError for what is no pointer, ValueError for a null
    function.
    """

    def __init__(self, function: Any, context: Any = None) -> None:
        if isinstance(function, str | bytes):  # to ctypes a pointer, but not to code
            raise TypeError(f"function must be a pointer to a function, not {function!r}")
        self._function = function
        self._context = context
        self._address = _address(function, "function")
        if self._address == 0:
            raise ValueError("function must not be null")
        self._context_address = 0 if context is None else _address(context, "context")

    def bind(self, dtype: np.dtype[Any], nbytes: int, block_bytes: int) -> Regenerator:
        """Binds to any array; whether the function can fill it is its own business."""
        return Regenerator(
            ffi.cast("vrange_regenerate", self._address),
            ffi.cast("void *", self._context_address),
            (self._function, self._context),
        )

    def __repr__(self) -> str:
        return f"fills.native({self._function!r}, {self._context!r})"
