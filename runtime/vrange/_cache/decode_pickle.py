"""A value that is stored as a pickle, with its arrays, large strings and buffers beside it.

The pickle has protocol 5. Objects that a hit returns without a copy, or as themselves, stay out of
it as *leaves*: arrays, large strings and bytes, singletons. The pickle contains the numbers of its
leaves. So each leaf is decoded once, however often the value refers to it.
"""

from __future__ import annotations

import pickle
import sys
import weakref
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Protocol

from vrange._cache.array_layout import ALIGNMENT, ArrayPlace, Blocks, Layout
from vrange._cache.identity import is_told_apart, never_changes
from vrange._cache.leaves import Finder

HEAVY_BYTES = 1 << 16  # of a pickle, which takes some 0.2 ms to decode; callers share its graph


class Sharing(Enum):
    """Which callers get the same object."""

    ALWAYS = auto()  # it is immutable
    WHILE_HELD = auto()  # it is equal only to itself
    WHILE_HOT = auto()  # a second one would take much memory and time
    NEVER = auto()


def sharing_of(value: Any, head_bytes: int, copies: bool, *, arrays_most: int) -> Sharing:
    """Return which callers get the same object; `head_bytes`: the size of the pickle alone.

    `arrays_most`: from a tuple of so many items, callers get array objects of their own.
    """
    if never_changes(value, arrays_most=0 if copies else arrays_most):
        return Sharing.ALWAYS
    if copies:
        return Sharing.NEVER
    if is_told_apart(value):
        return Sharing.WHILE_HELD
    return Sharing.WHILE_HOT if head_bytes >= HEAVY_BYTES else Sharing.NEVER


class Parts(Protocol):
    """The stored bytes of a value, one part after another."""

    parts: list[Any]

    def add_text(self, leaf: str | bytes, /) -> int:
        """Add a str or bytes; return the number of its bytes."""


class _Place(Protocol):
    def load(self, blocks: Blocks, /) -> Any: ...


class _TextPlace:
    """The place of a large str or bytes."""

    __slots__ = ("_block", "_is_text")

    def __init__(self, block: int, is_text: bool) -> None:
        self._block, self._is_text = block, is_text

    def load(self, blocks: Blocks) -> str | bytes:
        part = blocks.view(self._block)
        return str(part, "utf-8", "surrogatepass") if self._is_text else bytes(part)


class _Itself:
    """A singleton."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def load(self, blocks: Blocks) -> Any:
        return self._value


class Pickled:
    """Decodes a value from its pickle and the leaves and buffers beside it."""

    __slots__ = ("_head_bytes", "_leaves", "_out_of_band", "_places", "copies")

    def __init__(
        self,
        head_bytes: int,
        beside: Beside,
        weight: int,
    ) -> None:
        self._head_bytes = head_bytes
        self._places = beside.blocks  # out-of-band buffers first
        self._out_of_band = beside.out_of_band  # for each buffer, whether it is copied
        self._leaves = beside.leaves
        self.copies = weight + beside.copied  # the bytes that decoding allocates, roughly

    def __call__(self, stored: Any) -> Any:
        view = memoryview(stored)
        blocks = Blocks(view, self._places)
        buffers = [
            bytearray(blocks.view(n)) if is_copied else blocks.view(n)
            for n, is_copied in enumerate(self._out_of_band)
        ]
        head = view[: self._head_bytes]
        if not self._leaves:
            return pickle.loads(head, buffers=buffers)
        return _LeafUnpickler(head, buffers, self._leaves, blocks).load()


class SharedWhileHeld:
    """Decodes a value that is equal only to itself, and shares it while a caller holds it."""

    __slots__ = ("_decode", "_last")

    def __init__(self, decode: Callable[[Any], Any], value: Any) -> None:
        self._decode = decode
        self._last = weakref.ref(value)

    @property
    def copies(self) -> int:
        """The bytes that decoding allocates, roughly."""
        return getattr(self._decode, "copies", 0)

    @copies.setter
    def copies(self, nbytes: int) -> None:
        if isinstance(self._decode, Pickled):
            self._decode.copies = nbytes

    def __call__(self, stored: Any) -> Any:
        value = self._last()
        if value is None:
            value = self._decode(stored)
            if is_told_apart(value):  # it may have been pickled as something else
                self._last = weakref.ref(value)
        return value


class _Reader:
    """A memoryview with the methods of a file that an unpickler reads."""

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
    """Loads the leaves, each of them once."""

    def __init__(
        self, head: memoryview, buffers: list[Any], leaves: Sequence[_Place], blocks: Blocks
    ) -> None:
        super().__init__(_Reader(head), buffers=buffers)  # type: ignore[arg-type]
        self._leaves, self.blocks = leaves, blocks
        self._loaded: dict[int, Any] = {}

    def persistent_load(self, number: Any) -> Any:
        """Return the leaf with this number."""
        if number not in self._loaded:
            self._loaded[number] = self._leaves[number].load(self.blocks)
        return self._loaded[number]


class Beside:
    """Stores buffers, arrays and large strings beside a pickle."""

    def __init__(
        self, collector: Parts, finder: Finder, leaves: list[Any], buffers: list[memoryview]
    ) -> None:
        self._collector = collector
        self.nbytes = sum(map(len, collector.parts))
        self.has_views = False  # whether the decoded value refers to the stored bytes
        self.copied = 0  # bytes that decoding copies
        self.blocks: list[tuple[int, int]] = []
        self.out_of_band = [finder.is_copied(buffer) for buffer in buffers]
        for buffer, is_copied in zip(buffers, self.out_of_band, strict=True):
            self._add(buffer, len(buffer))
            self.has_views |= not is_copied
            self.copied += len(buffer) * is_copied
        arrays = [leaf for leaf in leaves if type(leaf) is finder.array]
        places = iter(self._add_arrays(arrays, finder) if arrays else ())
        self.leaves: list[_Place] = []
        for leaf in leaves:
            kind = type(leaf)
            if kind is finder.array:
                self.leaves.append(next(places))
            elif kind is str or kind is bytes:
                self.leaves.append(_TextPlace(len(self.blocks), kind is str))
                self._add(leaf, collector.add_text(leaf), is_added=True)
                self.copied += sys.getsizeof(leaf)
            else:
                self.leaves.append(_Itself(leaf))

    def _add(self, part: Any, nbytes: int, skew: int = 0, is_added: bool = False) -> None:
        padding = 0 if is_added else (skew - self.nbytes) % ALIGNMENT
        if padding:
            self._collector.parts.append(bytes(padding))
        start = self.nbytes + padding
        if nbytes and not is_added:
            self._collector.parts.append(part)
        self.blocks.append((start, start + nbytes))
        self.nbytes = start + nbytes

    def _add_arrays(self, arrays: list[Any], finder: Finder) -> list[ArrayPlace]:
        layout, first = Layout(arrays), len(self.blocks)
        for block, skew in zip(layout.blocks, layout.skews, strict=True):
            self._add(block, block.nbytes, skew)
        places = []
        for array, (block, offset, strides) in zip(arrays, layout.places, strict=True):
            is_shared = finder.is_shared(array)
            is_writable = not is_shared and (finder.copies or array.flags.writeable)
            number = first + block if block >= 0 else -1
            places.append(ArrayPlace(array, number, offset, strides, not is_shared, is_writable))
            self.has_views |= is_shared
            self.copied += array.nbytes * (not is_shared)
        return places
