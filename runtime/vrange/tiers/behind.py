"""Writes to a lower tier, off the path of callers: a bounded queue and a thread.

The queue holds keys, not values: the thread reads a value in the cache when its turn comes. So
waiting values can still be taken by the kernel, and a value that is gone by then is not written.
"""

from __future__ import annotations

import _thread
import atexit
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = ["FLUSH_SECONDS", "Behind", "Waiting"]

FLUSH_SECONDS = 5.0  # how long close() and the end of the process wait for the queue
_MOST = 4096
_FIRST_SECONDS = 0.02  # a value is stored in memory right after its key was queued
_TRIES = 3
_IDLE_SECONDS = 0.1  # CPython 3.12 and later warns of a fork while the thread is there


@dataclass(eq=False)
class Waiting:
    """A key whose value is to be written.

    Attributes
    ----------
    digest : str
        The key's digest.
    key : Hashable
        The key, as in the cache.
    ticket : Any
        What the tier knew when the computation began.
    expires : float or None
        When the value expires, by `time.time`.
    cost : float or None
        The seconds that its computation took.

    """

    digest: str
    key: Hashable
    ticket: Any
    expires: float | None
    cost: float | None
    tries: int = 0
    due: float = field(default_factory=lambda: time.monotonic() + _FIRST_SECONDS)
    is_cancelled: bool = False


class _Life:
    """What a thread holds as long as it runs."""


class Behind:
    """The queue of one cache.

    Parameters
    ----------
    write : callable
        Called in the thread with each of the queue. It returns whether that is done; if not, it is
        called again later, a few times.
    dropped : callable
        Called for each that is not written.
    ended : callable
        Called at the end of a thread, in it.

    """

    _all: ClassVar[weakref.WeakSet[Behind]] = weakref.WeakSet()

    def __init__(
        self,
        write: Callable[[Waiting], bool],
        dropped: Callable[[], object],
        ended: Callable[[], object],
    ) -> None:
        self._write, self._dropped, self._ended = write, dropped, ended
        self._forget()
        self._all.add(self)

    def _forget(self) -> None:
        self._changed = threading.Condition(threading.RLock())  # a finalizer may use the cache
        self._queue: OrderedDict[str, Waiting] = OrderedDict()
        self._writing: Waiting | None = None
        self._thread: weakref.ref[_Life] | None = None
        self._hurries = False

    @property
    def _has_thread(self) -> bool:
        return self._thread is not None and self._thread() is not None

    def __len__(self) -> int:
        return len(self._queue) + (self._writing is not None)

    def add(self, waiting: Waiting) -> None:
        """Add a key. It takes the place of an earlier one of the same digest."""
        with self._changed:
            self._cancel(waiting.digest)
            if len(self._queue) >= _MOST:
                self._dropped()
                return
            self._queue[waiting.digest] = waiting
            self._start()
            self._changed.notify_all()

    def cancel(self, digest: str, seconds: float = FLUSH_SECONDS) -> None:
        """Take a key out. If it is being written, wait until that has ended, so long at most."""
        until = time.monotonic() + seconds
        with self._changed:
            writing = self._cancel(digest)
            while writing is not None and self._writing is writing:
                left = until - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def cancel_all(self) -> None:
        """Take all keys out."""
        with self._changed:
            self._queue.clear()
            if self._writing is not None:
                self._writing.is_cancelled = True
            self._changed.notify_all()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until the queue is empty, so long at most. Return whether it is."""
        until = time.monotonic() + seconds
        with self._changed:
            self._hurries = True
            self._changed.notify_all()
            try:
                while len(self):
                    left = until - time.monotonic()
                    if left <= 0 or not self._has_thread:
                        return False
                    self._changed.wait(left)
            finally:
                self._hurries = False
        return True

    def _cancel(self, digest: str) -> Waiting | None:
        self._queue.pop(digest, None)
        writing = self._writing
        if writing is None or writing.digest != digest:
            return None
        writing.is_cancelled = True
        return writing

    # ---- the thread ----------------------------------------------------------------------------

    def _start(self) -> None:
        if self._has_thread:
            return
        # A thread that gets no memory for its beginning is gone with its life, and the next store
        # starts another one. threading.Thread.start would wait for it for ever.
        life = _Life()
        self._thread = weakref.ref(life)
        try:
            _thread.start_new_thread(self._run, (life,))
        except (RuntimeError, MemoryError):  # the interpreter ends, or no thread can start
            self._thread = None
            self._queue.clear()
            self._dropped()

    def _run(self, life: _Life) -> None:
        try:
            self._write_all()
        finally:
            with suppress(Exception):
                self._ended()

    def _write_all(self) -> None:
        while (waiting := self._next()) is not None:
            is_done = True
            try:
                is_done = self._write(waiting)
            except Exception:  # of code that this thread runs for the cache, such as a warning
                self._dropped()
            with self._changed:
                self._writing = None
                if not is_done and not waiting.is_cancelled:
                    self._try_again(waiting)
                self._changed.notify_all()

    def _next(self) -> Waiting | None:
        """Return the next one, which is being written from now on; None after a long wait."""
        idle_until = time.monotonic() + _IDLE_SECONDS
        with self._changed:
            while True:
                now = time.monotonic()
                if self._queue:
                    first = next(iter(self._queue.values()))
                    if first.due > now:
                        first = min(self._queue.values(), key=lambda waiting: waiting.due)
                    if first.due <= now or self._hurries:
                        self._writing = self._queue.pop(first.digest)
                        return self._writing
                    self._changed.wait(first.due - now)
                elif now >= idle_until:
                    self._thread = None
                    return None
                else:
                    self._changed.wait(idle_until - now)

    def _try_again(self, waiting: Waiting) -> None:
        waiting.tries += 1
        if waiting.tries >= _TRIES or waiting.digest in self._queue:
            self._dropped()
            return
        waiting.due = time.monotonic() + _FIRST_SECONDS * 10**waiting.tries
        self._queue[waiting.digest] = waiting


def _flush_all() -> None:
    until = time.monotonic() + FLUSH_SECONDS
    for behind in list(Behind._all):
        with suppress(Exception):
            behind.flush(max(0.0, until - time.monotonic()))


def _forget_all() -> None:
    # The child of a fork writes what it computes itself. The queue is its parent's.
    for behind in list(Behind._all):
        behind._forget()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
