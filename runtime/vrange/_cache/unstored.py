"""What a caller gets of a value that is not stored: its arrays are as writable as a stored value's.

Otherwise a program that writes into an answer would work while there is no room for the value, and
fail once it is stored. The function may have kept the arrays and containers that it returned. So
they stay as they are, and the caller gets read-only views of the arrays, in new containers. With
`copy=True` it gets writable copies of read-only arrays instead.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from vrange._cache.leaves import arrays_of_containers


def as_answered(value: Any) -> Any:
    """Return the value, with read-only views of the arrays that would be shared if it was stored.

    Those are the arrays of tuples, lists and dicts, and of their subclasses, at any depth. A
    container with other state than its items stays itself: the state may be one that can't be
    copied.
    """
    return _with_others(value, lambda array: array.flags.writeable, _view)


def as_own(value: Any, copy: Callable[[Any], Any] = lambda array: array.copy("K")) -> Any:
    """Return the value, with copies of its read-only arrays: a caller's own, which it may change.

    `copy(array)` may raise MemoryError; then the value is returned as it is.
    """
    return _with_others(value, lambda array: not array.flags.writeable, copy)


def copied(value: Any, copy: Callable[[Any], Any] = lambda array: array.copy("K")) -> Any:
    """Return a deep copy of the value, for one of the callers that waited for it.

    `copy(array)` copies the arrays of tuples, lists and dicts. Raise what copying raises.
    """
    numpy = sys.modules.get("numpy")
    done: dict[int, Any] = {}
    for array in () if numpy is None else arrays_of_containers(value, numpy.ndarray):
        if id(array) not in done and not array.dtype.hasobject:
            done[id(array)] = copy(array)
    return deepcopy(value, done)


def _with_others(
    value: Any, is_replaced: Callable[[Any], bool], replace: Callable[[Any], Any]
) -> Any:
    numpy = sys.modules.get("numpy")  # if it is not imported, there are no ndarrays
    if numpy is None:
        return value
    try:
        arrays = arrays_of_containers(value, numpy.ndarray)
        others: dict[int, Any] = {}
        for array in arrays:
            if id(array) not in others and not array.dtype.hasobject and is_replaced(array):
                others[id(array)] = replace(array)
        return _Rebuilding(others).of(value) if others else value
    except (MemoryError, RuntimeError):  # no room, nested too deeply, or changed meanwhile
        return value


def _view(array: Any) -> Any:
    view = array.view()
    view.flags.writeable = False
    return view


class _Rebuilding:
    """Builds containers again, with other arrays in them."""

    def __init__(self, arrays: dict[int, Any]) -> None:
        self._built = arrays  # by the address of what it stands for

    def of(self, value: Any) -> Any:
        """Return what stands for the value."""
        built = self._built.get(id(value))
        if built is not None or not isinstance(value, dict | list | tuple):
            return value if built is None else built
        if type(value) is tuple:
            items = [self.of(item) for item in value]
            return self._keep(value, tuple(items))
        blank = _blank(value, self.of)
        return value if blank is None else self._fill(value, self._keep(value, blank))

    def _keep(self, value: Any, built: Any) -> Any:
        # A tuple may be built already, for a list in it that has the tuple.
        return self._built.setdefault(id(value), built)

    def _fill(self, value: Any, built: Any) -> Any:
        if isinstance(value, dict):
            kind = OrderedDict if isinstance(value, OrderedDict) else dict
            for key, item in kind.items(value):
                kind.__setitem__(built, key, self.of(item))
        elif isinstance(value, list):
            list.extend(built, map(self.of, list.__iter__(value)))
        return built


def _blank(value: Any, of: Callable[[Any], Any]) -> Any:
    """Return a container like this one without its items; None for one with a state of its own."""
    kind: Any = type(value)
    if kind in (list, dict, OrderedDict):
        return kind()
    if kind is defaultdict:
        return defaultdict(value.default_factory)
    if (kind.__reduce_ex__, kind.__reduce__) != (object.__reduce_ex__, object.__reduce__):
        return None
    reduced: Any = value.__reduce_ex__(2)
    has_state = len(reduced) > 2 and reduced[2] is not None
    if reduced[0].__name__ != "__newobj__" or has_state:
        return None
    return reduced[0](*map(of, reduced[1]))
