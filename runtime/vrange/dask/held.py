"""The values that a worker holds itself, and which of them goes next."""

from __future__ import annotations

import itertools
import sys
import weakref
from collections import OrderedDict
from contextlib import suppress
from typing import Any

__all__ = ["Held"]

_SMALL_BYTES = 4096
_LOOKED_AT = 32  # values, for one that frees memory


def _references(values: dict[Any, object], key: Any) -> int:
    return sys.getrefcount(values[key])


_REFERENCES_OF_ONE = _references({None: object()}, None)


class Held:
    """Values by key, from the one that was used least recently on.

    Attributes
    ----------
    values : dict
        The values.
    weights : dict
        The size of each value that was ever added and not forgotten, by Dask's `sizeof`.
    held_bytes, all_bytes : int
        The sum of the sizes of those that are held, and of all.

    """

    def __init__(self) -> None:
        self.values: dict[Any, object] = {}
        self.weights: dict[Any, int] = {}
        self.held_bytes = self.all_bytes = 0
        # Of those that can be evicted: small ones go last, as a file each gains nothing.
        self._order: OrderedDict[Any, None] = OrderedDict()
        self._small: OrderedDict[Any, None] = OrderedDict()
        # A task, or an array that is a part of it, can keep a value alive. A second copy of it
        # would cost memory instead of saving any.
        self._still_in_use: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()

    def add(self, key: Any, value: object, weight: int) -> None:
        """Hold a new value."""
        self.weights[key] = weight
        self.all_bytes += weight
        self.hold(key, value)

    def hold(self, key: Any, value: object) -> None:
        """Hold a value again."""
        self.values[key] = value
        self.held_bytes += self.weights[key]
        (self._order if self.weights[key] >= _SMALL_BYTES else self._small)[key] = None

    def use(self, key: Any) -> object:
        """Return a held value, which goes last from now on."""
        for order in (self._order, self._small):
            if key in order:
                order.move_to_end(key)
        return self.values[key]

    def still_in_use(self, key: Any) -> object:
        """Return a value that is not held, and that something else keeps alive; None otherwise."""
        return self._still_in_use.get(key)

    def drop(self, key: Any) -> None:
        """Hold a value no longer."""
        with suppress(TypeError):  # its type has no weak references
            self._still_in_use[key] = self.values[key]
        del self.values[key]
        self.keep(key)
        self.held_bytes -= self.weights[key]

    def keep(self, key: Any) -> None:
        """Never choose a value that is held: it can't be evicted."""
        self._order.pop(key, None)
        self._small.pop(key, None)

    def forget(self, key: Any) -> None:
        """Forget a key, whether its value is held or not."""
        if key in self.values:
            self.drop(key)
        self.all_bytes -= self.weights.pop(key, 0)
        self._still_in_use.pop(key, None)

    def clear(self) -> None:
        """Forget all keys."""
        for key in list(self.weights):
            self.forget(key)

    def victim(self, spare: Any = None, *, only_if_it_frees: bool = False) -> list[Any]:
        """Return a list of the key that goes next, other than `spare`; empty if there is none.

        Preferred are values whose memory is free without them. If a task or an array that is a part
        of it uses the value, its memory stays, and what is read back later comes on top.
        """
        order = itertools.chain(self._order, () if only_if_it_frees else self._small)
        oldest = [key for key in itertools.islice(order, _LOOKED_AT) if key != spare]
        alone = [key for key in oldest if self.is_alone(key)]
        return (alone if alone or only_if_it_frees else oldest)[:1]

    def is_alone(self, key: Any) -> bool:
        """Return whether nothing else uses the value, or is a part of the same memory."""
        value = self.values[key]
        is_part = isinstance(getattr(value, "base", None), type(value))  # of another array
        del value
        return not is_part and _references(self.values, key) <= _REFERENCES_OF_ONE

    def can_go(self, key: Any) -> bool:
        """Return whether a value can be evicted."""
        return key in self._order or key in self._small
