"""Values that the native core does not code itself, to bytes in a range and back.

str, bytes, numbers and tuples of these are coded natively, and arrays of a type and shape that was
seen before, up to a size (native/python/cache/codec.c). Other ndarrays lie in a range as they are
and come back without a copy, read-only, as views that keep the range pinned (array_layout.py).
Everything else is pickled (pickled.py). What can't be pickled is not kept, with a warning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from vrange._cache.collector import Collector, room_for
from vrange._cache.not_kept import Source
from vrange._cache.pickling import encode_pickle
from vrange._cache.weigh import OBJECTS_MOST, WEIGHING_BYTES, weigh
from vrange._cache.whole_array import encode_array
from vrange._core import hit

_COSTLY_SECONDS = 0.01  # of a hit


class Codec:
    """Codes the values of one cache.

    Parameters
    ----------
    source : Source
        Where the values come from.
    copies : bool
        Whether each caller gets a writable value of its own.

    """

    def __init__(self, source: Source, *, copies: bool = False) -> None:
        self._source, self._copies = source, copies

    def encode(self, value: Any, bytes_most: int) -> hit.Form | None:
        """Return how `value` is stored; None for what can't be kept, after a warning.

        The Form holds the room that storing the value takes. Raises MemoryError where there is no
        room or the value takes more than `bytes_most`, RecursionError where it is nested too
        deeply to be pickled.
        """
        return self._source.code(value, lambda: self._encode(value, bytes_most))

    def _encode(self, value: Any, bytes_most: int) -> hit.Form:
        kind, collector = type(value), Collector(hit.Room(), bytes_most)
        if kind is bytes:
            collector.owe(len(value))
            collector.parts.append(value)
            return collector.form(_Copying(bytes, len(value)))
        if kind is str:
            collector.owe(len(value))
            collector.add_text(value)
            return collector.form(_Copying(_decode_str, sys.getsizeof(value)))
        numpy = sys.modules.get("numpy")  # not imported: no ndarrays
        if numpy is not None and kind is numpy.ndarray and not value.dtype.hasobject:
            return encode_array(value, collector, copies=self._copies)
        return encode_pickle(value, collector, self._source.homes, copies=self._copies)

    def weigh(self, value: Any, decode: Any, most: int) -> int:
        """Return the bytes of a value that `decode` made, as an object.

        0: not known, or certainly too much for a hot front that may have `most` bytes. Warn if
        each hit is therefore going to take long.
        """
        weight = _weight_of(value, decode, most)
        heavier = weight or getattr(decode, "copies", 0)
        if heavier > most and getattr(decode, "seconds", 0) >= _COSTLY_SECONDS:
            self._source.hit_is_costly(type(value), decode.seconds, heavier, most)
        return weight


class _Copying:
    """Makes a value that is a copy of what is stored, if there is room for it."""

    __slots__ = ("_decode", "copies")

    def __init__(self, decode: Callable[[Any], Any], copies: int) -> None:
        self._decode = decode
        self.copies = copies  # the bytes that it allocates, roughly

    def __call__(self, stored: Any) -> Any:
        room = room_for(self.copies)
        value = self._decode(stored)
        room.release()
        return value


def _decode_str(lease: hit.Lease) -> str:
    return str(lease, "utf-8", "surrogatepass")


def _weight_of(value: Any, decode: Any, most: int) -> int:
    copies = getattr(decode, "copies", 0)
    if copies > most:
        return 0  # it is heavier than it was as bytes
    if copies >= hit.ROOM_BYTES:
        room = hit.Room()
        try:  # to weigh takes memory itself
            room.hold(min(copies // 4, OBJECTS_MOST) * WEIGHING_BYTES)
        except MemoryError:
            return 0
    weight = weigh(value)
    if copies:
        decode.copies = max(copies, weight)
    return weight
