"""A value as bytes in the lower tier, with what says whether it is still valid.

A record is valid with the tokens that were current when its computation began. An invalidation
writes a new token. So a record that a slow or stopped process writes later is never read.
"""

from __future__ import annotations

import pickle
import zlib
from dataclasses import dataclass
from typing import Any

__all__ = ["Record", "TornError", "pack", "unpack"]

_MAGIC = b"vrange-tier-1\n"
_CRC_BYTES = 4
_LENGTH_BYTES = 8
_HEAD_BYTES = len(_MAGIC) + _CRC_BYTES + _LENGTH_BYTES


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


def pack(record: Record, value: Any) -> bytes:
    """Return the bytes of a record. Raise what pickling raises."""
    told = record.form, record.generation, record.removed, record.tags, record.expires
    head = pickle.dumps(told, 4)
    body = pickle.dumps(value, 5)
    crc = zlib.crc32(body, zlib.crc32(head))
    return b"".join(
        (
            _MAGIC,
            crc.to_bytes(_CRC_BYTES, "little"),
            len(head).to_bytes(_LENGTH_BYTES, "little"),
            head,
            body,
        )
    )


def unpack(data: bytes) -> tuple[Record, memoryview]:
    """Return a record, and the pickle of its value. Raise TornError if the bytes are damaged."""
    if len(data) < _HEAD_BYTES or not data.startswith(_MAGIC):
        raise TornError("it is no record of vrange")
    view = memoryview(data)
    crc = int.from_bytes(view[len(_MAGIC) : len(_MAGIC) + _CRC_BYTES], "little")
    head_bytes = int.from_bytes(view[len(_MAGIC) + _CRC_BYTES : _HEAD_BYTES], "little")
    rest = view[_HEAD_BYTES:]
    if head_bytes > len(rest) or zlib.crc32(rest) != crc:
        raise TornError("it is damaged or cut short")
    return Record(*pickle.loads(rest[:head_bytes])), rest[head_bytes:]
