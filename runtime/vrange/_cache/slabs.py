"""Small values, packed: a range shared by many, instead of a page each.

A slab is a range cut into equal slots, of a size within an eighth of what is needed. A value is
known by one int, the slab's number and the slot's, so that a million of them cost a million ints
and no objects. A slab is purged as a whole; it knows its keys, so that they can be forgotten then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Hashable, Mapping
from typing import Any

from vrange._core import hit

SLAB_BYTES = 64 * 1024
HEAD_BYTES = 4  # kind and length, written natively before each value
SLOT_BITS = 12  # the smallest slot is 16 bytes
_SLOT_MASK = (1 << SLOT_BITS) - 1
_FREE = object()  # in the place of a key


def slot_bytes_for(nbytes: int) -> int:
    """The slot size for a value of `nbytes`: eight sizes an octave, 16 bytes at least.

    >>> slot_bytes_for(200), slot_bytes_for(1)
    (208, 16)
    """
    wanted = nbytes + HEAD_BYTES
    step = max(16, 1 << max(0, wanted.bit_length() - 4))
    return -(-wanted // step) * step


class Slab:
    """A range of equal slots, the key in each, and whether it was read lately."""

    __slots__ = (
        "expires",
        "free",
        "handle",
        "keys",
        "number",
        "range",
        "slot_bytes",
        "used",
        "was_read",
    )

    def __init__(self, number: int, handle: int, slot_bytes: int, with_ttl: bool) -> None:
        self.number = number
        self.handle = handle
        self.range: hit.Entry | None = None  # which goes with it
        self.slot_bytes = slot_bytes
        self.keys: list[Hashable] = []
        self.expires: list[float] | None = [] if with_ttl else None
        self.free: list[int] = []
        self.used = 0
        self.was_read = bytearray(self.slots)

    @property
    def slots(self) -> int:
        """How many values fit."""
        return SLAB_BYTES // self.slot_bytes

    @property
    def is_full(self) -> bool:
        """Whether no slot is left."""
        return self.used == self.slots


class PackedValues:
    """Which slab and slot each small value of a cache is in. Not thread-safe: under its cache's
    lock, but for `read`.
    """

    def __init__(self, *, with_ttl: bool) -> None:
        self._with_ttl = with_ttl
        self._next_number = 1
        self._slabs: dict[int, Slab] = {}
        self._open: dict[int, list[Slab]] = {}  # by slot size: those with a free slot
        self._round: deque[int] = deque()  # slabs' numbers, the next to be looked at first
        self._hand = 0  # the slot where that goes on

    def slab_with_room(self, nbytes: int) -> Slab | None:
        """A slab with a free slot for a value of `nbytes`; None: one has to be added."""
        partial = self._open.get(slot_bytes_for(nbytes))
        return partial[-1] if partial else None

    def add_slab(self, handle: int, nbytes: int) -> Slab:
        """Takes on a fresh range of SLAB_BYTES for values as large as `nbytes`."""
        slab = Slab(self._next_number, handle, slot_bytes_for(nbytes), self._with_ttl)
        self._next_number += 1  # never used twice: a reader may still hold the int of an old slab
        self._slabs[slab.number] = slab
        self._round.append(slab.number)
        self._open.setdefault(slab.slot_bytes, []).append(slab)
        return slab

    def write(
        self, slab: Slab, key: Hashable, kind: int, data: bytes, expires: float
    ) -> int | None:
        """Puts a value into a free slot; None where the slab was purged meanwhile."""
        slot = slab.free[-1] if slab.free else len(slab.keys)
        if not hit.write_packed(slab.handle, slot * slab.slot_bytes, kind, data):
            return None
        if slab.free:
            slab.free.pop()
            slab.keys[slot] = key
            slab.was_read[slot] = 0
            if slab.expires is not None:
                slab.expires[slot] = expires
        else:
            slab.keys.append(key)
            if slab.expires is not None:
                slab.expires.append(expires)
        slab.used += 1
        if slab.is_full:
            self._open[slab.slot_bytes].remove(slab)
        return slab.number << SLOT_BITS | slot

    def slab_of(self, place: int) -> Slab | None:
        """The slab that `place` is in, if it is still there."""
        return self._slabs.get(place >> SLOT_BITS)

    def read(self, place: int) -> tuple[int, bytes] | None:
        """(kind, data), or None where the slab was purged or is gone.

        Takes no lock, so the slot may hold another value by now: the caller has to look whether the
        key still stands for this very `place`.
        """
        slab = self._slabs.get(place >> SLOT_BITS)
        if slab is None:
            return None
        slot = place & _SLOT_MASK
        slab.was_read[slot] = 1
        return hit.read_packed(slab.handle, slot * slab.slot_bytes)

    def expires(self, place: int) -> float:
        """When the value expires, on the clock of time.monotonic; infinite without a TTL."""
        slab = self._slabs.get(place >> SLOT_BITS)
        if slab is None or slab.expires is None:
            return float("inf")
        return slab.expires[place & _SLOT_MASK]

    def remove(self, place: int) -> Slab | None:
        """Frees the slot. Returns the slab if it is empty now and was taken off."""
        slab = self._slabs.get(place >> SLOT_BITS)
        if slab is None:
            return None
        if slab.is_full:
            self._open.setdefault(slab.slot_bytes, []).append(slab)
        slot = place & _SLOT_MASK
        slab.keys[slot] = _FREE
        slab.free.append(slot)
        slab.used -= 1
        if slab.used:
            return None
        self.take_off(slab)
        return slab

    def least_used(
        self, count: int, held: Container[Hashable], newest: int
    ) -> list[tuple[Hashable, int]]:
        """(key, place) of up to `count` values, those first that were not read for longest.

        A hand goes round over all slots (CLOCK): a value that was read since it last came by, or is
        among those held, is passed over. So is the newest. Amortised, a value costs a look or two.
        """
        found: list[tuple[Hashable, int]] = []
        rounds_left = 2 * len(self._round) + 1
        while len(found) < count and self._round and rounds_left:
            number = self._round[0]
            slab = self._slabs.get(number)
            if slab is None:
                self._round.popleft()
                self._hand = 0
                rounds_left -= 1
                continue
            keys, was_read = slab.keys, slab.was_read
            for slot in range(self._hand, len(keys)):
                key = keys[slot]
                if key is _FREE:
                    continue
                if was_read[slot]:
                    was_read[slot] = 0
                    continue
                place = number << SLOT_BITS | slot
                if key in held or place == newest:
                    continue
                found.append((key, place))
                if len(found) == count:
                    self._hand = slot + 1
                    break
            else:
                self._round.rotate(-1)
                self._hand = 0
                rounds_left -= 1
        return found

    def take_off(self, slab: Slab) -> list[tuple[Any, int]]:
        """Forgets a slab; returns its (key, place) pairs. Its range is the caller's to free."""
        del self._slabs[slab.number]
        partial = self._open.get(slab.slot_bytes, [])
        if slab in partial:
            partial.remove(slab)
        return [
            (key, slab.number << SLOT_BITS | slot)
            for slot, key in enumerate(slab.keys)
            if key is not _FREE
        ]

    def slabs(self) -> list[Slab]:
        """All of them."""
        return list(self._slabs.values())

    def mend(self, index: Mapping[Hashable, object], is_gone: Callable[[int], bool]) -> None:
        """Makes the slabs agree with the index: a slot is in use where a key has its place. Slabs
        that are empty, or whose range is gone, are taken off.
        """
        keys: dict[int, dict[int, Hashable]] = {}
        for key, place in index.items():
            if isinstance(place, int):
                keys.setdefault(place >> SLOT_BITS, {})[place & _SLOT_MASK] = key
        self._open.clear()
        for slab in self.slabs():
            its_keys = keys.get(slab.number)
            if its_keys is None or is_gone(slab.handle):
                del self._slabs[slab.number]
                continue
            slab.keys[:] = [its_keys.get(slot, _FREE) for slot in range(max(its_keys) + 1)]
            slab.free[:] = [slot for slot in range(len(slab.keys)) if slot not in its_keys]
            if slab.expires is not None:
                del slab.expires[len(slab.keys) :]
            slab.used = len(its_keys)
            if not slab.is_full:
                self._open.setdefault(slab.slot_bytes, []).append(slab)

    def clear(self) -> None:
        """Forgets every slab."""
        self._slabs.clear()
        self._open.clear()
        self._round.clear()
        self._hand = 0
