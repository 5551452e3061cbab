"""The address space of one cache: reserved as it is used, given back when the cache closes."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from vrange._cgroup.limits import machine_bytes
from vrange._core import ffi, hit
from vrange._counters.account import Account
from vrange._ranges.arena import close_native_arena, open_growing_arena, open_native_arena
from vrange.errors import ArenaFullError

_TIMES_MEMORY = 2


class CacheArena:
    """The arena of one cache.

    It reserves address space in steps as the cache grows, from the budget of all of vrange, up to
    twice the machine's memory. With `wanted`, it reserves so many bytes at once.
    """

    def __init__(self, account: Account, wanted: int | None) -> None:
        self._account = account
        self._lock = threading.RLock()  # of opening and closing
        self._opens = False
        self._wanted = wanted
        _all.add(self)
        self._close_native: Callable[[], object] = lambda: None

    def open(self, core: hit.CacheCore) -> None:
        """Open it and hand it to the core, unless it has one. ArenaFullError without room."""
        with self._lock:
            if core.arena or core.closed:
                return
            if (
                self._opens
            ):  # a signal handler or finalizer uses the cache while this thread opens it
                raise ArenaFullError(f"the arena of {self._account.name!r} is just being opened")
            self._opens = True
            try:
                if self._wanted is None:
                    size = _TIMES_MEMORY * machine_bytes()
                    native = open_growing_arena(size, self._account)
                else:
                    size = self._wanted
                    native = open_native_arena(size, self._account)
            finally:
                self._opens = False
            finalizer = weakref.finalize(self, close_native_arena, native, self._account)
            finalizer.atexit = False
            self._close_native = finalizer
            core.use_arena(int(ffi.cast("uintptr_t", native)), size)

    def close(self) -> None:
        """Give it back. What is pinned stays until its last pin goes."""
        with self._lock:
            self._close_native()


_all: weakref.WeakSet[CacheArena] = weakref.WeakSet()


def _forget_locks() -> None:
    for arena in _all:
        arena._lock = threading.RLock()  # another thread of the parent may have held the old one
        arena._opens = False


os.register_at_fork(after_in_child=_forget_locks)
