"""The thread that trims the heap while the program runs, whether memory is short or not.

What a program freed is no use to anybody while its allocator holds it, and no limit needs to be
near for that. A program that did nothing since the last trim is left alone, and one whose trims
take long is trimmed the less often.
"""

from __future__ import annotations

import _thread
import atexit
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vrange.autostart.record import Record
from vrange.autostart.settings import Settings

__all__ = ["Trimmer"]

_SECONDS = 5.0
_COST_SHARE = 0.01  # of the time, at most, goes into trims that nobody asked for by an interval
_END_SECONDS = 2.0  # a trim that is under way at exit is waited for this long
_BUSY_SECONDS = 0.02  # of processor time since the last trim: less than that freed nothing much
_DEEP: dict[str, bool | str] = {"light": False, "deep": True, "holes": "holes"}


class Trimmer:
    """Trims at intervals, in a thread that the program doesn't see among its own."""

    def __init__(self, trim: Callable[..., Any], settings: Settings, record: Record) -> None:
        self._trim = trim
        self._deep = _DEEP[settings.depth]
        self._every = settings.trim_every
        self._record = record
        self._turn = _thread.allocate_lock()

    def start(self) -> None:
        """Start now, and in each child after fork; no trim begins once the program has ended."""
        _thread.start_new_thread(self._run, ())
        os.register_at_fork(after_in_child=self._again)
        atexit.register(self._end)

    def _end(self) -> None:
        self._turn.acquire(timeout=_END_SECONDS)

    def _again(self) -> None:
        self._turn = _thread.allocate_lock()  # the parent's may have been held by its thread
        with suppress(RuntimeError):  # no thread to be had: the child goes without
            _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        pause = self._every or _SECONDS
        busy = time.process_time()
        while True:
            time.sleep(pause)
            if self._every is None and time.process_time() - busy < _BUSY_SECONDS:
                continue
            began = time.perf_counter()
            try:
                with self._turn:
                    self._once()
            except Exception as error:
                self._record.parts["trims"] = f"off: {error}"
                self._record.write()
                return
            if self._every is None:
                pause = max(_SECONDS, (time.perf_counter() - began) / _COST_SHARE)
            busy = time.process_time()

    def _once(self) -> None:
        began = time.perf_counter()
        trimmed = self._trim(deep=self._deep)
        self._record.trimmed(trimmed, time.perf_counter() - began)
