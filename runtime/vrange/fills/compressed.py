"""A fill from blocks that are held compressed in memory."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vrange._core import ffi, lib
from vrange.errors import VrangeError
from vrange.fills.base import NativeFill, Regenerator
from vrange.sizes import parse_bytes

if TYPE_CHECKING:
    import numpy as np


class compressed(NativeFill):
    """Keep `content` compressed, block by block, in zlib's format (RFC 1950).

    Parameters
    ----------
    content : bytes-like
        Any object with a contiguous buffer.
    block_bytes : int or str, default "64KiB"
        The bytes of each compressed block. It must divide the array's `block_bytes`.
    level : int, default 6
        zlib's compression level, from 1 (fast) to 9 (small).

    Raises
    ------
    ValueError
        If `block_bytes` or `level` is out of range.
    TypeError
        If `level` is not an int, or `content` has no buffer.

    Notes
    -----
    The compressed blocks stay in ordinary memory. `nbytes` is the amount.

    Examples
    --------
    >>> compressed(bytes(1 << 20)).nbytes < 1 << 14
    True

    """

    def __init__(self, content: Any, *, block_bytes: int | str = "64KiB", level: int = 6) -> None:
        view = memoryview(content).cast("B")
        self._block_bytes = parse_bytes(block_bytes, "block_bytes")
        if self._block_bytes == 0:
            raise ValueError("block_bytes must be at least 1, but is 0")
        if isinstance(level, bool) or not isinstance(level, int):
            raise TypeError(f"level must be an int, not {level!r}")
        if not 1 <= level <= 9:
            raise ValueError(f"level must be 1 to 9, but is {level}")
        step = self._block_bytes
        self._content_bytes = len(view)
        self._blocks: Sequence[bytes] = [
            zlib.compress(view[at : at + step], level) for at in range(0, len(view), step)
        ]
        # The last block is inflated into the rest of the array, which must have exactly its size.

    @property
    def nbytes(self) -> int:
        """The bytes of the compressed blocks."""
        return sum(map(len, self._blocks))

    def bind(self, dtype: np.dtype[Any], nbytes: int, block_bytes: int) -> Regenerator:
        """Bind the content to an array of exactly its size."""
        if nbytes != self._content_bytes:
            raise ValueError(
                f"the compressed content has {self._content_bytes} bytes, but the array {nbytes}"
            )
        if block_bytes % self._block_bytes:
            raise ValueError(
                f"the array's block_bytes, {block_bytes}, must be a multiple of the fill's, "
                f"{self._block_bytes}"
            )
        buffers = [ffi.from_buffer(block) for block in self._blocks]
        blocks = ffi.new("const void *[]", buffers)
        sizes = ffi.new("size_t[]", [len(block) for block in self._blocks])
        context = ffi.new(
            "vrange_compressed *",
            {
                "block_bytes": self._block_bytes,
                "count": len(buffers),
                "blocks": blocks,
                "sizes": sizes,
            },
        )
        if lib.vrange_compressed_prepare() < 0:
            raise VrangeError("vrange.fills.compressed needs zlib's shared library, libz.so.1")
        return Regenerator(lib.vrange_regenerate_compressed, context, (buffers, blocks, sizes))

    def __repr__(self) -> str:
        return f"<fills.compressed of {self._content_bytes} bytes in {self.nbytes}>"
