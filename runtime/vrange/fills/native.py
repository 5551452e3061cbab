"""A fill that is the user's own C function."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from vrange._core import ffi
from vrange.fills.base import NativeFill, Regenerator

if TYPE_CHECKING:
    import numpy as np


def _address(pointer: Any, name: str) -> int:
    """Return the address in an int, a cffi or ctypes pointer, or a Numba cfunc."""
    if isinstance(pointer, int):
        return pointer
    if isinstance(pointer, ffi.CData):
        return int(ffi.cast("uintptr_t", pointer))
    if isinstance(getattr(pointer, "address", None), int):
        return int(pointer.address)
    if isinstance(pointer, ctypes.c_void_p):
        return pointer.value or 0
    # A cdata of another FFI instance is a CData too, so what remains comes from ctypes.
    try:
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0
    except (TypeError, ctypes.ArgumentError):
        raise TypeError(
            f"{name} must be an address, a cffi or ctypes pointer or a numba.cfunc, not {pointer!r}"
        ) from None


class native(NativeFill):
    """Call `int function(void *to, size_t offset, size_t bytes, void *context)`.

    The function must write the array's bytes from `offset` to `offset + bytes` to `to`, the same
    bytes each time, and return 0, or an errno.

    Parameters
    ----------
    function : int, cffi pointer, ctypes pointer or numba.cfunc
        The function or its address.
    context : int, cffi pointer, ctypes pointer or None
        The last argument of each call.

    Raises
    ------
    TypeError
        If `function` or `context` is not a pointer.
    ValueError
        If `function` is null.

    Notes
    -----
    The function runs in a signal handler, on the thread that touched the array. It must not
    allocate, lock or call Python. The fill keeps `function` and `context` alive.

    Examples
    --------
    >>> import vrange
    >>> from vrange._core import ffi, lib  # here: the C function of fills.zero
    >>> fill = vrange.fills.native(ffi.addressof(lib, "vrange_regenerate_zero"))
    >>> a = vrange.VolatileArray(1000, "f8", fill=fill, eager=True)
    >>> float(a[999])
    0.0

    """

    def __init__(self, function: Any, context: Any = None) -> None:
        if isinstance(function, str | bytes):  # ctypes takes these for pointers, but not to code
            raise TypeError(f"function must be a pointer to a function, not {function!r}")
        self._function = function
        self._context = context
        self._address = _address(function, "function")
        if self._address == 0:
            raise ValueError("function must not be null")
        self._context_address = 0 if context is None else _address(context, "context")

    def bind(self, dtype: np.dtype[Any], nbytes: int, block_bytes: int) -> Regenerator:
        """Bind the function to any array; the caller is responsible that it can fill the array."""
        return Regenerator(
            ffi.cast("vrange_regenerate", self._address),
            ffi.cast("void *", self._context_address),
            (self._function, self._context),
        )

    def __repr__(self) -> str:
        return f"fills.native({self._function!r}, {self._context!r})"
