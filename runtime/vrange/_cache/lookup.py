"""Recalling: reading back what lookup.c leaves, and offering it to the hot front."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Hashable
from typing import Any

from vrange._cache.address_space import in_pages
from vrange._cache.codec import decode_small
from vrange._cache.index import Books, Entry
from vrange._cache.weigh import OBJECTS_MOST, WEIGHING_BYTES, weigh
from vrange._core import hit, lib
from vrange._counters.account import Account

_HITS_PER_CONTEST = 4  # as in lookup.c
_HEAVIER_UNPICKLED = 16  # a pickled int of 2 bytes is an object of 28 and a pointer


class Absent:
    """Why there is no value: `outcome` is what the request counts as."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: int) -> None:
        self.outcome = outcome


MISS = Absent(lib.VRANGE_REQUEST_MISS)
PURGED = Absent(lib.VRANGE_REQUEST_PURGED)


class Recall:
    """Reads what one cache has. `natively` answers most requests, and MISS to what is left for
    `slowly`.
    """

    def __init__(self, books: Books, account: Account) -> None:
        self._books = books
        self._contests = 0
        admit = None if books.hot.never_holds else self._admit
        self.natively = hit.Recaller(
            books.index, books.lock, books.hot.weights, admit, MISS, account.address
        )

    def slowly(self, key: Hashable) -> Any:
        """The value or an Absent. A value found is offered to the hot front."""
        books = self._books
        while True:
            entry = books.index.get(key)
            if entry is None:
                return self._why_absent(key)
            try:
                value = self._read(entry)
            except MemoryError:
                books.lose(key, entry, purged=False)
                continue
            except Exception as error:
                if self._can_be_read(entry):
                    raise  # a signal's handler raised it, not the value
                self._give_up(key, entry, error)
                continue
            if books.index.get(key) is not entry:
                continue  # replaced while it was read, and a packed place may have a new tenant
            if value is not PURGED:
                self._admit(key, entry, value)
                return value
            books.lose(key, entry)

    def _why_absent(self, key: Hashable) -> Absent:
        """What to say of a key that has no entry. ValueError once closed."""
        self._books.arena.check_open()
        return PURGED if self._books.ghosts.was_purged(key) else MISS

    def _give_up(self, key: Hashable, entry: Entry, error: Exception) -> None:
        """Forgets what was pickled and can't be unpickled: it would fail at every request."""
        if not self._books.remove_if(key, entry):
            return
        warnings.warn(
            f"the value under {key!r} was pickled and can't be unpickled ({error!r}), so it is "
            "computed at each request",
            RuntimeWarning,
            stacklevel=5,  # who asks, by get_or_compute or a decorated function
        )

    def _can_be_read(self, entry: Entry) -> bool:
        try:
            self._read(entry)
        except Exception:
            return False
        return True

    def _read(self, entry: Entry) -> Any:
        if isinstance(entry, int):
            packed = self._books.packed.read(entry)
            return PURGED if packed is None else decode_small(*packed)
        lease = hit.pin(entry.handle, entry.nbytes)
        if lease is None:
            return PURGED
        room = hit.Room()
        if entry.copies >= hit.ROOM_BYTES:
            # Without room for a copy the value goes: computing it again takes no more than that.
            itself = entry.weight - (in_pages(entry.nbytes) if entry.views else 0)
            room.hold(max(entry.copies, itself))
        return entry.decode(lease)

    def _admit(self, key: Hashable, entry: Entry, value: Any) -> None:
        """Offers a value that was read to the hot front. Where that is full, the recaller asks only
        for what is used more than what is held longest.
        """
        hot = self._books.hot
        if hot.limit == 0:
            self.natively.front_is_full = True
            return
        if isinstance(entry, int):
            weight = sys.getsizeof(value, 64)
            if type(value) not in (bytes, str):
                weight *= _HEAVIER_UNPICKLED
        else:
            if entry.weight < 0:
                # What was unpickled is looked at, once.
                if entry.copies > hot.limit:
                    return  # it is heavier than it was as bytes
                if entry.array:
                    itself = sys.getsizeof(value)
                elif entry.copies < hit.ROOM_BYTES:
                    itself = weigh(value)
                else:
                    room = hit.Room()
                    try:  # to weigh takes memory itself
                        room.hold(min(entry.copies // 4, OBJECTS_MOST) * WEIGHING_BYTES)
                    except MemoryError:
                        return
                    itself = weigh(value)
                entry.weight = itself + (in_pages(entry.nbytes) if entry.views else 0)
            weight = entry.weight
        was_full = self.natively.front_is_full
        has_room = hot.has_room_for(weight)
        self.natively.front_is_full = not has_room
        if not has_room and isinstance(entry, int):
            # How often a packed value is used is not known; but others go for it.
            self._contests += 1
            if self._contests % _HITS_PER_CONTEST:
                return
        elif not has_room and not was_full:
            return
        self._books.admit(key, entry, value, weight)
