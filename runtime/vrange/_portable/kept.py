"""The form in which the portable cache keeps a value. Changing an answer changes no other."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any

from vrange._cache.array_layout import Strided
from vrange._cache.decode_pickle import Beside, Pickled, Sharing, sharing_of
from vrange._cache.leaves import LEAF_BYTES, Finder
from vrange._cache.weigh import weigh

OBJECT_BYTES = 64  # an object, roughly, without its large parts
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


class Kept:
    """A value that is kept, as itself or as its pickle.

    Parameters
    ----------
    nbytes : int
        The memory that it takes, roughly.
    value : object
        The object that callers share, or None.
    decode : callable, optional
        Called with `stored` for each caller; returns a value for that caller alone.
    stored : bytes
        The pickle, and the leaves and buffers beside it.

    """

    __slots__ = ("_decode", "_stored", "_value", "nbytes")

    def __init__(
        self,
        nbytes: int,
        value: Any,
        decode: Callable[[bytes], Any] | None = None,
        stored: bytes = b"",
    ) -> None:
        self.nbytes = nbytes
        self._value, self._decode, self._stored = value, decode, stored

    def answer(self) -> Any:
        """Return the value for a caller."""
        return self._value if self._decode is None else self._decode(self._stored)


class _Parts:
    """The file that a pickler writes to, and the leaves and buffers beside the pickle."""

    def __init__(self) -> None:
        self.parts: list[Any] = []

    def write(self, data: Any) -> None:
        """Add a pickler's output."""
        self.parts.append(bytes(data))

    def add_text(self, leaf: str | bytes) -> int:
        """Add a str or bytes; return the number of its bytes."""
        data = leaf if isinstance(leaf, bytes) else leaf.encode("utf-8", "surrogatepass")
        self.parts.append(data)
        return len(data)

    def joined(self) -> bytes:
        """Return all parts as one bytes object."""
        return b"".join(
            part.content() if isinstance(part, Strided) else part for part in self.parts
        )


class _Pickler(pickle.Pickler):
    """Calls the finder with each object, to learn whether it is a leaf."""

    def __init__(
        self,
        file: _Parts,
        finder: Finder,
        leaves: list[Any],
        add: Callable[[pickle.PickleBuffer], Any],
    ) -> None:
        super().__init__(file, 5, buffer_callback=add)
        self.dispatch_table = finder.reducers()
        self._finder, self._leaves = finder, leaves
        self._numbers: dict[int, int] = {}
        self.objects = 0

    def persistent_id(self, value: Any) -> int | None:
        """Return the number of a leaf; None for other objects."""
        self.objects += 1
        kind, finder = type(value), self._finder
        if kind is str or kind is bytes:
            is_leaf = len(value) >= LEAF_BYTES
        else:
            if kind not in finder.kinds:
                finder.kinds[kind] = finder.meet(kind)
            is_leaf = finder.kinds[kind] and finder.is_leaf(value)
        if not is_leaf:
            return None
        number = self._numbers.setdefault(id(value), len(self._leaves))
        if number == len(self._leaves):
            self._leaves.append(value)
        return number


def keep(value: Any, homes: Iterable[str], *, copies: bool) -> Kept:
    """Return the kept form of a value. Errors of pickling and unpickling are raised."""
    if type(value) in _PLAIN:
        return Kept(weigh(value), value)
    finder, leaves, file = Finder(value, homes, copies), list[Any](), _Parts()
    buffers: list[memoryview] = []

    def add(buffer: pickle.PickleBuffer) -> None:
        buffers.append(buffer.raw())

    pickler = _Pickler(file, finder, leaves, add)
    pickler.dump(value)
    head_bytes = sum(map(len, file.parts))
    weight = head_bytes + pickler.objects * OBJECT_BYTES
    sharing = sharing_of(value, head_bytes, copies, arrays_most=0)
    if sharing is Sharing.WHILE_HELD or sharing is Sharing.WHILE_HOT:
        return Kept(weigh(value), value)
    beside = Beside(file, finder, leaves, buffers)
    decode, stored = Pickled(head_bytes, beside, weight), file.joined()
    if sharing is Sharing.ALWAYS:
        first = decode(stored)
        return Kept(weigh(first) + len(stored) * beside.has_views, first)
    return Kept(len(stored) + weight, None, decode, stored)
