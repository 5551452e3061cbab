"""A fill that repeats one value or several."""

from __future__ import annotations

from typing import Any

import numpy as np

from vrange._core import ffi, lib
from vrange.fills.base import NativeFill, Regenerator


class pattern(NativeFill):
    """Repeat `values` from the array's beginning on.

    Parameters
    ----------
    values : number, sequence or bytes-like
        A number or a sequence that fits the array's dtype. bytes are repeated as they are, whatever
        the dtype.

    Raises
    ------
    ValueError
        From VolatileArray: if `values` is empty or does not fit the dtype.

    Examples
    --------
    >>> pattern([1, 2, 3])
    fills.pattern([1, 2, 3])

    """

    def __init__(self, values: Any) -> None:
        self._values = values

    def bind(self, dtype: np.dtype[Any], nbytes: int, block_bytes: int) -> Regenerator:
        """Bind the values to an array whose dtype they fit."""
        if isinstance(self._values, bytes | bytearray | memoryview):
            data = bytes(self._values)
        else:
            data = self._fitted(dtype).tobytes()
        if not data:
            raise ValueError("a pattern must have at least one value")
        content = ffi.from_buffer(data)
        context = ffi.new("vrange_pattern *", {"data": content, "bytes": len(data)})
        return Regenerator(lib.vrange_regenerate_pattern, context, (content, data))

    def _fitted(self, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        try:
            fitted = np.asarray(self._values, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self._values!r} can't be repeated as {dtype}: {error}") from None
        if dtype.kind in "iub" and not np.array_equal(fitted, np.asarray(self._values)):
            raise ValueError(f"{self._values!r} can't be repeated as {dtype}: it does not fit")
        return fitted

    def __repr__(self) -> str:
        return f"fills.pattern({self._values!r})"
