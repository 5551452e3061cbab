"""Codes values that the native core does not code itself to bytes in a range, and back.

The core codes str, bytes, numbers, tuples of these, and arrays of a type and shape that it knows
already, up to a size (native/python/cache/codec.c). Other ndarrays are stored in a range as they
lie in memory, and a hit returns read-only views that pin the range (array_layout.py). All other
values are pickled (decode_pickle.py). A value that can't be pickled is not kept, with a warning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from vrange._cache.collector import Collector, room_for
from vrange._cache.encode_pickle import encode_pickle
from vrange._cache.not_kept import Source
from vrange._cache.weigh import OBJECTS_MOST, WEIGHING_BYTES, weigh
from vrange._cache.whole_array import encode_array
from vrange._core import hit

_COSTLY_SECONDS = 0.01  # a hit that takes longer is worth a warning


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
        """Return the form in which `value` is stored; None, after a warning, if it can't be kept.

        The Form holds the reservation for storing the value. Raises MemoryError if there is no room
        or the value takes more than `bytes_most`, and RecursionError if it is nested too deeply to
        be pickled.
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
        numpy = sys.modules.get("numpy")  # if it is not imported, there are no ndarrays
        if numpy is not None and kind is numpy.ndarray and not value.dtype.hasobject:
            return encode_array(value, collector, copies=self._copies)
        return encode_pickle(value, collector, self._source.homes, copies=self._copies)

    def weigh(self, value: Any, decode: Any, most: int) -> int:
        """Return the bytes of a decoded value, as an object.

        0: unknown, or certainly too much for a hot front of `most` bytes. Warns if each hit will
        therefore take long.
        """
        weight = _weight_of(value, decode, most)
        heavier = weight or getattr(decode, "copies", 0)
        if heavier > most and getattr(decode, "seconds", 0) >= _COSTLY_SECONDS:
            self._source.hit_is_costly(type(value), decode.seconds, heavier, most)
        return weight


class _Copying:
    """Decodes a value as a copy of the stored bytes, if there is room for it."""

    __slots__ = ("_decode", "copies")

    def __init__(self, decode: Callable[[Any], Any], copies: int) -> None:
        self._decode = decode
        self.copies = copies  # the bytes that decoding allocates, roughly

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
        return 0  # an object is heavier than its bytes
    if copies >= hit.ROOM_BYTES:
        room = hit.Room()
        try:  # weighing takes memory itself
            room.hold(min(copies // 4, OBJECTS_MOST) * WEIGHING_BYTES)
        except MemoryError:
            return 0
    weight = weigh(value)
    if copies:
        decode.copies = max(copies, weight)
    return weight
