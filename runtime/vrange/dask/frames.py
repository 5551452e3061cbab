"""A value as Dask's serializers write it: a header, and frames of bytes that can be views of it."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distributed.protocol.serialize import deserialize, serialize
from distributed.utils import ensure_memoryview

__all__ = ["Frames", "Layout", "decode", "encode"]

_ALIGN = 64  # arrays that lie in the frames must be aligned for any type and vector instruction


@dataclass(frozen=True, slots=True)
class Layout:
    """What is needed to make the value from its bytes, and to see whether they are right.

    Attributes
    ----------
    header : dict
        What Dask's serializer says of the frames.
    lengths : tuple[int, ...]
        The bytes of each frame. Each frame begins at a multiple of 64.
    checksum : int
        Of all frames. Two encodings with equal lengths and checksums are the same value.

    """

    header: dict[str, Any]
    lengths: tuple[int, ...]
    checksum: int

    @property
    def nbytes(self) -> int:
        """The bytes of all frames one after another, with the gaps between them."""
        return sum(map(_aligned, self.lengths))

    def is_of(self, other: Layout) -> bool:
        """Return whether both have the same bytes."""
        return self.lengths == other.lengths and self.checksum == other.checksum

    def split(self, memory: memoryview) -> list[memoryview]:
        """Return the frames that lie in `memory`."""
        frames, at = [], 0
        for length in self.lengths:
            frames.append(memory[at : at + length])
            at += _aligned(length)
        return frames


@dataclass(frozen=True, slots=True)
class Frames:
    """An encoded value: its layout, and the frames with what fills the gaps between them."""

    layout: Layout
    parts: list[memoryview | bytes]


def _aligned(length: int) -> int:
    return (length + _ALIGN - 1) // _ALIGN * _ALIGN


def encode(value: object) -> Frames:
    """Encode a value with the serializers that are registered with Dask. Most frames are views.

    Raises
    ------
    Exception
        What the value's serializer raises; TypeError if there is none.

    """
    header, raw = serialize(value, on_error="raise")
    frames = [ensure_memoryview(frame) for frame in raw]
    layout = Layout(header, tuple(frame.nbytes for frame in frames), checksum(frames))
    parts: list[memoryview | bytes] = []
    for frame in frames:
        parts.append(frame)
        gap = _aligned(frame.nbytes) - frame.nbytes
        if gap:
            parts.append(bytes(gap))
    return Frames(layout, parts)


def decode(layout: Layout, memory: memoryview) -> object:
    """Make the value. Its arrays lie in `memory`, as far as its serializer allows."""
    # Dask takes parts out of the header as it reads it, and this one is read again.
    return deserialize(copy.deepcopy(layout.header), layout.split(memory))


def checksum(frames: Sequence[memoryview]) -> int:
    """Return a number that depends on each byte."""
    value = 0
    for frame in frames:
        value = zlib.crc32(frame, value)
    return value
