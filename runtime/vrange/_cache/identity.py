"""Values whose identity matters: singletons, immutable values, values compared by `is`.

Unpickling makes a new object. For most values no program can tell; for these a program can:

- A *singleton*: `MISSING = object()`, or a module's only instance of a settings class. It is
  stored by reference, and a hit returns the object itself, at any depth.
- An instance of a class without `__eq__`, which is equal only to itself. While a caller holds it,
  all callers get the same object.

Lists, arrays and all other types with `__setitem__` are data, wherever a module keeps them.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import pathlib
import re
import sys
import types
import uuid
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

_HEAP_TYPE = 1 << 9  # of a type's __flags__: made at run time, as by a class statement

_NEVER_CHANGE = {
    type(None),
    type(Ellipsis),
    type(NotImplemented),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    range,
    datetime.date,
    datetime.time,
    datetime.datetime,
    datetime.timedelta,
    datetime.timezone,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    re.Pattern,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
}
_NEVER_CHANGE_AND_SUBCLASSES = (type, enum.Enum, pathlib.PurePath)


def never_changes(value: Any, *, arrays_most: int) -> bool:
    """Return whether the value is certainly immutable, so that callers may share it.

    An array is not: its shape and dtype can be set, even if its content is read-only. But from a
    tuple of at most `arrays_most` items, as functions return it, the hot front gives each caller
    array objects of its own.
    """
    try:
        if type(value) is tuple and len(value) <= arrays_most:
            return all(is_own_array(item) or _never_changes(item) for item in value)
        return _never_changes(value)
    except RecursionError:
        return False


def is_own_array(value: Any) -> bool:
    """Return whether the hot front gives each caller an array object of its own for this one."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return False
    return not value.dtype.hasobject and value.dtype.names is None


def _never_changes(value: Any) -> bool:
    kind = type(value)
    if kind in _NEVER_CHANGE or issubclass(kind, _NEVER_CHANGE_AND_SUBCLASSES):
        return True
    if issubclass(kind, tuple | frozenset):
        if kind is not tuple and kind is not frozenset and kind.__dictoffset__:
            return False  # instances of this class have attributes
        if set(map(type, value)) <= _NEVER_CHANGE:
            return True
        return all(map(_never_changes, value))
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, numpy.generic) and kind is not numpy.void


def is_told_apart(value: Any) -> bool:
    """Return whether a value is equal only to itself, and can have weak references."""
    kind: Any = type(value)
    if kind.__eq__ is not object.__eq__ or issubclass(kind, type):
        return False
    try:
        weakref.ref(value)
    except TypeError:
        return False
    return True


class _Places:
    """Where modules keep possible singletons: from an object's address to module and path."""

    def __init__(self) -> None:
        self._paths: dict[int, tuple[str, ...]] = {}
        self._kinds: set[int] = set()  # addresses of their types
        self._looked_at: set[str] = set()
        self._modules = 0

    def look_at_new(self) -> None:
        """Look at the modules that were imported since the last time."""
        if len(sys.modules) == self._modules:
            return
        names = list(sys.modules)
        self._modules = len(names)
        for name in names:
            if name not in self._looked_at:
                self._looked_at.add(name)
                with suppress(Exception):  # extension modules have odd types
                    self.look_at(name)

    def look_at(self, name: str) -> None:
        """Record the possible singletons that a module keeps now."""
        for attribute, value in list(_namespace(name).items()):
            kind = type(value)
            if _may_be_singleton(kind):
                self._add(value, name, attribute)
            elif issubclass(kind, type) and (_class_dict(value) or {}).get("__module__") == name:
                self._look_at_class(value, name, attribute)

    def _look_at_class(self, its: type, name: str, attribute: str) -> None:
        for inner, value in list(_class_dict(its).items()):
            if type(value) is object:
                self._add(value, name, attribute, inner)

    def _add(self, value: object, *path: str) -> None:
        self._paths[id(value)] = path
        self._kinds.add(id(type(value)))

    def has_some_of(self, kind: type) -> bool:
        """Return whether a module keeps, or kept, an instance of the type."""
        return id(kind) in self._kinds

    def has(self, value: object) -> bool:
        """Return whether the object is still where it was found."""
        path = self._paths.get(id(value))
        if path is None:
            return False
        found: Any = _namespace(path[0]).get(path[1])
        if len(path) == 3:
            found = _class_dict(found).get(path[2]) if isinstance(found, type) else None
        return found is value


_places = _Places()


def _namespace(name: str) -> dict[str, Any]:
    """Return a module's dict, without running code of the module."""
    try:
        found = object.__getattribute__(sys.modules.get(name), "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


_class_dict: Any = type.__dict__["__dict__"].__get__  # not through the metaclass


def _may_be_singleton(kind: type) -> bool:
    if kind is object:
        return True
    return (
        bool(kind.__flags__ & _HEAP_TYPE)
        and not issubclass(kind, type | types.ModuleType | enum.Enum)
        and not hasattr(kind, "__setitem__")
    )


def may_have_singletons(kind: type, homes: Iterable[str]) -> bool:
    """Return whether an instance of the type may be a singleton of one of the loaded modules.

    The modules in `homes`, and the module of the class, are searched again, because they may have
    new objects.
    """
    if not _may_be_singleton(kind):
        return False
    _places.look_at_new()
    for name in {*homes, getattr(kind, "__module__", "")}:
        if isinstance(name, str) and kind in set(map(type, list(_namespace(name).values()))):
            _places.look_at(name)
    return _places.has_some_of(kind)


def is_singleton(value: Any, homes: Iterable[str]) -> bool:
    """Return whether a loaded module keeps this very object under a name."""
    kind = type(value)
    return may_have_singletons(kind, homes) and _places.has(value)
