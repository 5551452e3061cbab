"""Frees the memory of large caches in background threads.

A cache of a million entries is cleared or closed at once, and its memory is freed in steps
(clear.c, arena_close.c). A step is short, so that no other thread waits long for the GIL or for the
kernel. Before a fork the threads end, and they go on after it in the parent: CPython 3.12 and later
warns of a fork in a process with threads. In the child nothing goes on: its cleared entries go as
it stores, or with the cache.
"""

from __future__ import annotations

import _thread
import atexit
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Event

from vrange._core import hit, lib

Step = Callable[[], bool]
"""Gives a little back, and returns whether some is left."""

_BURIED_AT_ONCE = 256  # entries, between two looks at the clock
_STEP_SECONDS = 0.0005  # with the GIL held; after it other threads run for a moment
_PAUSE_SECONDS = 0.0002
_PATIENCE_SECONDS = 0.2  # of a fork: dropping a reference may run a finalizer that waits for it

_left: deque[Step] = deque()
_workers: set[_Worker] = set()
_stops = False  # the process forks or ends


class _Worker:
    """A thread that gives back what is left.

    It is no threading.Thread: an exception that a signal handler raises inside of `Thread.start()`
    can leave a thread that never runs and is listed for ever.
    """

    def __init__(self) -> None:
        self._ended = Event()
        self.thread: int | None = None  # the kernel's number of it, once it runs

    def run(self) -> None:
        try:
            self.thread = _thread.get_native_id()
            lib.vrange_thread_name(b"vrange-clear")
            _work()
        except MemoryError:
            pass  # what is left is for the next thread, or for the cache's stores
        finally:
            self._ended.set()

    @property
    def is_other(self) -> bool:
        """Whether it works, in another thread than the caller's."""
        return not self._ended.is_set() and self.thread != _thread.get_native_id()

    def wait(self, seconds: float) -> None:
        self._ended.wait(seconds)

    def is_there(self) -> bool:
        """Return whether the kernel has the thread: it has it a little longer than Python."""
        return not self._ended.is_set() or os.path.exists(f"/proc/self/task/{self.thread}")


def give_back(step: Step) -> bool:
    """Call `step` in the background until nothing is left. False: no thread can be started."""
    _left.append(step)
    if _stops or _start():
        return True
    try:
        _left.remove(step)
    except ValueError:  # a thread that was there has taken it
        return True
    return False


def bury(core: hit.CacheCore) -> None:
    """Give back what `core` has cleared. Without a thread, its stores do it."""
    give_back(partial(core.bury, _BURIED_AT_ONCE))


def wait(seconds: float) -> bool:
    """Wait for what is being given back. Return whether there was anything."""
    workers = [worker for worker in list(_workers) if worker.is_other]
    patience = time.monotonic() + seconds
    for worker in workers:
        worker.wait(max(0, patience - time.monotonic()))
    return bool(workers)


def _start() -> bool:
    for ended in [worker for worker in list(_workers) if not worker.is_there()]:
        _workers.discard(ended)
    try:
        worker = _Worker()
        _thread.start_new_thread(worker.run, ())
    except (RuntimeError, MemoryError):  # without memory for a lock it is a RuntimeError
        return False
    _workers.add(worker)
    return True


def _work() -> None:
    while _left and not _stops:
        try:
            step = _left.popleft()
        except IndexError:  # another thread took the last one
            return
        try:
            is_left = _repeat(step)
        except MemoryError:
            _left.append(step)
            raise
        if is_left:
            _left.append(step)
        del step


def _repeat(step: Step) -> bool:
    """Return whether some is left, because the process forks or ends."""
    begun = time.monotonic()
    while step():
        if time.monotonic() - begun > _STEP_SECONDS:
            if _stops:
                return True
            # Without a pause, this thread would win the GIL back before other threads wake up.
            time.sleep(_PAUSE_SECONDS)
            begun = time.monotonic()
    return False


def _stop() -> None:
    global _stops
    _stops = True
    own = _thread.get_native_id()
    workers = [worker for worker in list(_workers) if worker.thread != own]
    patience = time.monotonic() + _PATIENCE_SECONDS
    while any(worker.is_there() for worker in workers):
        if time.monotonic() > patience:
            return
        time.sleep(_PAUSE_SECONDS)


def _after_fork_in_parent() -> None:
    global _stops
    _stops = False
    if _left:
        _start()


def _after_fork_in_child() -> None:
    global _stops
    _stops = False
    _workers.clear()
    _left.clear()


os.register_at_fork(
    before=_stop,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
atexit.register(_stop)
