"""Calling the user's callbacks with a level: never on the native thread, and without any waiting.

A plain function is called on a thread of its own. With an event loop, functions and coroutine
functions run on the loop. A callback is not called again while it runs; changes meanwhile are
counted as skipped. When it returns, it is called again if the level has changed meanwhile.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vrange._core import lib
from vrange.pressure.levels import Level, level_of, read_watcher
from vrange.pressure.threads import Thread, make_lock

if TYPE_CHECKING:
    import asyncio

__all__ = ["Callback", "CallbackInfo", "Level", "LevelChange", "LoopCallback", "ThreadCallback"]


@dataclass(frozen=True)
class LevelChange:
    """The argument of a callback: the level now, and the level of its previous call.

    Attributes
    ----------
    level, before : {"normal", "elevated", "critical"}
        The level now, and the one that this callback was called with before.
    used_bytes, limit_bytes : int
        The usage without what the kernel can reclaim at once, and the limit.
    stalled : float
        The fraction of time in which tasks waited for memory.
    source : str
        The directory of the cgroup that has the limit, or "machine".

    """

    level: Level
    before: Level
    used_bytes: int
    limit_bytes: int
    stalled: float
    source: str


OnLevel = Callable[[LevelChange], Any]


@dataclass(frozen=True)
class CallbackInfo:
    """The counts of one callback.

    Attributes
    ----------
    name : str
        The callback's name.
    calls, failures : int
        How often it was called, and how often it raised.
    skipped : int
        How often it was not called, because it was still running or had been called a moment
        before.
    running : bool
        Whether it runs now.

    """

    name: str
    calls: int
    failures: int
    skipped: int
    running: bool


class Callback:
    """The part that both kinds share. Only the dispatcher calls `offer` and `due`."""

    def __init__(self, function: OnLevel, min_interval: float) -> None:
        self.function = function
        self.name = getattr(function, "__qualname__", None) or repr(function)
        self.told: Level = "normal"
        self.running = False
        self.calls = self.failures = self.skipped = 0
        self._min_interval = min_interval
        self._free_at = 0.0

    def due(self) -> float | None:
        """Return the seconds until it may be called again, or None while it runs."""
        return None if self.running else max(0.0, self._free_at - time.monotonic())

    def skip(self) -> None:
        """Count a change for which it is not called now."""
        self.skipped += 1
        lib.vrange_pressure_acted(lib.VRANGE_PRESSURE_CALLBACK, lib.VRANGE_PRESSURE_SKIPPED, 0)

    def offer(self, change: LevelChange) -> None:
        """Start the call and return at once."""
        self.running = True
        self.calls += 1
        self.told = change.level
        self._free_at = time.monotonic() + self._min_interval
        try:
            self._start(change)
        except Exception as error:  # for example, the loop is closed
            self._done(error)

    def _start(self, change: LevelChange) -> None:
        raise NotImplementedError

    def _report(self, error: BaseException) -> None:
        raise NotImplementedError

    def _done(self, error: BaseException | None) -> None:
        outcome = lib.VRANGE_PRESSURE_DONE
        if error is not None:
            self.failures += 1
            outcome = lib.VRANGE_PRESSURE_FAILED
            self._report(error)
        lib.vrange_pressure_acted(lib.VRANGE_PRESSURE_CALLBACK, outcome, 0)
        self.running = False
        # Last: if a change came earlier, the dispatcher found it running and will call it again.
        if level_of(read_watcher()) != self.told:
            lib.vrange_pressure_poke()

    def info(self) -> CallbackInfo:
        """Return its counts."""
        return CallbackInfo(self.name, self.calls, self.failures, self.skipped, self.running)

    def close(self, wait: float) -> None:
        """Close it; if it is running, wait for at most `wait` seconds."""


class ThreadCallback(Callback):
    """A callback that is called on a thread of its own."""

    def __init__(self, function: OnLevel, min_interval: float) -> None:
        super().__init__(function, min_interval)
        self._change: LevelChange | None = None
        self._closed = False
        self._wake = make_lock()
        self._wake.acquire()
        self._thread = Thread(f"vrange-pressure-{self.name}", self._run)

    def _start(self, change: LevelChange) -> None:
        self._change = change
        self._wake.release()

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            change, self._change = self._change, None
            if change is None:
                return
            try:
                self.function(change)
            except BaseException as error:  # SystemExit ends nothing here either
                self._done(error)
            else:
                self._done(None)
            if self._closed:
                return

    def _report(self, error: BaseException) -> None:
        thread = self._thread.thread
        arguments = threading.ExceptHookArgs((type(error), error, error.__traceback__, thread))
        try:
            threading.excepthook(arguments)
        except Exception:  # the program replaced the hook with a broken one
            threading.__excepthook__(arguments)

    def close(self, wait: float) -> None:
        """End the thread, after the call that it is in."""
        self._closed = True
        if not self.running:
            self._wake.release()
        self._thread.join(wait)


class LoopCallback(Callback):
    """A callback that is scheduled on an event loop. A coroutine runs there as a task."""

    def __init__(
        self, function: OnLevel, min_interval: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(function, min_interval)
        self._loop = loop

    def due(self) -> float | None:
        """Return the same as the base class; None once the loop is closed."""
        if self._loop.is_closed():
            return None
        return super().due()

    def _start(self, change: LevelChange) -> None:
        self._loop.call_soon_threadsafe(self._call, change)

    def _report(self, error: BaseException) -> None:
        where = "a pressure callback"
        context = {"message": f"{where} raised: {self.name}", "exception": error}
        if self._loop.is_closed():
            context["message"] = f"{where} can't be called, its loop is closed: {self.name}"
        self._loop.call_exception_handler(context)

    def _call(self, change: LevelChange) -> None:
        try:
            result = self.function(change)
            if inspect.iscoroutine(result):
                task = self._loop.create_task(self._await(result))
                _tasks.add(task)
                task.add_done_callback(_tasks.discard)
                return
        except Exception as error:
            self._done(error)
        except BaseException as error:
            self._done(error)
            raise  # KeyboardInterrupt and SystemExit are for the loop to handle
        else:
            self._done(None)

    async def _await(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        import asyncio

        try:
            await coroutine
        except asyncio.CancelledError:
            self._done(None)  # the loop is shutting down
            raise
        except Exception as error:
            self._done(error)
        else:
            self._done(None)


_tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly
