"""The values that are cached under pressure: arrays that carry their key, kept compressed.

A value is eight bytes of key and one of a few common bodies of four random bits a byte, which zlib
unpacks in about a millisecond. The values lie compressed in a file that the parent has written, as
a service would have them in its store. The file's pages are charged to the parent, so that the
child's memory is that of its cache and application, and computing a value allocates nothing but the
value.
"""

from __future__ import annotations

import mmap
import tempfile
import zlib
from functools import cache
from typing import IO

import numpy as np

KEYS = 1600
VALUE_BYTES = 256 << 10
_BODIES = 8
_STAMP_BYTES = 8


def _stamp(key: int) -> bytes:
    return key.to_bytes(_STAMP_BYTES, "little")


@cache
def _written() -> IO[bytes]:
    """Write the file: its length in words of eight bytes, and the content for each key in turn."""
    bodies = []
    for number in range(_BODIES):
        drawn = np.random.default_rng(number).integers(
            0, 16, VALUE_BYTES - _STAMP_BYTES, dtype=np.uint8
        )
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        bodies.append(packer.compress(drawn.tobytes()) + packer.flush())
    # In a raw deflate stream the key is a stored block before the body's own.
    stored = b"\0" + _STAMP_BYTES.to_bytes(2, "little")
    stored += (_STAMP_BYTES ^ 0xFFFF).to_bytes(2, "little")
    pieces = [stored + _stamp(key) + bodies[key % _BODIES] for key in range(KEYS)]
    ends = np.cumsum([len(piece) for piece in pieces])
    file = tempfile.NamedTemporaryFile(prefix="pressure-source-")  # noqa: SIM115 (it lives as long as the process)
    file.write((ends + ends.nbytes).astype("<u8").tobytes())
    file.writelines(pieces)
    file.flush()
    return file


def path() -> str:
    """Return the file of the compressed values; it is written at the first call."""
    return _written().name


class Source:
    """In the child: computes values from the file at `path`."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        ends = mapped[: KEYS * 8].cast("Q").tolist()
        self._packed = [mapped[a:b] for a, b in zip([KEYS * 8, *ends], ends, strict=False)]
        self._stamps = [_stamp(key) for key in range(KEYS)]
        bodies = [int(self.compute(key)[::512].sum()) - key for key in range(_BODIES)]
        self._sums = [bodies[key % _BODIES] + (key & 0xFF) for key in range(KEYS)]
        self.computed = 0

    computed = 0

    def compute(self, key: int) -> np.ndarray:
        self.computed += 1
        return np.frombuffer(
            zlib.decompress(self._packed[key], -zlib.MAX_WBITS, VALUE_BYTES), np.uint8
        )

    def is_good(self, key: int, value: np.ndarray) -> bool:
        """Read 512 places, eight a page: a lost page that was not reported would show."""
        return value[::512].sum() == self._sums[key] and value[:8].tobytes() == self._stamps[key]
