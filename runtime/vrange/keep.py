"""Keeping: storing what native/keep.c leaves, and making room for it."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

from vrange._core import hit
from vrange.account import Account
from vrange.books import Books
from vrange.cache_arena import in_pages
from vrange.codec import ARRAY, Large, Small, decode_small, encode
from vrange.errors import ArenaFullError
from vrange.packed import SLAB_BYTES, Slab
from vrange.singleflight import Flight
from vrange.sizes import format_bytes

_NEVER = float("inf")


class Keep:
    """Stores what one cache is given; the first value reserves its arena."""

    def __init__(self, books: Books, account: Account) -> None:
        self._books = books
        self._account = account
        self._natively = books.keeper
        self.lock = books.lock
        self._cost_ns = 0  # of the last computation: what a slab's values are taken to cost

    def store(self, key: Hashable, value: Any, cost_ns: int, flight: Flight | None = None) -> Any:
        """Stores a value that took `cost_ns` to compute (0: not known), by `flight`; where the key
        was set or forgotten since that began, the value is returned and not stored. None: nobody
        computed it, it is set, and what is being computed for the key is stale from now on.

        Returns what the caller is to have: of an ndarray the view that is stored, so that the
        memory is not held twice, or of a small one a copy; else the value itself. TypeError for a
        key that can't be hashed or a value that can't be pickled, ArenaFullError where no room can
        be made.
        """
        kept = self._natively(key, value, cost_ns, flight)
        return self._store_slowly(key, value, cost_ns, flight) if kept is None else kept

    def computed(self, key: Hashable, value: Any, cost_ns: int, flight: Flight) -> Any:
        """As `store`, of what was computed: without room for it, it is not cached this time."""
        try:
            return self.store(key, value, cost_ns, flight)
        except ArenaFullError:
            return value

    def _store_slowly(self, key: Hashable, value: Any, cost_ns: int, flight: Flight | None) -> Any:
        hash(key)  # what can't be a key must fail before anything is stored
        encoded = encode(value)
        books = self._books
        if not books.arena.address:
            self._open()
        if cost_ns:
            self._cost_ns = cost_ns
        expires = _NEVER if books.ttl is None else time.monotonic() + books.ttl
        if isinstance(encoded, Small):
            if not self._store_small(key, encoded, expires, flight):
                return value
            # As it comes back from now on, read-only: what the caller made is his own.
            return decode_small(encoded.kind, encoded.data) if encoded.kind == ARRAY else value
        self._refuse_what_never_fits(in_pages(encoded.nbytes))
        lease = self._store_range(encoded, cost_ns, books.uses(key))
        entry = hit.Entry(
            lease, encoded.nbytes, encoded.decode, encoded.views, encoded.is_array, expires
        )
        try:
            if not books.enter_new(key, entry, flight):
                return value
        except BaseException:
            del entry  # what is raised keeps this frame alive, and must not keep the range
            lease.release()
            raise
        return encoded.decode(lease) if encoded.is_array else value

    def _open(self) -> None:
        arena, keeper = self._books.arena, self._natively
        arena.open()
        keeper.bytes_most = min(keeper.bytes_most, arena.nbytes)
        if self._books.ttl is None:
            keeper.arena = arena.address

    @hit.locked
    def _store_small(
        self, key: Hashable, encoded: Small, expires: float, flight: Flight | None
    ) -> bool:
        books = self._books
        books.arena.check_open()
        if flight is not None and flight.stale:
            return False
        while True:
            slab = books.packed.slab_with_room(len(encoded.data))
            if slab is None:
                slab = self._add_slab(len(encoded.data))
            place = books.packed.write(slab, key, encoded.kind, encoded.data, expires)
            if place is not None:
                break
            books.lose_slab(slab)
        return books.enter_new(key, place, flight)

    def _add_slab(self, nbytes: int) -> Slab:
        self._refuse_what_never_fits(SLAB_BYTES)
        books = self._books
        while True:
            try:
                range_ = hit.allocate(books.arena.opened(), SLAB_BYTES, self._cost_ns)
                break
            except MemoryError:
                if not books.make_room(SLAB_BYTES):
                    raise books.arena.full(SLAB_BYTES) from None
        return books.add_slab(range_, nbytes)

    def _store_range(self, encoded: Large, cost_ns: int, uses: int) -> hit.Lease:
        while True:
            try:
                return hit.store(self._books.arena.opened(), encoded.parts, cost_ns, uses)
            except MemoryError:
                if not self._books.make_room(encoded.nbytes):
                    raise self._books.arena.full(encoded.nbytes) from None

    def _refuse_what_never_fits(self, size: int) -> None:
        """Raises: others must not go first for it."""
        if size <= self._natively.bytes_most:
            return
        if size <= self._natively.max_bytes:
            raise self._books.arena.full(size)
        raise ArenaFullError(
            f"{format_bytes(size)} is more than max_bytes of cache "
            f"{self._account.name!r}, {format_bytes(self._natively.max_bytes)}"
        )
