"""Values that are stale are computed again in the background, and answered meanwhile.

One value is computed by one thread at a time, or one task. If too many threads compute already, the
value stays stale, and the next hit on it asks again: so nothing is queued, and no thread waits for
work. The core stores the result only in place of the stale value itself.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from vrange._cache.native_flights import led_here
from vrange._core import hit

THREADS_MOST = 8
_PAUSE_SECONDS = 1.0  # after a failure: what does not work is not asked at each hit

# Changed without a lock, by single operations of sets and dicts: a hit in a signal handler or a
# finalizer may come here at any moment.
_threads: set[threading.Thread] = set()
_tasks: set[Any] = set()
_all: weakref.WeakSet[Refresher] = weakref.WeakSet()


class _Refresh:
    """One computation."""

    is_left = False  # its result is not to be stored


_here: contextvars.ContextVar[_Refresh | None] = contextvars.ContextVar(
    "vrange_refresh", default=None
)


def leave_unrenewed() -> None:
    """Let what is computed in this context not be stored."""
    refresh = _here.get()
    if refresh is not None:
        refresh.is_left = True


class Refresher:
    """The refreshes of one cache."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, object] = {}
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
        claim = object()
        if self._under_way.setdefault(key, claim) is not claim:
            return
        try:
            if loop is not None:
                task = loop.create_task(self._run_async(core, key, stamp, function))
                _tasks.add(task)  # the loop itself may drop it
                task.add_done_callback(_tasks.discard)
                return
            if len(_threads) >= THREADS_MOST:
                self._under_way.pop(key, None)
                return
            context = contextvars.copy_context()
            thread = threading.Thread(
                target=context.run,
                args=(self._run, core, key, stamp, function, args, kwargs or {}),
                name="vrange-refresh",
                daemon=True,
            )
            _threads.add(thread)
            try:
                thread.start()
            except BaseException:
                _threads.discard(thread)
                raise
        except (RuntimeError, MemoryError):  # no thread can be started, or the loop is closed
            self._under_way.pop(key, None)
        except BaseException:
            self._under_way.pop(key, None)
            raise

    def _run(
        self,
        core: hit.CacheCore,
        key: Hashable,
        stamp: int,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        refresh = _enter()
        begun = time.monotonic_ns()
        try:
            value = function(*args, **kwargs)
            if not refresh.is_left:
                core.renew(key, stamp, value, time.monotonic_ns() - begun)
        except Exception:
            time.sleep(_PAUSE_SECONDS)
            raise  # to threading.excepthook
        finally:
            self._under_way.pop(key, None)
            _threads.discard(threading.current_thread())

    async def _run_async(
        self,
        core: hit.CacheCore,
        key: Hashable,
        stamp: int,
        function: Callable[[], Awaitable[Any]],
    ) -> None:
        refresh = _enter()
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


def _enter() -> _Refresh:
    # The context is the caller's, but this is no part of a computation that the caller leads.
    led_here.set(None)
    refresh = _Refresh()
    _here.set(refresh)
    return refresh


def _after_fork_in_child() -> None:
    _threads.clear()
    _tasks.clear()
    for refresher in list(_all):
        refresher._under_way.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
