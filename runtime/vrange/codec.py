"""Values to bytes in a range, and back.

ndarrays lie in a range as they are and come back without a copy, read-only, as views that keep the
range pinned. bytes and str come back as themselves, which is a copy. Everything else goes through
pickle protocol 5, with its large buffers out of band, so that a DataFrame's columns come back
without a copy too.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from vrange._core import hit
from vrange.numpy_core import numpy_core

if TYPE_CHECKING:
    import numpy as np

PACKED_BYTES_MOST = 2048  # half of the smallest page: what is larger has a range of its own
PARTS_MOST = 4096  # as in native/hit.c
ALIGNMENT = 64  # of buffers within a range: a cache line, and what NumPy's kernels like

BYTES, STR, PICKLE, ARRAY = range(4)
_EXPORTED = "biufc"  # dtypes whose arrays export their buffer; datetimes, for one, do not

Decoder = Callable[[hit.Lease], Any]


@dataclass(slots=True)  # frozen costs a microsecond at each store
class Small:
    """A value to be packed with others: its kind and its bytes."""

    kind: int
    data: bytes


@dataclass(slots=True)  # frozen costs a microsecond at each store
class Large:
    """A value with a range of its own: what to store there, and how to read it back."""

    parts: tuple[Any, ...]
    nbytes: int
    decode: Decoder
    views: bool  # whether what decode returns refers to the range's memory
    is_array: bool = False


def encode(value: Any) -> Small | Large:
    """How `value` is stored. Raises TypeError where it can't be pickled."""
    if type(value) is bytes:
        if len(value) <= PACKED_BYTES_MOST:
            return Small(BYTES, value)
        return Large((value,), len(value), _decode_bytes, views=False)
    if type(value) is str:
        data = value.encode("utf-8", "surrogatepass")
        if len(data) <= PACKED_BYTES_MOST:
            return Small(STR, data)
        return Large((data,), len(data), _decode_str, views=False)
    numpy = sys.modules.get("numpy")  # not imported: no ndarrays
    if numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject:
        return _encode_array(value, numpy)
    return _encode_pickle(value)


def decode_small(kind: int, data: bytes) -> Any:
    """The value that `encode` made a Small of."""
    if kind == BYTES:
        return data
    if kind == STR:
        return data.decode("utf-8", "surrogatepass")
    value = pickle.loads(data)
    if kind == ARRAY:
        value.flags.writeable = False
    return value


def _decode_bytes(lease: hit.Lease) -> bytes:
    return bytes(lease)


def _decode_str(lease: hit.Lease) -> str:
    return str(lease, "utf-8", "surrogatepass")


def _encode_array(array: np.ndarray[Any, Any], numpy: Any) -> Small | Large:
    if array.nbytes <= PACKED_BYTES_MOST:
        return Small(ARRAY, pickle.dumps(array, protocol=5))
    flags, dtype, order = array.flags, array.dtype, "C"
    if flags.c_contiguous:
        flat = array
    elif flags.f_contiguous:
        flat, order = array.T, "F"
    else:
        flat = numpy.ascontiguousarray(array)
    if dtype.kind not in _EXPORTED:
        flat = flat.reshape(-1).view(numpy.uint8)
    decode: Decoder
    if dtype.isbuiltin == 1:
        decode = hit.Viewer(_numpy_table(), array.shape, dtype, order == "F")
    else:  # of its own: others may be equal, and yet tell of more, as of metadata
        decode = partial(numpy.ndarray, array.shape, dtype, order=order)
    return Large((flat,), array.nbytes, decode, True, True)


@cache
def _numpy_table() -> object:
    return numpy_core()._ARRAY_API


def _encode_pickle(value: Any) -> Small | Large:
    buffers: list[pickle.PickleBuffer] = []
    try:
        head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        raw = [buffer.raw() for buffer in buffers]
        if sum(map(len, raw)) + len(head) <= PACKED_BYTES_MOST and buffers:
            raw, head = [], pickle.dumps(value, protocol=5)
    except BufferError:  # a buffer that is not contiguous: it can't be taken out of band
        raw, head = [], pickle.dumps(value, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
        raise TypeError(
            f"a value of type {type(value).__qualname__} can't be cached, as it can't be pickled: "
            f"{error}"
        ) from error
    if not raw and len(head) <= PACKED_BYTES_MOST:
        return Small(PICKLE, head)

    parts: list[Any] = [head]
    places: list[tuple[int, int]] = []
    at = len(head)
    for buffer in raw:
        padding = -at % ALIGNMENT
        if padding:
            parts.append(bytes(padding))
        places.append((at + padding, at + padding + len(buffer)))
        if len(buffer):
            parts.append(buffer)
        at = places[-1][1]
    head_bytes = len(head)

    def decode(lease: hit.Lease) -> Any:
        view = memoryview(lease)
        return pickle.loads(view[:head_bytes], buffers=[view[a:b] for a, b in places])

    if len(parts) > PARTS_MOST:
        parts = [b"".join(parts)]
    return Large(tuple(parts), at, decode, views=bool(places))
