"""Values as bytes that any process can decode: a header, the key, a pickle, and its buffers.

Buffers lie beside the pickle, so an array in tuples, lists and dicts is decoded without a copy,
over the bytes, and is read-only. The arrays of other objects are copied, as in a cache of one
process (leaves.py). A header that does not fit its bytes is not decoded: another process may have
written it.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from typing import Any

from vrange._cache.codec import Codec
from vrange._cache.collector import Collector, room_for
from vrange._cache.identity import is_own_array
from vrange._cache.leaves import Finder
from vrange._cache.whole_array import know_arrays
from vrange._core import hit, lib

__all__ = ["Blob", "BlobCodec", "encode", "is_plain", "key_form", "value_in"]

# The record's stamp, the key's digest, the bytes of the key and of the body, the number of buffers,
# and how the body is coded (native/python/cache/blob.h).
_HEAD = struct.Struct(hit.BLOB_HEAD)
_PAIR = struct.Struct("=QQ")  # where a buffer begins, and its bytes
_IS_COPIED = 1 << 63  # with the bytes of a buffer: each caller gets a copy, which it may change
_HEAD_BYTES, _PAIR_BYTES = _HEAD.size, _PAIR.size
_PICKLE, _BYTES, _TEXT, _PARTS = hit.BLOB_PICKLE, hit.BLOB_BYTES, hit.BLOB_TEXT, hit.BLOB_PARTS
_ALIGNED = 64
_PLAIN = (str, bytes, int, float, complex, bool, type(None))
_ITEMS_MOST = 100
_NOTE_FORM_MOST = 1024


class Blob:
    """A value that is coded: the parts of its bytes. `how` is what its record says of them."""

    __slots__ = ("decode", "how", "is_private", "nbytes", "parts")

    def __init__(
        self, parts: list[Any], nbytes: int, is_private: bool, copies: bool, how: int = _PARTS
    ) -> None:
        self.parts, self.nbytes, self.is_private, self.how = parts, nbytes, is_private, how
        self.decode = _decode_copy if copies else _decode_view


class BlobCodec(Codec):
    """Stores values that are coded already. It codes others as any cache does."""

    def encode(self, value: Any, bytes_most: int) -> hit.Form | None:
        """Return the form in which `value` is stored."""
        if type(value) is not Blob:
            return super().encode(value, bytes_most)
        collector = Collector(hit.Room(), bytes_most)
        collector.owe(value.nbytes)
        collector.parts.extend(value.parts)
        return collector.form(
            value.decode, refers=True, nbytes=value.nbytes, is_private=value.is_private
        )


def is_plain(value: Any) -> bool:
    """Return whether all callers may get one object, or array objects of their own for it."""
    if is_own_array(value):
        know_arrays()
        return True
    if type(value) is tuple and len(value) <= hit.HOT_ARRAYS_MOST:
        if any(map(is_own_array, value)):
            know_arrays()
        return all(is_own_array(item) or _is_immutable(item) for item in value)
    return _is_immutable(value)


def _is_immutable(value: Any) -> bool:
    if type(value) in _PLAIN:
        return True
    if type(value) in (tuple, frozenset) and len(value) <= _ITEMS_MOST:
        return all(map(_is_immutable, value))
    return False


def encode(
    value: Any, stamp: int, digest: bytes, form: bytes, bytes_most: int, *, copies: bool
) -> Blob:
    """Return the value as parts of bytes.

    Raises MemoryError if there is no room for them, and what the pickler raises.
    """
    collector = Collector(hit.Room(), bytes_most)
    finder = Finder(value, (), copies)
    buffers: list[memoryview] = []
    kind = type(value)
    how = _BYTES if kind is bytes else _TEXT if kind is str else _PICKLE
    if how == _BYTES:
        collector.owe(len(value))
        collector.parts.append(value)
    elif how == _TEXT:
        collector.write(value.encode("utf-8", "surrogatepass"))
    else:
        _pickle(value, collector, finder, buffers)
    body_bytes = sum(map(len, collector.parts))
    at = _HEAD.size + _PAIR.size * len(buffers) + len(form) + body_bytes
    table = bytearray()
    beside: list[Any] = []
    for buffer in buffers:
        pad = -at % _ALIGNED
        beside += (bytes(pad), buffer) if pad else (buffer,)
        flag = _IS_COPIED if finder.is_copied(buffer) else 0
        table += _PAIR.pack(at + pad, buffer.nbytes | flag)
        at += pad + buffer.nbytes
    head = _HEAD.pack(stamp, digest, len(form), body_bytes, len(buffers), how)
    parts = [head + table + form, *collector.parts, *beside]
    is_private = copies or not is_plain(value)
    return Blob(parts, at, is_private, copies, _PARTS if buffers else how)


def _pickle(value: Any, collector: Collector, finder: Finder, buffers: list[memoryview]) -> None:
    def add(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        buffers.append(raw)
        collector.owe(raw.nbytes)
        return False

    pickler = pickle.Pickler(collector, 5, buffer_callback=add)
    pickler.dispatch_table = finder.reducers() | _strided(finder)
    pickler.dump(value)


def _strided(finder: Finder) -> dict[type, Callable[[Any], Any]]:
    """Return a reducer that gives an array with gaps a buffer, if callers share the array."""
    if finder.array is None or finder.copies:
        return {}

    def reduce_array(array: Any) -> Any:
        is_as_it_is = array.flags.forc or array.dtype.hasobject
        if not is_as_it_is and finder.is_shared(array):
            array = array.copy()
            array.flags.writeable = False
        return array.__reduce_ex__(5)

    return {finder.array: reduce_array}


class TornError(ValueError):
    """The bytes are not a whole value, or not the one that was asked for."""


def note_of(coded: Blob, form: bytes) -> bytes:
    """Return what the record of a large value says of it: how it is coded, and the key's form."""
    return bytes((coded.how,)) + (form if len(form) <= _NOTE_FORM_MOST else b"")


def key_form(data: bytes, *, in_note: bool) -> bytes:
    """Return the form of the key in a record: in a value's bytes, or in a note."""
    if in_note:
        return data[lib.VRANGE_NOTE_AT + 1 :]
    _, _, form_bytes, _, count, _ = _HEAD.unpack_from(data)
    at = _HEAD.size + _PAIR.size * count
    return data[at : at + form_bytes]


def value_in(
    data: Any, stamp: int, digest: bytes, form: bytes, *, copies: bool, is_lent: bool
) -> Any:
    """Return the value in the bytes of the record with this stamp, of this key.

    Raises TornError if they are another record's, MemoryError if there is no room for copies, and
    what the unpickler raises. Arrays are read-only views of the bytes, or copies. If the bytes are
    lent, no part of the value is a view of them.
    """
    its_stamp, its_digest, form_bytes, body_bytes, count, how = _unpacked(data)
    form_at = _HEAD_BYTES + _PAIR_BYTES * count
    body_at = form_at + form_bytes
    if its_stamp != stamp or its_digest != digest or data[form_at:body_at] != form:
        raise TornError("these are the bytes of another value")
    if is_lent and count and not copies:
        data = bytes(data)
    return _decoded(data, body_at, body_bytes, count, how, copies)


def decode(data: Any, *, copies: bool) -> Any:
    """Return the value in bytes that this process itself has stored."""
    if type(data) is not bytes:
        data = memoryview(data).cast("B")
    _, _, form_bytes, body_bytes, count, how = _unpacked(data)
    body_at = _HEAD_BYTES + _PAIR_BYTES * count + form_bytes
    return _decoded(data, body_at, body_bytes, count, how, copies)


def _unpacked(data: Any) -> tuple[Any, ...]:
    if len(data) < _HEAD_BYTES:
        raise TornError("the header is cut short")
    return _HEAD.unpack_from(data)


def _decoded(data: Any, body_at: int, body_bytes: int, count: int, how: int, copies: bool) -> Any:
    end = body_at + body_bytes
    if end > len(data):
        raise TornError("the value is cut short")
    if how == _BYTES:
        return bytes(data[body_at:end])  # no copy of what is bytes already
    if how == _TEXT:
        return str(data[body_at:end], "utf-8", "surrogatepass")
    if not count:
        return pickle.loads(data[body_at:end])
    view = memoryview(data)
    places = list(_places(view, count, copies))
    room = room_for(sum(part.nbytes for part, is_copied in places if is_copied))
    buffers = [bytearray(part) if is_copied else part for part, is_copied in places]
    room.release()
    return pickle.loads(view[body_at:end], buffers=buffers)


def _places(view: memoryview, count: int, copies: bool) -> Iterator[tuple[memoryview, bool]]:
    for number in range(count):
        at, nbytes = _PAIR.unpack_from(view, _HEAD_BYTES + _PAIR_BYTES * number)
        is_copied = copies or bool(nbytes & _IS_COPIED)
        nbytes &= ~_IS_COPIED
        if at + nbytes > len(view):
            raise TornError("a buffer does not fit its bytes")
        yield view[at : at + nbytes].toreadonly(), is_copied


def _decode_view(stored: Any) -> Any:
    return decode(stored, copies=False)


def _decode_copy(stored: Any) -> Any:
    return decode(stored, copies=True)
