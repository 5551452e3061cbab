"""Frees the memory of large caches in background threads.

A cache of a million entries is cleared or closed at once, and its memory is freed in steps
(clear.c, arena_close.c). A step is short, so that no other thread waits long for the GIL or for the
kernel. In the child of a fork nothing goes on: its cleared entries go as it stores, or with the
cache.
"""

from __future__ import annotations

import atexit
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from vrange._core import hit
from vrange._paused_thread import PATIENCE_SECONDS, PausedThread

Step = Callable[[], bool]
"""Gives a little back, and returns whether some is left."""

_BURIED_AT_ONCE = 256  # entries, between two looks at the clock
_STEP_SECONDS = 0.0005  # with the GIL held; after it other threads run for a moment
_PAUSE_SECONDS = 0.0002

_left: deque[Step] = deque()
_workers: set[PausedThread] = set()
_ends = False  # the process does


def give_back(step: Step) -> bool:
    """Call `step` in the background until nothing is left. False: no thread can be started."""
    _left.append(step)
    if _ends or _start():
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
    workers = [worker for worker in list(_workers) if worker.runs and not worker.is_own]
    patience = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0, patience - time.monotonic()))
    return bool(workers)


def _start() -> bool:
    for ended in [worker for worker in list(_workers) if not worker.is_there()]:
        _workers.discard(ended)
    try:
        worker = PausedThread("vrange-clear", _work)
        worker.start()
    except (RuntimeError, MemoryError):  # without memory for a lock it is a RuntimeError
        return False
    _workers.add(worker)
    return True


def _work(worker: PausedThread) -> bool:
    """Return whether it is done, for a reason that is no pause."""
    while _left and not _ends:
        if worker.is_paused:
            return False
        try:
            step = _left.popleft()
        except IndexError:  # another thread took the last one
            break
        try:
            is_left = _repeat(step, worker)
        except MemoryError:
            _left.append(step)
            raise
        if is_left:
            _left.append(step)
        del step
    return True


def _repeat(step: Step, worker: PausedThread) -> bool:
    """Return whether some is left, because the process forks or ends."""
    begun = time.monotonic()
    while step():
        if time.monotonic() - begun > _STEP_SECONDS:
            if worker.is_paused or _ends:
                return True
            # Without a pause, this thread would win the GIL back before other threads wake up.
            time.sleep(_PAUSE_SECONDS)
            begun = time.monotonic()
    return False


def _end() -> None:
    global _ends
    _ends = True
    wait(PATIENCE_SECONDS)


def _after_fork_in_child() -> None:
    global _ends
    _ends = False
    _workers.clear()
    _left.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_end)
