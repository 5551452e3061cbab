"""Keys for arguments that can't be hashed: `@vrange.cached(key=vrange.keys.content)`."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Hashable, Mapping
from typing import Any

__all__ = ["content"]

_DIGEST_BYTES = 20  # of BLAKE2b: two contents with one digest are not to be expected


def content(*args: Any, **kwargs: Any) -> Hashable:
    """Return a key that says what the arguments contain.

    Two calls have the same key if their arguments have equal content and the same types. An array
    or DataFrame that was changed in between has another key.

    Parameters
    ----------
    *args, **kwargs : object
        The arguments of a call: ndarrays, DataFrames, Series and Indexes, bytearrays, lists, sets,
        dicts and dataclasses of these, at any depth; and everything that can be hashed, or
        pickled.

    Returns
    -------
    Hashable
        The key. Large content is represented by its digest of 20 bytes.

    Raises
    ------
    TypeError
        If an argument can neither be hashed nor pickled.

    Notes
    -----
    Every call reads its arguments: about a millisecond per MiB. Objects that can be hashed stand
    for themselves, so one that is hashed by identity counts as unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> import vrange
    >>> @vrange.cached(key=vrange.keys.content)
    ... def total(array, options):
    ...     return float(array.sum())
    >>> total(np.ones(1000), {"a": [1, 2]}), total(np.ones(1000), {"a": [1, 2]})
    (1000.0, 1000.0)
    >>> total.cache_info().hits
    1

    """
    named = tuple((name, _key_of(value)) for name, value in kwargs.items())
    return (*map(_key_of, args), _NAMED, *named) if named else tuple(map(_key_of, args))


class Mark:
    """A part of a key that is equal to nothing that a user passes."""

    _has_a_place = True  # pickled by it, so it is the same in all processes

    def __init__(self, name: str, place: str) -> None:
        self._name, self._place = name, place

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._place  # one object in each process


_NAMED = Mark("named", "_NAMED")
_CONTENT = Mark("content", "_CONTENT")


def _key_of(value: Any) -> Hashable:
    kind: Any = type(value)
    if kind in (str, int, float, bool, type(None)):
        return value  # type: ignore[no-any-return]
    if kind is tuple or kind is list:
        return (_CONTENT, kind, *map(_key_of, value))
    if kind is dict:
        # In their order: a function may depend on it.
        return (_CONTENT, kind, *((_key_of(k), _key_of(v)) for k, v in value.items()))
    if kind is set or kind is frozenset:
        return (_CONTENT, kind, frozenset(map(_key_of, value)))
    if kind is bytearray or kind is memoryview:
        return _CONTENT, kind.__name__, _digest(bytes(value))
    return _key_of_data(value, kind)


def _key_of_data(value: Any, kind: Any) -> Hashable:
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _key_of_array(value, kind, numpy)
    if pandas is not None:
        if isinstance(value, pandas.DataFrame):
            columns = tuple(_key_of_column(value.iloc[:, i]) for i in range(value.shape[1]))
            labels = _key_of_data(value.columns, type(value.columns))
            return _CONTENT, kind, labels, _key_of_data(value.index, type(value.index)), columns
        if isinstance(value, pandas.Series):
            index = _key_of_data(value.index, type(value.index))
            return _CONTENT, kind, _key_of(value.name), index, _key_of_column(value)
        if isinstance(value, pandas.Index):
            return _CONTENT, kind, tuple(map(_key_of, value.names)), _key_of_column(value)
    return _key_of_object(value, kind)


def _key_of_array(array: Any, kind: Any, numpy: Any) -> Hashable:
    fields = None if array.dtype.fields is None else str(array.dtype.descr)
    described = (_CONTENT, kind, array.dtype.str, fields, array.shape)
    if array.dtype.hasobject:
        return (*described, *(_key_of(item) for item in array.ravel().tolist()))
    masked = (_key_of_array(array.mask, bool, numpy),) if hasattr(array, "mask") else ()
    plain = numpy.ascontiguousarray(numpy.asarray(array))
    return (*described, _digest(plain.reshape(-1).view(numpy.uint8)), *masked)


def _key_of_column(values: Any) -> Hashable:
    numpy = sys.modules["numpy"]
    if not isinstance(values.dtype, numpy.dtype):
        return _key_of_object(values.array, type(values.array))
    plain = values.to_numpy()
    return _key_of_array(plain, type(plain), numpy)


def _key_of_object(value: Any, kind: Any) -> Hashable:
    try:
        hash(value)
    except TypeError:
        pass
    else:
        return kind, value
    if isinstance(value, Mapping):
        return (_CONTENT, kind, *((_key_of(k), _key_of(v)) for k, v in value.items()))
    try:
        pickled = pickle.dumps(value, 5)
    except Exception as error:
        raise TypeError(
            f"a value of type {kind.__qualname__} can't be a part of a key: it can't be hashed "
            f"({kind.__qualname__}.__hash__ is None), and it can't be pickled: {error}"
        ) from error
    return _CONTENT, kind, _digest(pickled)


def _digest(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
