"""Threads in Python that are not there during a fork, and go on after it in the parent.

CPython 3.12 and later warns of a fork in a process with threads (native/python/fork_hooks.c). It
counts those of the kernel, which has one for a moment after its last instruction in Python.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakSet

from vrange._core import hit, lib
from vrange._system_threads import original, without_signals

__all__ = ["PATIENCE_SECONDS", "PausedThread"]

PATIENCE_SECONDS = 0.2  # of a fork: what a thread does just then may wait for the one that forks
_LOOK_SECONDS = 0.0002


class PausedThread:
    """A thread that calls `function`, which returns soon after it was woken while `is_paused`.

    Parameters
    ----------
    name : str
        The kernel's name of it.
    function : callable
        Called with this object. Return False because of a pause; it is called again after that.
        Return True to end the thread.
    wake : callable, optional
        End a wait of `function` that is not `hit.rest`.

    Notes
    -----
    `threading` does not list it. If memory is too short for the function, it is called again a
    second later. In the child of a fork there is none until `start` is called there.

    """

    def __init__(
        self,
        name: str,
        function: Callable[[PausedThread], bool],
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        self._name = name.encode(errors="replace")
        self._function = function
        self.wake = wake
        self._thread: int | None = None  # the kernel's number of it, once it runs
        self._runs: Any
        self.forget()

    def start(self) -> None:
        """Start it. Raise RuntimeError if no thread can be started."""
        before, runs = self._runs, original("allocate_lock")()
        runs.acquire()
        # The one that a pause ended may still have to release its own lock.
        run = partial(self._run, runs)
        _started.add(self)
        self._runs, self._thread = runs, None
        try:
            with without_signals():
                original("start_new_thread")(hit.run_in_background, (run, False))
        except BaseException:  # it may run all the same: without memory for its number, this raises
            self._runs = before
            raise

    def join(self, timeout: float) -> bool:
        """Wait until it has ended. Return False if it has not, or if it is the calling thread."""
        if self.is_own:
            return False
        ended: bool = self._runs.acquire(timeout=timeout)
        if ended:
            self._runs.release()
        return ended

    @property
    def is_own(self) -> bool:
        """Whether it is the calling thread."""
        return bool(self._thread == original("get_native_id")())

    @property
    def runs(self) -> bool:
        """Whether it has begun and not ended."""
        return bool(self._runs.locked())

    def is_there(self) -> bool:
        """Return whether the kernel has the thread: it has it a little longer than Python."""
        return self.runs or os.path.exists(f"/proc/self/task/{self._thread}")

    def forget(self) -> None:
        """Be as new: in the child of a fork the thread is not there."""
        self.is_paused = False
        self._has_paused = False
        self._turn = original("allocate_lock")()  # between the end of a thread and of its pause
        self._runs = original("allocate_lock")()  # the thread has it
        self._thread = None

    def resume(self) -> None:
        """Go on after a pause. If no thread can be started now, it has ended."""
        with self._turn:
            self.is_paused = False
            again, self._has_paused = self._has_paused, False
        if again:
            with suppress(RuntimeError, MemoryError):
                self.start()

    def _run(self, runs: Any) -> None:
        self._thread = original("get_native_id")()
        lib.vrange_thread_name(self._name)
        try:
            while not self._function(self):
                with self._turn:
                    if self.is_paused:
                        self._has_paused = True
                        break
        except MemoryError:
            raise  # it runs again
        except BaseException:
            runs.release()
            raise
        runs.release()


_started: WeakSet[PausedThread] = WeakSet()


def _pause() -> None:
    threads = [thread for thread in list(_started) if not thread.is_own]
    for thread in threads:
        thread.is_paused = True
    hit.end_rests(True)
    for thread in threads:
        thread.wake()
    patience = time.monotonic() + PATIENCE_SECONDS
    nap = original("allocate_lock")()  # time.sleep() may be gevent's, and run something else
    nap.acquire()
    while any(thread.is_there() for thread in threads) and time.monotonic() < patience:
        nap.acquire(timeout=_LOOK_SECONDS)


def _resume() -> None:
    hit.end_rests(False)
    for thread in list(_started):
        thread.resume()


def _after_fork_in_child() -> None:
    hit.end_rests(False)
    for thread in list(_started):
        thread.forget()
    _started.clear()


hit.around_forks(_pause, _resume)
os.register_at_fork(after_in_child=_after_fork_in_child)
