"""Pickles values into a range."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any

from vrange._cache.collector import Collector, room_for
from vrange._cache.decode_pickle import (
    Beside,
    Pickled,
    SharedWhileHeld,
    Sharing,
    sharing_of,
)
from vrange._cache.heavy import SharedGraph
from vrange._cache.identity import is_own_array
from vrange._cache.leaves import LEAF_BYTES, Finder
from vrange._cache.whole_array import know_arrays
from vrange._core import hit


class _RoomyPickled(Pickled):
    """Decodes a value if there is room for it."""

    __slots__ = ()

    def __call__(self, stored: Any) -> Any:
        room = room_for(self.copies)
        value = super().__call__(stored)
        room.release()
        return value


class _LeafPickler(pickle.Pickler):
    """Calls a native finder with each object, to learn whether it is a leaf."""

    def __init__(
        self, file: Collector, finder: hit.Leaves, add: Callable[[pickle.PickleBuffer], Any]
    ) -> None:
        # First, because up to CPython 3.12 the base class reads persistent_id in its constructor.
        self._finder = finder
        super().__init__(file, 5, buffer_callback=add)

    @property
    def persistent_id(self) -> hit.Leaves:
        """The finder, called with each object. A property, as CPython 3.13 refuses to set it."""
        return self._finder


def encode_pickle(
    value: Any, collector: Collector, homes: Iterable[str], *, copies: bool = False
) -> hit.Form:
    """Return the form of a value that is stored as a pickle, with its large parts beside it."""
    finder = Finder(value, homes, copies)
    buffers: list[memoryview] = []
    leaves: list[Any] = []
    try:
        _dump(value, collector, finder, leaves, buffers)
    except BufferError:  # a buffer that is not contiguous: it can't be taken out of band
        collector, leaves, buffers = collector.anew(), [], []
        _dump(value, collector, finder, leaves, None)
    head_bytes = sum(map(len, collector.parts))
    weight = head_bytes + collector.objects * hit.OBJECT_BYTES
    decode: Callable[[Any], Any] = pickle.loads
    has_views, nbytes, copied = False, head_bytes, weight
    if buffers or leaves or weight >= hit.ROOM_BYTES:
        beside = Beside(collector, finder, leaves, buffers)
        decode = _RoomyPickled(head_bytes, beside, weight)
        has_views, nbytes, copied = beside.has_views, beside.nbytes, decode.copies
    sharing = sharing_of(value, head_bytes, copies, arrays_most=hit.HOT_ARRAYS_MOST)
    if sharing is Sharing.ALWAYS and type(value) is tuple and any(map(is_own_array, value)):
        know_arrays()
    if sharing is Sharing.WHILE_HELD:
        return collector.form(SharedWhileHeld(decode, value), refers=has_views, nbytes=nbytes)
    if sharing is Sharing.WHILE_HOT:
        decode = SharedGraph(decode)
    # The first answer is decoded as later ones are, unless a second object would take much memory.
    is_small = copies or copied < hit.ROOM_BYTES
    return collector.form(
        decode,
        refers=has_views,
        is_view=has_views or (sharing is not Sharing.ALWAYS and is_small),
        is_private=sharing is Sharing.NEVER,
        nbytes=nbytes,
    )


def _dump(
    value: Any,
    collector: Collector,
    finder: Finder,
    leaves: list[Any],
    buffers: list[memoryview] | None,
) -> None:
    def add(buffer: pickle.PickleBuffer) -> bool:
        if buffers is None:
            return True  # in band
        raw = buffer.raw()
        buffers.append(raw)
        collector.owe(len(raw))
        return False

    native = hit.Leaves(
        leaves,
        collector.watch,
        collector.tell,
        LEAF_BYTES,
        finder.kinds,
        finder.meet,
        finder.is_leaf,
    )
    pickler = _LeafPickler(collector, native, add)
    pickler.dispatch_table = finder.reducers()
    pickler.dump(value)
