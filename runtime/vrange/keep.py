"""Keeping: storing what native/keep.c leaves, and making room for it."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

from vrange._core import ffi, hit, lib
from vrange.account import Account
from vrange.books import Books
from vrange.cache_arena import in_pages
from vrange.codec import ARRAY, Large, Small, decode_small, encode
from vrange.errors import ArenaFullError
from vrange.packed import SLAB_BYTES, Slab
from vrange.sizes import format_bytes

_NEVER = float("inf")


class Keep:
    """Stores what one cache is given; the first value reserves its arena."""

    def __init__(self, books: Books, account: Account) -> None:
        self._books = books
        self._account = account
        self._natively = books.keeper
        self._cost_ns = 0  # of the last computation: what a slab's values are taken to cost

    def store(self, key: Hashable, value: Any, cost_ns: int) -> Any:
        """Stores a value that took `cost_ns` to compute (0: not known).

        Returns what the caller is to have: of an ndarray the view that is stored, so that the
        memory is not held twice, or of a small one a copy; else the value itself. TypeError for a
        key that can't be hashed or a value that can't be pickled, ArenaFullError where no room can
        be made.
        """
        kept = self._natively(key, value, cost_ns)
        return self._store_slowly(key, value, cost_ns) if kept is None else kept

    def computed(self, key: Hashable, value: Any, cost_ns: int) -> Any:
        """As `store`, of what was computed: without room for it, it is not cached this time."""
        try:
            return self.store(key, value, cost_ns)
        except ArenaFullError:
            return value

    def _store_slowly(self, key: Hashable, value: Any, cost_ns: int) -> Any:
        hash(key)  # what can't be a key must fail before anything is stored
        encoded = encode(value)
        books = self._books
        if not books.arena.address:
            self._open()
        if cost_ns:
            self._cost_ns = cost_ns
        expires = _NEVER if books.ttl is None else time.monotonic() + books.ttl
        if isinstance(encoded, Small):
            self._store_small(key, encoded, expires)
            # As it comes back from now on, read-only: what the caller made is his own.
            return decode_small(encoded.kind, encoded.data) if encoded.kind == ARRAY else value
        self._refuse_what_never_fits(in_pages(encoded.nbytes))
        lease = self._store_range(encoded, cost_ns, books.uses(key))
        handle = hit.handle(lease)
        entry = hit.Entry(
            handle, encoded.nbytes, encoded.decode, encoded.views, encoded.is_array, expires
        )
        with books.lock:
            if books.arena.closed:
                hit.forget(handle, encoded.nbytes)
                lease.release()  # what is raised keeps this frame alive
                books.arena.check_open()
            books.enter(key, entry)
            books.keep_below_max()
            books.sweep()
        return encoded.decode(lease) if encoded.is_array else value

    def _open(self) -> None:
        arena, keeper = self._books.arena, self._natively
        arena.open()
        keeper.bytes_most = min(keeper.bytes_most, arena.nbytes)
        if self._books.ttl is None:
            keeper.arena = arena.address

    def _store_small(self, key: Hashable, encoded: Small, expires: float) -> None:
        books = self._books
        with books.lock:
            books.arena.check_open()
            books.sweep()
            while True:
                slab = books.packed.slab_with_room(len(encoded.data))
                if slab is None:
                    slab = self._add_slab(len(encoded.data))
                place = books.packed.write(slab, key, encoded.kind, encoded.data, expires)
                if place is not None:
                    break
                books.lose_slab(slab)
            books.enter(key, place)
            books.keep_below_max()

    def _add_slab(self, nbytes: int) -> Slab:
        self._refuse_what_never_fits(SLAB_BYTES)
        books = self._books
        handle = ffi.new("uint64_t *")
        while lib.vrange_allocate(books.arena.native, SLAB_BYTES, handle) < 0:
            if not books.make_room(SLAB_BYTES):
                raise books.arena.full(SLAB_BYTES)
        if self._cost_ns:
            lib.vrange_set_cost(handle[0], self._cost_ns)
        lib.vrange_release(handle[0])
        return books.add_slab(handle[0], nbytes)

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
