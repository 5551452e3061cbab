"""Keeping: storing what store.c leaves, and making room for it."""

from __future__ import annotations

import errno
import time
from collections.abc import Hashable
from typing import Any

from vrange._cache.address_space import in_pages
from vrange._cache.codec import (
    ARRAY,
    OTHERS_BYTES,
    STEP_BYTES,
    Large,
    Small,
    Strided,
    decode_small,
    encode,
)
from vrange._cache.index import Books
from vrange._cache.singleflight import Flight
from vrange._cache.slabs import SLAB_BYTES, Slab
from vrange._core import hit, lib
from vrange._counters.account import Account
from vrange._ranges.reserve import ensure_reserve
from vrange.errors import ArenaFullError, VrangeError
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
        memory is not held twice, or of a small one a copy; else the value itself. Also where no
        room can be made: then there is no value under the key, and the account counts a refusal.
        TypeError for a key that can't be hashed or a value that can't be pickled.
        """
        try:
            kept = self._natively(key, value, cost_ns, flight)
            return self._store_slowly(key, value, cost_ns, flight) if kept is None else kept
        except MemoryError:
            return self._refuse(key, value, flight)

    computed = store

    def declined(self, key: Hashable, value: Any, cost_ns: int, flight: Flight) -> Any:
        """As `store`, of what was found to be nothing to store natively."""
        try:
            return self._store_slowly(key, value, cost_ns, flight)
        except MemoryError:
            return self._refuse(key, value, flight)

    def _refuse(self, key: Hashable, value: Any, flight: Flight | None) -> Any:
        lib.vrange_account_refused(self._account.pointer)
        if flight is None:
            self._books.forget(key)  # what was there is not the key's value any more
        return value

    def _store_slowly(self, key: Hashable, value: Any, cost_ns: int, flight: Flight | None) -> Any:
        hash(key)  # what can't be a key must fail before anything is stored
        books = self._books
        if not books.arena.address:
            ensure_reserve()  # which finds the limits that there has to be room below
        room = hit.Room()
        encoded = encode(value, room, self._natively.bytes_most)
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
        lease = self._store_range(encoded, cost_ns, books.uses(key), room)
        entry = hit.Entry(
            lease,
            encoded.nbytes,
            encoded.decode,
            encoded.views,
            encoded.is_array,
            expires,
            encoded.copies,
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

    def _store_range(self, encoded: Large, cost_ns: int, uses: int, room: hit.Room) -> hit.Lease:
        in_pieces = encoded.needs_pieces or (
            encoded.nbytes >= hit.ROOM_BYTES and lib.vrange_rung() != lib.VRANGE_RUNG_REFAULT
        )
        was_lost = False
        while True:
            arena = self._books.arena.opened()
            try:
                if not in_pieces:
                    return hit.store(arena, tuple(encoded.parts), cost_ns, uses)
                lease = hit.blank(arena, encoded.nbytes, cost_ns, uses)
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # What seemed free was not, or is in use by now. Once more, with more room.
                if was_lost:
                    raise MemoryError("what was free is in use by now") from None
                was_lost = True
                room.hold(encoded.nbytes + OTHERS_BYTES)
            except MemoryError:
                if not self._books.make_room(encoded.nbytes):
                    raise self._books.arena.full(encoded.nbytes) from None
        try:
            self._write(lease, encoded, room)
            return hit.sealed(lease)  # nobody can write to it any more
        finally:
            del lease  # what is raised keeps this frame alive

    def _write(self, lease: hit.Lease, encoded: Large, room: hit.Room) -> None:
        """Writes the parts one after the other; what is nobody else's goes as it is written."""

        def before_step(left: int) -> None:
            room.hold(left + OTHERS_BYTES)

        owed = encoded.nbytes - encoded.temporary
        parts, at, asked_at = encoded.parts, 0, 0
        parts.reverse()
        while parts:
            part = parts.pop()
            if type(part) is Strided:
                part.write(lease, before_step)
                return
            # The length of an array is that of its first axis.
            done, nbytes = 0, len(part) if type(part) is str else memoryview(part).nbytes
            while done < nbytes:
                if at + done >= asked_at:
                    # What was written is there, and what goes for it may not be gone yet.
                    before_step(max(0, owed - at - done))
                    asked_at = at + done + STEP_BYTES
                done += hit.write(lease, at + done, part, done, STEP_BYTES)
            at += nbytes
        if at != encoded.nbytes:  # what is not written would be read as zeros
            raise VrangeError(f"{at} bytes were written of {encoded.nbytes}")

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
