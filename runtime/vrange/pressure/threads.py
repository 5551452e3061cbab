"""Threads of the system that can be joined, even if the program has patched threading."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Any

from vrange._core import hit, lib
from vrange._system_threads import original

__all__ = ["Thread", "make_lock"]


def make_lock() -> Any:
    """Return a lock on which threads of the system can wait."""
    return original("allocate_lock")()


class Thread:
    """A daemon thread that runs `function` once. Raises RuntimeError if none can be started.

    If memory is too short for that, it runs the function again a second later. `threading` knows
    the thread, because it calls functions of the program.
    """

    def __init__(self, name: str, function: Callable[[], object]) -> None:
        self._name = name
        self._function = function
        self._running = make_lock()
        self._running.acquire()
        self._ident: int | None = None
        self.thread: threading.Thread | None = None  # stays None if threading's are greenlets
        if original("start_new_thread") is _thread.start_new_thread:
            self.thread = threading.Thread(
                target=hit.run_in_background, args=(self._run, False), name=name, daemon=True
            )
            self.thread.start()
        else:
            original("start_new_thread")(hit.run_in_background, (self._run, False))

    def _run(self) -> None:
        self._ident = original("get_ident")()
        lib.vrange_thread_name(self._name.encode(errors="replace"))
        try:
            self._function()
        except MemoryError:
            raise  # it runs again
        except BaseException:
            self._running.release()
            raise
        self._running.release()

    def join(self, timeout: float) -> bool:
        """Wait until it has ended. Return False if it has not, or if it is the calling thread."""
        if self._ident == original("get_ident")():
            return False
        ended: bool = self._running.acquire(timeout=timeout)
        if ended:
            self._running.release()
        return ended
