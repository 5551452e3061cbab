"""The listener of a cache without Linux: listener.c in Python."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vrange._cache.parameters import EvictionCause


class TellingLock:
    """A lock whose holder, once it has released it, calls the listener with what was noted.

    Parameters
    ----------
    listener : callable, optional
        Called with the key and the cause of each entry that the cache removed by itself.

    """

    def __init__(self, listener: Callable[[Any, EvictionCause], object] | None) -> None:
        self._listener = listener
        self._lock = threading.RLock()
        self._depth = 0  # how often the holder has entered
        self._noted = deque[tuple[Any, EvictionCause]]()

    def note(self, key: Any, cause: EvictionCause) -> None:
        """Note an entry that was removed. The caller holds the lock."""
        if self._listener is not None:
            self._noted.append((key, cause))

    def tell(self) -> None:
        """Call the listener with everything that was noted. The caller does not hold the lock."""
        while self._listener is not None:
            try:
                key, cause = self._noted.popleft()
            except IndexError:
                return
            try:
                self._listener(key, cause)
            except Exception as error:
                _Unraisable(error)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Hold the lock, and leave it to a later holder to call the listener."""
        with self._lock:
            yield

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        is_released = not self._depth
        self._lock.release()
        if is_released and self._noted:
            self.tell()


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
