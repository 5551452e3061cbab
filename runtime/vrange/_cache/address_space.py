"""The address space of one cache: reserved as the cache grows, freed when the cache closes."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from vrange._cache import background_release
from vrange._cgroup.limits import machine_bytes
from vrange._core import ffi, hit, lib
from vrange._counters.account import Account
from vrange._ranges.arena import open_growing_arena, open_native_arena
from vrange.errors import ArenaFullError

_TIMES_MEMORY = 2
_CLOSED_BY_CALLER = 16 << 20  # bytes: a few milliseconds; what is more goes in the background
_CLOSED_AT_ONCE = 256 << 10
_WAIT_SECONDS = 2.0


class CacheArena:
    """The arena of one cache.

    It reserves address space in steps as the cache grows, up to twice the machine's memory, and
    within the budget of all of vrange. With `wanted`, it reserves that many bytes at once.
    """

    def __init__(self, account: Account, wanted: int | None) -> None:
        self._account = account
        self._lock = threading.RLock()  # guards opening and closing
        self._opens = False
        self._wanted = wanted
        _all.add(self)
        self._close_native: Callable[[], object] = lambda: None

    def open(self, core: hit.CacheCore) -> None:
        """Open the arena for the core, unless it has one. ArenaFullError without address space."""
        with self._lock:
            if core.arena or core.closed:
                return
            if self._opens:  # a signal handler or finalizer, while this thread opens the arena
                raise ArenaFullError(f"the arena of {self._account.name!r} is being opened")
            self._opens = True
            try:
                try:
                    native, size = self._open_native()
                except ArenaFullError:
                    if not background_release.wait(_WAIT_SECONDS):
                        raise
                    native, size = self._open_native()
            finally:
                self._opens = False
            finalizer = weakref.finalize(self, _close, native, self._account)
            finalizer.atexit = False
            self._close_native = finalizer
            core.use_arena(int(ffi.cast("uintptr_t", native)), size, self._wanted is None)

    def _open_native(self) -> tuple[Any, int]:
        if self._wanted is None:
            size = _TIMES_MEMORY * machine_bytes()
            return open_growing_arena(size, self._account), size
        return open_native_arena(self._wanted, self._account), self._wanted

    def close(self) -> None:
        """Close the arena. A pinned range stays valid until its last pin is dropped."""
        with self._lock:
            self._close_native()


def _close(native: Any, account: Account) -> None:
    if not lib.vrange_arena_close_some(native, _CLOSED_BY_CALLER):
        return
    if not background_release.give_back(partial(_close_some, native, account)):
        lib.vrange_arena_close(native)


def _close_some(native: Any, account: Account) -> bool:
    """Return whether some is left. The account is an argument so that it outlives the arena."""
    return bool(lib.vrange_arena_close_some(native, _CLOSED_AT_ONCE))


_all: weakref.WeakSet[CacheArena] = weakref.WeakSet()


def _forget_locks() -> None:
    for arena in _all:
        arena._lock = threading.RLock()  # another thread of the parent may have held the old one
        arena._opens = False


os.register_at_fork(after_in_child=_forget_locks)
