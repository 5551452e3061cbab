"""Telling users of a level: never on the native thread, and nobody waits for anybody.

A plain function is called on a thread that belongs to it alone; with an event loop, functions and
coroutine functions run there. While one runs it is not called again. What changed meanwhile is
counted as skipped, and the level of then is told once it is back, if it is another than it knows.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from vrange._core import lib
from vrange.pressure.seen import Level, level_of, read_watcher
from vrange.pressure.threads import Thread, make_lock

__all__ = ["Callback", "CallbackInfo", "Level", "LevelChange", "LoopCallback", "ThreadCallback"]


@dataclass(frozen=True)
class LevelChange:
    """What a callback is told: the level of now, and the one it was told before.

    `used_bytes` of `limit_bytes` are in use, what the kernel can take at once left out; `source` is
    the directory of the cgroup that has the limit, or "machine"; `stalled` the share of time in
    which tasks waited for memory.
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
    """One callback: how often it was called, raised, and was not called as it still ran or had been
    called a moment ago. `running` says whether it runs now.
    """

    name: str
    calls: int
    failures: int
    skipped: int
    running: bool


class Callback:
    """What both kinds share. `offer` and `due` are the dispatcher's alone."""

    def __init__(self, function: OnLevel, min_interval: float) -> None:
        self.function = function
        self.name = getattr(function, "__qualname__", None) or repr(function)
        self.told: Level = "normal"
        self.running = False
        self.calls = self.failures = self.skipped = 0
        self._min_interval = min_interval
        self._free_at = 0.0

    def due(self) -> float | None:
        """Seconds until it may be called again; None while it runs."""
        return None if self.running else max(0.0, self._free_at - time.monotonic())

    def skip(self) -> None:
        """Counts a change that is not told now."""
        self.skipped += 1
        lib.vrange_pressure_acted(lib.VRANGE_PRESSURE_CALLBACK, lib.VRANGE_PRESSURE_SKIPPED, 0)

    def offer(self, change: LevelChange) -> None:
        """Starts the call and returns at once."""
        self.running = True
        self.calls += 1
        self.told = change.level
        self._free_at = time.monotonic() + self._min_interval
        try:
            self._start(change)
        except Exception as error:  # such as a loop that is closed
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
        # Last: a change that came before found it running, and is the dispatcher's to tell.
        if level_of(read_watcher()) != self.told:
            lib.vrange_pressure_poke()

    def info(self) -> CallbackInfo:
        """What is counted of it."""
        return CallbackInfo(self.name, self.calls, self.failures, self.skipped, self.running)

    def close(self, wait: float) -> None:
        """Lets it go; one that runs is waited for, for a while."""


class ThreadCallback(Callback):
    """Called on a thread of its own."""

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
        except Exception:  # whoever replaced the hook broke it
            threading.__excepthook__(arguments)

    def close(self, wait: float) -> None:
        """The thread ends with the call it is in."""
        self._closed = True
        if not self.running:
            self._wake.release()
        self._thread.join(wait)


class LoopCallback(Callback):
    """Scheduled on an event loop. A coroutine runs there as a task."""

    def __init__(
        self, function: OnLevel, min_interval: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(function, min_interval)
        self._loop = loop

    def due(self) -> float | None:
        """As its base tells; never again once the loop is closed."""
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
            raise  # KeyboardInterrupt and SystemExit are the loop's
        else:
            self._done(None)

    async def _await(self, coroutine: Coroutine[Any, Any, Any]) -> None:
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
