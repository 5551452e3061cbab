"""A fill of zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vrange._core import ffi, lib
from vrange.fills.base import NativeFill, Regenerator

if TYPE_CHECKING:
    import numpy as np


class zero(NativeFill):
    """Fill with zeros.

    Examples
    --------
    >>> zero()
    fills.zero()

    """

    def bind(self, dtype: np.dtype[Any], nbytes: int, block_bytes: int) -> Regenerator:
        """Bind to any array."""
        return Regenerator(lib.vrange_regenerate_zero, ffi.NULL)

    def __repr__(self) -> str:
        return "fills.zero()"
