"""Frees the memory of large caches in background threads.

A cache of a million entries is cleared or closed at once, and its memory is freed in steps
(clear.c, arena_close.c). A step is short, so that no other thread waits long for the GIL or for the
kernel. Before a fork the threads end, and they go on after it in the parent: CPython 3.12 and later
warns of a fork in a process with threads. In the child nothing goes on: its cleared entries go as
it stores, or with the cache.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from vrange._core import hit, lib

Step = Callable[[], bool]
"""Gives a little back, and returns whether some is left."""

_BURIED_AT_ONCE = 256  # entries, between two looks at the clock
_STEP_SECONDS = 0.0005  # with the GIL held; after it other threads run for a moment
_PAUSE_SECONDS = 0.0002
_PATIENCE_SECONDS = 0.2  # of a fork: dropping a reference may run a finalizer that waits for it

_left: deque[Step] = deque()
_threads: set[threading.Thread] = set()
_forks = False


def give_back(step: Step) -> bool:
    """Call `step` in the background until nothing is left. False: no thread can be started."""
    _left.append(step)
    if _forks or _start():
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
    own = threading.current_thread()
    threads = [thread for thread in list(_threads) if thread is not own and thread.is_alive()]
    patience = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, patience - time.monotonic()))
    return bool(threads)


def _start() -> bool:
    for ended in [thread for thread in list(_threads) if not thread.is_alive()]:
        _threads.discard(ended)
    thread = threading.Thread(target=_work, name="vrange-clear")
    try:
        thread.start()
    except RuntimeError:
        return False
    _threads.add(thread)
    return True


def _work() -> None:
    lib.vrange_thread_name(b"vrange-clear")
    while _left and not _forks:
        with suppress(IndexError):  # another thread took the last one
            step = _left.popleft()
            if _repeat(step):
                _left.append(step)
            del step


def _repeat(step: Step) -> bool:
    """Return whether some is left, because the process forks."""
    begun = time.monotonic()
    while step():
        if time.monotonic() - begun > _STEP_SECONDS:
            if _forks:
                return True
            # Without a pause, this thread would win the GIL back before other threads wake up.
            time.sleep(_PAUSE_SECONDS)
            begun = time.monotonic()
    return False


def _before_fork() -> None:
    global _forks
    _forks = True
    own = threading.get_native_id()
    ending = [thread.native_id for thread in list(_threads) if thread.native_id != own]
    patience = time.monotonic() + _PATIENCE_SECONDS
    # A thread has ended when the kernel says so: Python's join() returns a little earlier.
    while any(os.path.exists(f"/proc/self/task/{thread}") for thread in ending):
        if time.monotonic() > patience:
            return
        time.sleep(_PAUSE_SECONDS)


def _after_fork_in_parent() -> None:
    global _forks
    _forks = False
    if _left:
        _start()


def _after_fork_in_child() -> None:
    global _forks
    _forks = False
    _threads.clear()
    _left.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
