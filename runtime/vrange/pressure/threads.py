"""Threads of the system, whatever the program has put in threading's place.

gevent's monkey patches make greenlets of threads: one that waits in native code would stop the
whole program. What is patched is asked for its original.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Thread", "make_lock"]


def _original(name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original("_thread", name)  # itself where it is not patched
    return getattr(_thread, name)


def make_lock() -> Any:
    """A lock that threads of the system may wait for."""
    return _original("allocate_lock")()


class Thread:
    """A daemon thread that runs `function` once. RuntimeError where none can be had."""

    def __init__(self, name: str, function: Callable[[], object]) -> None:
        self._function = function
        self._running = make_lock()
        self._running.acquire()
        self._ident: int | None = None
        self.thread: threading.Thread | None = None  # None where threading's are greenlets
        if _original("start_new_thread") is _thread.start_new_thread:
            self.thread = threading.Thread(target=self._run, name=name, daemon=True)
            self.thread.start()
        else:
            _original("start_new_thread")(self._run, ())

    def _run(self) -> None:
        self._ident = _original("get_ident")()
        try:
            self._function()
        finally:
            self._running.release()

    def join(self, timeout: float) -> bool:
        """Waits until it has ended; False where it has not, or is the calling thread itself."""
        if self._ident == _original("get_ident")():
            return False
        ended: bool = self._running.acquire(timeout=timeout)
        if ended:
            self._running.release()
        return ended
