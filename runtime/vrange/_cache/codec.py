"""Values that the native core does not code itself, to bytes in a range and back.

str, bytes, numbers and tuples of these are coded natively, and arrays of a type and shape that was
seen before, up to a size (native/python/cache/codec.c). Other ndarrays lie in a range as they are
and come back without a copy, read-only, as views that keep the range pinned. Everything else goes
through pickle protocol 5, with its large buffers out of band, so that a DataFrame's columns come
back without a copy too.

Encoding must not be what memory runs short of: a value is written into its range from where it is,
if need be in pieces. The pickle of many small objects is collected in frames of 64 KiB, which go as
they are written; large strings and bytes stay out of it, as buffers do. Room for what is going to
be written is asked for meanwhile, and the first refusal ends it (MemoryError).
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from vrange._cache.weigh import OBJECTS_MOST, WEIGHING_BYTES, weigh
from vrange._core import hit, lib
from vrange._numpy_table import numpy_core
from vrange.errors import VrangeError

if TYPE_CHECKING:
    import numpy as np

ALIGNMENT = 64  # of buffers within a range: a cache line, and what NumPy's kernels like
STEP_BYTES = 1 << 20  # so much is copied before it is looked again whether there is room
SLACK_BYTES = 4 << 20  # what is collected next is there before it is asked for
OTHERS_BYTES = 32 << 20  # what other threads may ask for while a step is copied
LEAF_BYTES = 1 << 16  # strings and bytes from here on stay out of a pickle; a pickler's frame
TEXT_STEP = 1 << 20  # characters that are encoded at once
MEMO_BYTES = 48  # an object, in a pickler's table that has just grown
OBJECT_BYTES = 64  # an object, roughly, without what is large of it

_EXPORTED = "biufc"  # dtypes whose arrays export their buffer; datetimes, for one, do not


class Strided:
    """An array that does not lie in memory as it is to be stored."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def write(self, lease: hit.Lease, before_step: Callable[[int], None]) -> None:
        """Write it into a lease, row by row if it is large; ask with the bytes still left."""
        numpy, array = sys.modules["numpy"], self._array
        to = numpy.ndarray(array.shape, array.dtype, memoryview(lease))
        rows = len(array)
        step = max(1, rows * STEP_BYTES // array.nbytes)
        for row in range(0, rows, step):
            before_step(array.nbytes * (rows - row) // rows)
            to[row : row + step] = array[row : row + step]


def encode(value: Any, bytes_most: int) -> hit.Form:
    """How `value` is stored. The Form holds the room that storing it takes.

    Raises TypeError where it can't be pickled, MemoryError where there is no room or it takes more
    than `bytes_most`.
    """
    kind, collector = type(value), _Collector(hit.Room(), bytes_most)
    if kind is bytes:
        collector.owe(len(value))
        collector.parts.append(value)
        return collector.form(_Copying(bytes, len(value)))
    if kind is str:
        collector.owe(len(value))
        collector.add_leaf(value)
        return collector.form(_Copying(_decode_str, sys.getsizeof(value)))
    numpy = sys.modules.get("numpy")  # not imported: no ndarrays
    if numpy is not None and kind is numpy.ndarray and not value.dtype.hasobject:
        return _encode_array(value, numpy, collector)
    return _encode_pickle(value, collector)


class _Collector:
    """The parts of a value, and room for as much of them as is not memory of ours already."""

    def __init__(self, room: hit.Room, bytes_most: int) -> None:
        self.parts: list[Any] = []
        self.nbytes = 0
        self.temporary = 0
        self._room = room
        self._most = bytes_most
        self._asked_at = 0
        self.objects = 0

    def anew(self) -> _Collector:
        """Return an empty one, with the same room."""
        return _Collector(self._room, self._most)

    def form(
        self,
        decode: Callable[..., Any],
        *,
        refers: bool = False,
        is_view: bool = False,
        nbytes: int | None = None,
    ) -> hit.Form:
        """Return what was collected, with `decode`; `nbytes` includes padding."""
        if nbytes is not None:
            self.nbytes = nbytes
        is_large = self.nbytes >= hit.ROOM_BYTES
        in_pieces = self.temporary > hit.ROOM_BYTES or (
            is_large and lib.vrange_rung() != lib.VRANGE_RUNG_REFAULT
        )
        if in_pieces:
            return hit.Form(
                (), decode, refers, is_view, nbytes=self.nbytes, write=self._write_pieces
            )
        return hit.Form(tuple(self.parts), decode, refers, is_view, room=self._room)

    def before_step(self, left: int) -> None:
        """Hold room for the bytes still to be written."""
        self._room.hold(left + OTHERS_BYTES)

    def _write_pieces(self, lease: hit.Lease) -> None:
        """Write the parts one after the other; drop temporary ones as they are written."""
        owed = self.nbytes - self.temporary
        parts, at, asked_at = self.parts, 0, 0
        parts.reverse()
        while parts:
            part = parts.pop()
            done, nbytes = 0, len(part) if type(part) is str else memoryview(part).nbytes
            while done < nbytes:
                if at + done >= asked_at:
                    # What was written is there, and what goes for it may not be gone yet.
                    self.before_step(max(0, owed - at - done))
                    asked_at = at + done + STEP_BYTES
                done += hit.write(lease, at + done, part, done, STEP_BYTES)
            at += nbytes
        if at != self.nbytes:  # what is not written would be read as zeros
            raise VrangeError(f"{at} bytes were written of {self.nbytes}")

    def owe(self, nbytes: int) -> None:
        """So many bytes of the caller's are to be copied."""
        self.nbytes += nbytes
        self._ask()

    def write(self, data: Any) -> None:
        """Add what a pickler writes: a frame of its own, or a bytearray of the caller's."""
        self.parts.append(data)
        if type(data) is bytes:
            self.temporary += len(data)
        self.owe(len(data))

    def add_leaf(self, leaf: Any) -> int:
        """Add a string or bytes of which the length is owed; return how many bytes they are."""
        if type(leaf) is bytes or leaf.isascii():
            self.parts.append(leaf)
            return len(leaf)
        nbytes = 0
        for at in range(0, len(leaf), TEXT_STEP):
            text = leaf[at : at + TEXT_STEP]
            piece = text.encode("utf-8", "surrogatepass")
            self.parts.append(piece)
            self.temporary += len(piece)
            self.owe(len(piece) - len(text))
            nbytes += len(piece)
        return nbytes

    def watch(self, value: Any) -> None:
        """Ask for room for a leaf, or for a copy of what has a buffer, before it is pickled."""
        if type(value) is str or type(value) is bytes:
            self.owe(len(value))
            return
        try:
            with memoryview(value) as view:
                nbytes = view.nbytes
        except (BufferError, TypeError, ValueError):
            return  # datetimes, for one: as large as their arrays say, and copied by none
        if nbytes >= hit.ROOM_BYTES:
            self._room.hold(self.nbytes - self.temporary + 2 * nbytes)
            self._asked_at = 0

    def tell(self, objects: int) -> None:
        """So many objects were pickled: the pickler's table of them is about to grow."""
        self.objects = objects
        self._room.hold(self.nbytes - self.temporary + SLACK_BYTES + objects * MEMO_BYTES)
        self._asked_at = self.nbytes

    def _ask(self) -> None:
        if self.nbytes > self._most:
            raise MemoryError("more than may be stored")
        if self.nbytes >= self._asked_at + hit.ROOM_BYTES:
            self._asked_at = self.nbytes
            memo = self.objects * MEMO_BYTES
            self._room.hold(self.nbytes - self.temporary + SLACK_BYTES + memo)


class _Copying:
    """Makes a value that is a copy of what is stored, if there is room for it."""

    __slots__ = ("_decode", "copies")

    def __init__(self, decode: Callable[[Any], Any], copies: int) -> None:
        self._decode = decode
        self.copies = copies  # the bytes that it allocates, roughly

    def __call__(self, stored: Any) -> Any:
        room = hit.Room()
        room.hold(self.copies)
        return self._decode(stored)


def _decode_str(lease: hit.Lease) -> str:
    return str(lease, "utf-8", "surrogatepass")


def _encode_array(array: np.ndarray[Any, Any], numpy: Any, collector: _Collector) -> hit.Form:
    collector.owe(array.nbytes)
    flags, dtype, order = array.flags, array.dtype, "C"
    flat: Any = array
    if flags.f_contiguous and not flags.c_contiguous:
        flat, order = array.T, "F"
    is_strided = not flat.flags.c_contiguous
    decode: Callable[..., Any]
    if dtype.isbuiltin == 1:
        decode = hit.Viewer(_numpy_table(), array.shape, dtype, order == "F")
    else:  # of its own: others may be equal, and yet tell of more, as of metadata
        decode = partial(numpy.ndarray, array.shape, dtype, order=order)
    if is_strided:
        if array.nbytes < hit.ROOM_BYTES:
            flat = numpy.ascontiguousarray(array)
            if dtype.kind not in _EXPORTED:
                flat = flat.reshape(-1).view(numpy.uint8)
            return hit.Form((flat,), decode, True, True)
        write = Strided(array).write
        return hit.Form(
            (),
            decode,
            True,
            True,
            nbytes=array.nbytes,
            write=lambda lease: write(lease, collector.before_step),
        )
    if dtype.kind not in _EXPORTED or array.nbytes >= hit.ROOM_BYTES:
        flat = flat.reshape(-1).view(numpy.uint8)
    collector.parts.append(flat)
    return collector.form(decode, refers=True, is_view=True)


@cache
def _numpy_table() -> object:
    return numpy_core()._ARRAY_API


class _LeafPickler(pickle.Pickler):
    """Asks a native finder for every object whether it is a leaf."""

    def __init__(
        self,
        file: _Collector,
        finder: hit.Leaves,
        add: Callable[[pickle.PickleBuffer], None] | None,
    ) -> None:
        self._finder = finder  # first: up to 3.12 the base asks for it once, when it is made
        super().__init__(file, 5, buffer_callback=add)

    @property
    def persistent_id(self) -> hit.Leaves:
        """Called with each object. CPython 3.13 refuses to have it set."""
        return self._finder


def _dump(value: Any, collector: _Collector, buffers: list[Any] | None, leaves: list[Any]) -> None:
    def add(buffer: pickle.PickleBuffer) -> None:
        raw = buffer.raw()
        assert buffers is not None
        buffers.append(raw)
        collector.owe(len(raw))

    finder = hit.Leaves(leaves, collector.watch, collector.tell, LEAF_BYTES)
    _LeafPickler(collector, finder, None if buffers is None else add).dump(value)


def _encode_pickle(value: Any, collector: _Collector) -> hit.Form:
    raw: list[Any] = []
    leaves: list[Any] = []
    try:
        _dump(value, collector, raw, leaves)
        if raw and not leaves and collector.nbytes <= hit.SMALL_BYTES_MOST:
            collector, raw = collector.anew(), []
            _dump(value, collector, None, leaves)
    except BufferError:  # a buffer that is not contiguous: it can't be taken out of band
        collector, raw, leaves = collector.anew(), [], []
        _dump(value, collector, None, leaves)
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
        raise TypeError(
            f"a value of type {type(value).__qualname__} can't be cached, as it can't be pickled: "
            f"{error}"
        ) from error
    parts = collector.parts
    head_bytes = at = sum(map(len, parts))
    if not raw and not leaves and head_bytes + collector.objects * OBJECT_BYTES < hit.ROOM_BYTES:
        return collector.form(pickle.loads)

    places: list[tuple[int, int]] = []
    for buffer in raw:
        padding = -at % ALIGNMENT
        if padding:
            parts.append(bytes(padding))
        places.append((at + padding, at + padding + len(buffer)))
        if len(buffer):
            parts.append(buffer)
        at = places[-1][1]
    leaf_places: list[tuple[bool, int, int]] = []
    copies = head_bytes + collector.objects * OBJECT_BYTES
    for leaf in leaves:
        nbytes = collector.add_leaf(leaf)
        leaf_places.append((type(leaf) is str, at, at + nbytes))
        copies += sys.getsizeof(leaf)
        at += nbytes

    def decode(lease: hit.Lease) -> Any:
        view = memoryview(lease)
        buffers = [view[a:b] for a, b in places]
        if not leaf_places:
            return pickle.loads(view[:head_bytes], buffers=buffers)
        return _LeafUnpickler(view, head_bytes, buffers, leaf_places).load()

    return collector.form(_Copying(decode, copies), refers=bool(places), nbytes=at)


def weigh_decoded(value: Any, decode: Any, most: int) -> int:
    """Return the bytes of a value that `decode` made, as an object.

    0: not known, or certainly too much for a hot front that may have `most` bytes.
    """
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


class _Reader:
    """A view as the file that an unpickler reads."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def read(self, nbytes: int) -> memoryview:
        at = self._at
        self._at += nbytes
        return self._view[at : at + nbytes]

    def readline(self) -> bytes:
        raise pickle.UnpicklingError("protocol 5 has no lines")


class _LeafUnpickler(pickle.Unpickler):
    """Puts large strings and bytes back, each once."""

    def __init__(
        self,
        view: memoryview,
        head_bytes: int,
        buffers: list[memoryview],
        places: list[tuple[bool, int, int]],
    ) -> None:
        super().__init__(_Reader(view[:head_bytes]), buffers=buffers)  # type: ignore[arg-type]
        self._leaf_view = view
        self._leaf_places = places
        self._leaves: dict[int, Any] = {}

    def persistent_load(self, number: Any) -> Any:
        """Return the leaf of this number."""
        if number not in self._leaves:
            is_text, start, end = self._leaf_places[number]
            part = self._leaf_view[start:end]
            leaf = str(part, "utf-8", "surrogatepass") if is_text else bytes(part)
            self._leaves[number] = leaf
        return self._leaves[number]
