"""Which objects of a value stay out of its pickle, and which of its arrays are shared.

Arrays in tuples, lists and dicts of the value, and the arrays of pandas, are decoded as read-only
views of the stored bytes. The arrays of other objects are copied, and writable if they were
writable. They are the object's state, to which its methods may write even if the caller only reads:
a sparse matrix sorts its indices.
"""

from __future__ import annotations

import copyreg
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from vrange._cache import pandas_frames
from vrange._cache.identity import is_singleton, may_have_singletons

LEAF_BYTES = 1 << 16  # the least str or bytes that stays out of a pickle; a pickler's frame


class HasNoIdentityError(Exception):
    """A bare object() that no module keeps can't be identified when it is decoded."""


class Finder:
    """Finds the leaves of a value, and its arrays that are never written to."""

    def __init__(self, value: Any, homes: Iterable[str], copies: bool) -> None:
        self._value, self._homes, self.copies = value, homes, copies
        self.array: type | None = None
        self._shared: set[int] | None = None
        self._marked: dict[int, Any] = {}
        self._shared_at: set[tuple[int, int]] | None = None
        # From type to whether its objects may be leaves; the native finder calls `meet` for others.
        self.kinds: dict[type, bool] = {object: True, types.ModuleType: True}
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            self.array = numpy.ndarray
            self.kinds[numpy.ndarray] = True

    def meet(self, kind: type) -> bool:
        """Return whether an object of the type may be a leaf."""
        return may_have_singletons(kind, self._homes)

    def is_leaf(self, value: Any) -> bool:
        """Return whether this object is a leaf."""
        kind = type(value)
        if kind is self.array:
            return not value.dtype.hasobject
        if kind is types.ModuleType:
            return sys.modules.get(value.__name__) is value
        found = is_singleton(value, self._homes)
        if kind is object and not found:
            raise HasNoIdentityError(
                "object() can't be told from another one, and no module has it"
            )
        return found

    def mark(self, array: Any) -> None:
        """Note an array that is copied before it is written to."""
        self._marked[id(array)] = array

    def is_shared(self, array: Any) -> bool:
        """Return whether an array is decoded as a read-only view."""
        if self.copies:
            return False
        if self._shared is None:
            self._shared = set(map(id, arrays_of_containers(self._value, self.array)))
        return id(array) in self._shared or id(array) in self._marked

    def is_copied(self, buffer: memoryview) -> bool:
        """Return whether a buffer is decoded as a copy, because a caller may write to it."""
        if buffer.readonly and not self.copies:
            return False
        owner: Any = buffer.obj
        if type(owner) is self.array and not self.copies:
            return _memory_of(owner) not in self._memory_shared()
        return not type(owner).__module__.startswith("pyarrow")  # Arrow's are immutable

    def _memory_shared(self) -> set[tuple[int, int]]:
        # An array in Fortran order gives a buffer of its transpose, which is another object.
        if self._shared_at is None:
            arrays = arrays_of_containers(self._value, self.array)
            arrays += [each for each in self._marked.values() if type(each) is self.array]
            self._shared_at = set(map(_memory_of, arrays))
        return self._shared_at

    def reducers(self) -> dict[type, Callable[[Any], Any]]:
        """Return the reducers that replace the types' own."""
        return copyreg.dispatch_table | dict(
            () if self.copies else pandas_frames.reducers(self.mark)
        )


def _memory_of(array: Any) -> tuple[int, int]:
    return array.__array_interface__["data"][0], array.nbytes


def arrays_of_containers(value: Any, array: type | None) -> list[Any]:
    """Return the arrays that are reached only through tuples, lists and dicts."""
    found: list[Any] = []
    pending, seen = [value], set[int]()
    while pending:
        item = pending.pop()
        if type(item) is array:
            found.append(item)
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, dict):
                pending.extend(dict.keys(item))
                item = list(dict.values(item))
            kinds = set(map(type, item))
            if array in kinds or any(issubclass(kind, dict | list | tuple) for kind in kinds):
                pending.extend(item)
    return found
