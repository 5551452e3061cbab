"""The address space of one cache: reserved with its first value, given back when it closes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from vrange._cgroup.limits import machine_bytes
from vrange._core import ffi, hit, lib
from vrange._counters.account import Account
from vrange._ranges.arena import close_native_arena, open_native_arena
from vrange.errors import ArenaFullError
from vrange.sizes import format_bytes

_TIMES_MEMORY = 2
_BYTES_LEAST = 16 << 20
_PAGE: int = lib.vrange_page_bytes()


def in_pages(nbytes: int) -> int:
    """The bytes of the pages that `nbytes` take."""
    return -(-nbytes // _PAGE) * _PAGE


class CacheArena:
    """An arena of `wanted` bytes, or by default of twice the machine's memory, or what a limit on
    address space leaves of that.

    `lock` is the cache's, and of opening and closing. `address` is 0 and `native` None until
    `open`, and once closed.
    """

    def __init__(self, account: Account, lock: hit.Lock, wanted: int | None) -> None:
        self._account = account
        self._lock = lock
        self._wanted = wanted
        self._close_native: Callable[[], object] = lambda: None
        self.native: Any = None
        self.address = 0
        self.nbytes = 0
        self.closed = False

    def open(self) -> None:
        """Reserves it, if need be. ValueError once closed, ArenaFullError without room."""
        if self.address:
            return
        with self._lock:
            self.check_open()
            if self.address:
                return
            size = self._wanted
            if size is None:
                size = _TIMES_MEMORY * machine_bytes()
            while True:
                try:
                    native = open_native_arena(size, self._account)
                    break
                except ArenaFullError:
                    # A limit on address space: take what it leaves, unless a size was asked for.
                    size //= 2
                    if self._wanted is not None or size < _BYTES_LEAST:
                        raise
            finalizer = weakref.finalize(self, close_native_arena, native, self._account)
            finalizer.atexit = False
            self._close_native = finalizer
            self.native = native
            self.nbytes = size
            self.address = int(ffi.cast("uintptr_t", native))

    def close(self) -> None:
        """Gives it back; what somebody has pinned stays until he lets go."""
        self.closed = True
        self._close_native()
        self.native, self.address = None, 0

    def opened(self) -> int:
        """The address of an open arena; ValueError once closed."""
        # Looked at once: another thread may close the cache meanwhile. A closed arena refuses.
        address = self.address
        if not address:
            raise ValueError(self._closed_message())
        return address

    def check_open(self) -> None:
        """Raises ValueError once closed."""
        if self.closed:
            raise ValueError(self._closed_message())

    def full(self, nbytes: int) -> ArenaFullError:
        """What to raise where no room for `nbytes` can be made."""
        return ArenaFullError(
            f"no room for {format_bytes(nbytes)} in cache {self._account.name!r}, which has "
            f"{format_bytes(self.nbytes)} of address space: what is left of it is held"
        )

    def _closed_message(self) -> str:
        return f"cache {self._account.name!r} is closed"
