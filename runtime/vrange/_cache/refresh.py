"""Values that are stale are computed again in the background, and answered meanwhile.

One value is computed by one thread at a time, or one task. If too many threads compute already, the
value stays stale, and the next hit on it asks again: so nothing is queued, and no thread waits for
work. The core stores the result only in place of the stale value itself.

A hit in a signal handler may come here at any moment, and a handler may raise at any line. So there
is no lock, and what says that a value is being computed is a weak reference to what its thread or
task holds: if none was started, it is gone. `threading.Thread.start` is not safe from such
exceptions, `_thread.start_new_thread` is.
"""

from __future__ import annotations

import _thread
import contextvars
import os
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Any

from vrange._cache.native_flights import led_here
from vrange._core import hit

THREADS_MOST = 8
_PAUSE_SECONDS = 1.0  # after a failure: what does not work is not asked at each hit


class _Refresh:
    """One computation. It lives as long as the thread or the task that computes."""

    is_left = False  # its result is not to be stored


_threads: set[weakref.ref[_Refresh]] = set()
_tasks: set[Any] = set()  # the loop itself may drop them
_all: weakref.WeakSet[Refresher] = weakref.WeakSet()
_here: contextvars.ContextVar[_Refresh | None] = contextvars.ContextVar(
    "vrange_refresh", default=None
)


def leave_unrenewed() -> None:
    """Let what is computed in this context not be stored."""
    refresh = _here.get()
    if refresh is not None:
        refresh.is_left = True


def threads() -> int:
    """Return how many threads compute."""
    for one in list(_threads):
        if one() is None:
            _threads.discard(one)
    return len(_threads)


class Refresher:
    """The refreshes of one cache."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, weakref.ref[_Refresh]] = {}
        _all.add(self)

    def begin(
        self,
        core: hit.CacheCore,
        key: Hashable,
        stamp: int,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        loop: Any,
    ) -> None:
        """Compute the value again, in a task of `loop` or in a thread, unless that is under way."""
        refresh = _Refresh()
        mine = weakref.ref(refresh)
        there = self._under_way.setdefault(key, mine)
        if there is not mine:
            if there() is not None:
                return
            self._under_way[key] = mine
        if loop is not None:
            task = loop.create_task(self._run_async(refresh, core, key, stamp, function))
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)
        elif threads() < THREADS_MOST:
            _threads.add(mine)
            arguments = refresh, core, key, stamp, function, args, kwargs or {}
            with suppress(RuntimeError, MemoryError):  # no thread starts: a later hit tries again
                _thread.start_new_thread(contextvars.copy_context().run, (self._run, *arguments))

    def _run(
        self,
        refresh: _Refresh,
        core: hit.CacheCore,
        key: Hashable,
        stamp: int,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        _enter(refresh)
        begun = time.monotonic_ns()
        try:
            value = function(*args, **kwargs)
            if not refresh.is_left:
                core.renew(key, stamp, value, time.monotonic_ns() - begun)
        except Exception as error:
            thread = threading.current_thread()
            threading.excepthook(
                threading.ExceptHookArgs((type(error), error, error.__traceback__, thread))
            )
            time.sleep(_PAUSE_SECONDS)
        finally:
            self._under_way.pop(key, None)
            _threads.discard(weakref.ref(refresh))

    async def _run_async(
        self,
        refresh: _Refresh,
        core: hit.CacheCore,
        key: Hashable,
        stamp: int,
        function: Callable[[], Awaitable[Any]],
    ) -> None:
        _enter(refresh)
        begun = time.monotonic_ns()
        try:
            value = await function()
            if not refresh.is_left:
                core.renew(key, stamp, value, time.monotonic_ns() - begun)
        except Exception:
            await sys.modules["asyncio"].sleep(_PAUSE_SECONDS)
            raise  # to the loop's exception handler
        finally:
            self._under_way.pop(key, None)


def _enter(refresh: _Refresh) -> None:
    # The context is the caller's, but this is no part of a computation that the caller leads.
    led_here.set(None)
    _here.set(refresh)


def _after_fork_in_child() -> None:
    _threads.clear()
    _tasks.clear()
    for refresher in list(_all):
        refresher._under_way.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
