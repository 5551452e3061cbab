"""The listener of a cache without Linux, and the lock of that cache: listener.c in Python."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from vrange._cache.parameters import EvictionCause
from vrange._cache.signal_errors import is_of_signal


class Listener:
    """What calls the listener of a cache, and the lock that guards the cache.

    Parameters
    ----------
    listener : callable, optional
        Called with the key and the cause of each entry that the cache removed by itself.

    Attributes
    ----------
    quiet : RLock
        The lock. Its holder does not call the listener; a later holder of `lock` does.
    lock : context manager
        The same lock. Its holder calls the listener once it has released it.

    """

    def __init__(self, listener: Callable[[Any, EvictionCause], object] | None) -> None:
        self._listener = listener
        self.quiet = threading.RLock()
        self.lock: AbstractContextManager[object]
        self.lock = self.quiet if listener is None else _Telling(self)
        self.noted = deque[tuple[Any, EvictionCause]]()

    def note(self, key: Any, cause: EvictionCause) -> None:
        """Note an entry that was removed. The caller holds the lock."""
        if self._listener is not None:
            self.noted.append((key, cause))

    def tell(self) -> None:
        """Call the listener with everything that was noted. The caller does not hold the lock."""
        while self._listener is not None:
            try:
                key, cause = self.noted.popleft()
            except IndexError:
                return
            try:
                self._listener(key, cause)
            except Exception as error:
                if is_of_signal(error):
                    raise
                _Unraisable(error)


class _Telling:
    """The lock of a cache that has a listener."""

    def __init__(self, listener: Listener) -> None:
        self._all = listener
        self._depth = 0  # how often the holder has entered

    def __enter__(self) -> None:
        self._all.quiet.acquire()
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        is_released = not self._depth
        self._all.quiet.release()
        if is_released and self._all.noted:
            self._all.tell()


class _Unraisable:
    """Passes an exception to sys.unraisablehook, which no function of Python does."""

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    def __del__(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
