"""When the child of a fork has begun to work for itself.

Until then it may be about to execute another program, after it has left namespaces, limited itself
or given up rights. A thread is in the way of that: `unshare(CLONE_NEWUSER)` fails in a process with
threads, and credentials are changed for one thread only. So vrange starts none before the child has
made so many objects that the garbage collector ran, or is one of multiprocessing's, which execute
nothing.
"""

from __future__ import annotations

import _thread
import gc
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from vrange._core import hit
from vrange._system_threads import without_signals

__all__ = ["when_working"]

_MOST_OBJECTS = 20_000  # between two collections; with more, a child may never have one

_waiting: deque[Callable[[], object]] = deque()
_with_multiprocessing = False  # its children say when they begin


def when_working(start: Callable[[], object]) -> None:
    """Call `start` in a thread of vrange's, once this child works. Call it from an after-fork hook.

    Parameters
    ----------
    start : callable
        It must not raise. It is dropped if no thread can be started.

    Notes
    -----
    In a child of this child it is forgotten: hooks of that fork may ask again.

    """
    global _with_multiprocessing
    _waiting.append(start)
    if not gc.isenabled() or not 0 < gc.get_threshold()[0] <= _MOST_OBJECTS:
        if not _is_in_subprocess():
            _begin()
        return
    if _collected not in gc.callbacks:
        gc.callbacks.append(_collected)
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _with_multiprocessing:
        _with_multiprocessing = True
        util.register_after_fork(_begin, _call)


def _is_in_subprocess() -> bool:
    """Whether `subprocess` made this child for a `preexec_fn`, with the collector off."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != "subprocess":
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name == "_execute_child"


def _call(function: Callable[[], None]) -> None:
    function()


def _collected(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop":
        _begin()
        # Another place than the last would make the collector leave out the callback after it.
        if gc.callbacks and gc.callbacks[-1] is _collected:
            gc.callbacks.pop()


def _begin() -> None:
    # In a thread: this code runs wherever the program has made an object, perhaps within a lock.
    if _waiting:
        with suppress(RuntimeError, MemoryError), without_signals():
            _thread.start_new_thread(hit.run_in_background, (_start, False))


def _start() -> None:
    while _waiting:
        try:
            start = _waiting.popleft()
        except IndexError:  # another thread took the last one
            return
        start()


os.register_at_fork(after_in_child=_waiting.clear)
