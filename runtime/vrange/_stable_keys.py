"""Keys that are the same in every process: a form of bytes, and its digest.

`hash()` differs between processes, and an object's identity means nothing in another one. So a key
is turned into plain objects that are equal to it, and these are pickled without a memo: equal keys
have equal bytes.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import fractions
import io
import math
import pathlib
import pickle
import sys
import uuid
from collections.abc import Callable, Hashable
from decimal import Decimal
from numbers import Number
from typing import Any

__all__ = ["form_of", "key_of"]

TYPES = (
    "None, bool, int, float, complex, Decimal, Fraction, str, bytes, tuples and frozensets, "
    "dates, times and timedeltas, UUIDs, paths, members of enums, types, frozen dataclasses of "
    "these, and NumPy's scalars"
)


def form_of(key: Hashable) -> bytes:
    """Return the bytes of a key. Equal keys have equal bytes, in every process.

    Raises
    ------
    TypeError
        If the key can't be hashed, or has a part of a type that is not equal by its content.

    """
    kind = type(key)
    if kind is not str and kind is not int and kind is not bytes:
        hash(key)  # refuses lists and dicts, as a dict does
        key = _plain(key)
    try:
        return _pickled(key)
    except (pickle.PicklingError, AttributeError) as error:  # a class that is no module's
        raise TypeError(f"a part of the key has no name in other processes: {error}") from error


def key_of(form: bytes) -> Any:
    """Return a key that is equal to the one that had this form."""
    return pickle.loads(form)


def _pickled(plain: object) -> bytes:
    to = io.BytesIO()
    pickler = pickle.Pickler(to, 4)
    pickler.fast = True  # no memo: two equal parts are pickled alike, whether they are one or not
    pickler.dump(plain)
    return to.getvalue()


class _FrozenSet:
    """A frozenset whose items are pickled in an order that does not depend on their hashes."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __reduce__(self) -> tuple[Any, ...]:
        return frozenset, (tuple(self._items),)


class _Dataclass:
    def __init__(self, value: Any) -> None:
        names = [field.name for field in dataclasses.fields(value) if field.compare]
        self._kind = type(value)
        self._state = tuple((name, _plain(getattr(value, name))) for name in names)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._kind, self._state)


def _rebuilt(kind: type, state: tuple[tuple[str, Any], ...]) -> Any:
    value: Any = object.__new__(kind)
    for name, part in state:
        object.__setattr__(value, name, part)
    return value


def _plain(key: Any) -> Any:
    """Return an object that is equal to a key, and the same for all keys that are equal."""
    kind = type(key)
    make = _MAKERS.get(kind)
    if make is not None:
        return make(key)
    for base, make in _MAKERS.items():
        if isinstance(key, base) and _compares_as(kind, base):
            return make(key)
    return _plain_of_others(key, kind)


def _compares_as(kind: type, base: type) -> bool:
    """Return whether objects of a subclass are equal and hashed as those of its base."""
    return kind.__eq__ is base.__eq__ and kind.__hash__ is base.__hash__


def _plain_of_others(key: Any, kind: type) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(key, numpy.generic):
        item = key.item()
        if isinstance(item, Number | str | bytes):
            return _plain(item)
    if isinstance(key, enum.Enum | type) or getattr(kind, "_has_a_place", False):
        return key  # pickled by its name
    if isinstance(key, pathlib.PurePosixPath):
        return pathlib.PurePosixPath(key)
    if dataclasses.is_dataclass(key) and _is_frozen(kind):
        return _Dataclass(key)
    raise TypeError(
        f"a value of type {kind.__qualname__} can't be a part of a shared cache's key, because "
        f"other processes can't tell whether theirs is equal. Keys may have {TYPES}. Give "
        "cached a key= that returns such a key; key=vrange.keys.content makes one from the "
        "contents of arrays, lists and dicts"
    )


def _is_frozen(kind: Any) -> bool:
    parameters = kind.__dataclass_params__
    return bool(parameters.frozen and parameters.eq)


def _plain_number(number: Any) -> Any:
    if isinstance(number, complex):
        if number.imag:
            return complex(number.real + 0.0, number.imag + 0.0)  # no negative zero
        number = number.real
    if isinstance(number, int):
        return int(number)
    if isinstance(number, float):
        if number != number:
            return math.nan
        return int(number) if number.is_integer() else float(number)
    if isinstance(number, Decimal):
        if not number.is_finite():
            return float(number)
        number = fractions.Fraction(number)
    if number.denominator == 1:
        return int(number.numerator)
    try:
        as_float = float(number)
    except OverflowError:
        return number
    return as_float if as_float == number else fractions.Fraction(number)


def _plain_datetime(moment: datetime.datetime) -> Any:
    if moment.utcoffset() is None:
        return moment.replace(tzinfo=None, fold=0)
    return moment.astimezone(datetime.UTC).replace(fold=0)


def _plain_time(moment: datetime.time) -> Any:
    if moment.utcoffset() is None:
        return moment.replace(tzinfo=None, fold=0)
    raise TypeError(
        "a time with a time zone can't be a part of a shared cache's key: give cached a key= "
        "without it"
    )


def _as_it_is(key: Any) -> Any:
    return key


def _plain_set(items: frozenset[Any]) -> Any:
    return _FrozenSet(sorted((_plain(item) for item in items), key=_pickled))


_MAKERS: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    bool: int,
    type(None): _as_it_is,
    float: _plain_number,
    tuple: lambda items: tuple(map(_plain, tuple.__iter__(items))),
    bytes: lambda data: bytes(memoryview(data)),
    complex: _plain_number,
    frozenset: _plain_set,
    Decimal: _plain_number,
    fractions.Fraction: _plain_number,
    datetime.datetime: _plain_datetime,
    datetime.date: _as_it_is,
    datetime.time: _plain_time,
    datetime.timedelta: _as_it_is,
    uuid.UUID: _as_it_is,
}
