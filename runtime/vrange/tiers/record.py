"""A value as bytes in the lower tier, with what says whether it is still valid.

A record is valid with the tokens that were current when its computation began. An invalidation
writes a new token. So a record that a slow or stopped process writes later is never read.
"""

from __future__ import annotations

import io
import pickle
import zlib
from dataclasses import dataclass
from typing import Any

from vrange._cache.leaves import Finder

__all__ = ["Packed", "Record", "TornError", "load", "unpack"]

_MAGIC = b"vrange-tier-1\n"
_CRC_BYTES = 4
_LENGTH_BYTES = 8
_IS_COPIED = 1 << 63  # with the length of a buffer
_HEAD_BYTES = len(_MAGIC) + _CRC_BYTES


class TornError(ValueError):
    """The bytes are not a whole record."""


@dataclass(frozen=True)
class Record:
    """What a record says of its value.

    Attributes
    ----------
    form : bytes
        The stable form of the key.
    generation, removed : bytes
        The tokens of the cache and of the key.
    tags : dict
        The token of each tag.
    expires : float or None
        When it expires, by `time.time`.

    """

    form: bytes
    generation: bytes
    removed: bytes
    tags: dict[str, bytes]
    expires: float | None


class Packed:
    """A value, pickled, with its buffers beside the pickle and not yet copied.

    The arrays of tuples, lists, dicts and pandas are loaded as views of the bytes; others as
    copies, which callers may change (leaves.py).

    Parameters
    ----------
    value : object
        The value. Raises what pickling raises.

    """

    def __init__(self, value: Any) -> None:
        self._buffers: list[memoryview] = []
        self._finder = Finder(value, (), copies=False)
        to = io.BytesIO()
        pickler = pickle.Pickler(to, 5, buffer_callback=self._take)
        pickler.dispatch_table = self._finder.reducers()
        pickler.dump(value)
        self._pickle = to.getvalue()
        self.nbytes = len(self._pickle) + sum(buffer.nbytes for buffer in self._buffers)

    def _take(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            self._buffers.append(buffer.raw())
        except BufferError:  # it is not contiguous: a part of the pickle
            return True
        return False

    def join(self, record: Record) -> bytes:
        """Return the bytes of a record with the value."""
        told = record.form, record.generation, record.removed, record.tags, record.expires
        head = pickle.dumps(told, 4)
        parts: list[bytes | memoryview] = [self._pickle, *self._buffers]
        lengths = [memoryview(part).nbytes for part in parts]
        for number, buffer in enumerate(self._buffers, 1):
            if self._finder.is_copied(buffer):
                lengths[number] |= _IS_COPIED
        told_lengths = [len(head), len(parts), *lengths]
        rest: list[bytes | memoryview] = [b"".join(map(_number, told_lengths)), head, *parts]
        crc = 0
        for part in rest:
            crc = zlib.crc32(part, crc)
        return b"".join((_MAGIC, crc.to_bytes(_CRC_BYTES, "little"), *rest))


def _number(number: int) -> bytes:
    return number.to_bytes(_LENGTH_BYTES, "little")


def unpack(data: bytes) -> tuple[Record, list[tuple[memoryview, bool]]]:
    """Return a record, and the parts of its value, each with whether it is to be copied.

    Raise TornError if the bytes are damaged.
    """
    if len(data) < _HEAD_BYTES or not data.startswith(_MAGIC):
        raise TornError("it is no record of vrange")
    view = memoryview(data)
    crc = int.from_bytes(view[len(_MAGIC) : _HEAD_BYTES], "little")
    rest = view[_HEAD_BYTES:]
    if zlib.crc32(rest) != crc or len(rest) < 2 * _LENGTH_BYTES:
        raise TornError("it is damaged or cut short")
    head_bytes, count = _numbers(rest, 2)
    lengths = _numbers(rest[2 * _LENGTH_BYTES :], count)
    at = (2 + count) * _LENGTH_BYTES
    record = Record(*pickle.loads(rest[at : at + head_bytes]))
    at += head_bytes
    parts = []
    for number in lengths:
        length = number & ~_IS_COPIED
        parts.append((rest[at : at + length], length != number))
        at += length
    return record, parts


def load(parts: list[tuple[memoryview, bool]]) -> Any:
    """Return the value. Its arrays are read-only views of the bytes, or copies."""
    (head, _), *buffers = parts
    return pickle.loads(
        head, buffers=[bytearray(part) if is_copied else part for part, is_copied in buffers]
    )


def _numbers(view: memoryview, count: int) -> list[int]:
    ends = range(_LENGTH_BYTES, (count + 1) * _LENGTH_BYTES, _LENGTH_BYTES)
    return [int.from_bytes(view[end - _LENGTH_BYTES : end], "little") for end in ends]
