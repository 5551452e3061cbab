"""The thread that trims the heap while the program runs, whether memory is short or not.

Memory that a program freed is useless while its allocator holds it, even far from any limit. The
best moment for a trim is when a program becomes idle: what it held for its work is spare then, and
nothing waits for the trim. A program that did nothing since the last trim is left alone. The longer
a program's trims take, the less often they run while it works.
"""

from __future__ import annotations

import _thread
import atexit
import os
import time
from contextlib import suppress

from vrange._autostart.record import Record
from vrange._autostart.settings import Settings
from vrange._core import hit, lib
from vrange._paused_thread import PausedThread
from vrange._working_child import when_working
from vrange.heap.repeated_trim import Sweep
from vrange.heap.trim import Deep

__all__ = ["Trimmer"]

_LOOK_SECONDS = 1.0
_SECONDS = 5.0  # between trims of a working program
_SHARE = 0.01  # the largest fraction of a working program's time that goes into trims
_QUIET_SECONDS = 2.0  # between trims when a program has become idle
_QUIET_SHARE = 0.05  # the same fraction then: nothing waits for these trims
_QUIET_LOAD = 0.05  # of a processor
_END_SECONDS = 2.0  # how long exit waits for a trim that is running
_BUSY_SECONDS = 0.02  # of processor time since the last trim: with less, hardly anything was freed
_DEEP: dict[str, Deep] = {"light": False, "deep": True, "holes": "holes"}


class Trimmer:
    """Trims at intervals, in a thread that the program doesn't see among its own.

    With an interval of 0 it only lets requests of other processes be answered, as it does besides.
    The program's garbage collector doesn't notice it either (see
    vrange.heap.interpreter.sweep): the code between two trims makes no container.
    """

    def __init__(self, settings: Settings, record: Record) -> None:
        self._sweep = record.sweep = Sweep(_DEEP[settings.depth])
        self._every = settings.trim_every
        self._record = record
        self._thread = PausedThread("vrange-trim", self._run)
        self._forget()

    def start(self) -> None:
        """Start now, and in each child of a fork. No trim begins once the program has ended."""
        self._thread.start()
        os.register_at_fork(after_in_child=self._again)
        atexit.register(self._end)

    def _end(self) -> None:
        self._turn.acquire(timeout=_END_SECONDS)

    def _again(self) -> None:
        self._forget()
        when_working(self._start_in_child)

    def _start_in_child(self) -> None:
        with suppress(RuntimeError):  # if no thread can be started, the child runs without trims
            self._thread.start()

    def _forget(self) -> None:
        self._turn = _thread.allocate_lock()  # the parent's thread may have held the old one
        self._worked = self._looked = time.process_time()
        self._look_at = self._trimmed_at = time.monotonic()
        self._cost = 0.0  # of the last trim; others may have waited for it
        self._processor_cost = 0.0  # on a busy machine much less

    def _run(self, thread: PausedThread) -> bool:
        """Trim until something fails. Return False for a pause."""
        while not thread.is_paused:
            left = self._look_at - time.monotonic()
            if left > 0:  # also after a pause: each fork would put the next trim off
                hit.rest(left)
                continue
            lib.vrange_requests_look()
            if not (self._trim_if_it_pays() if self._every is None else self._trim_if_due()):
                return True
            # Requests of other processes are to be answered, however seldom trims are.
            now = time.monotonic()
            due = self._trimmed_at + self._every if self._every else now + _LOOK_SECONDS
            self._look_at = min(max(due, now), now + _LOOK_SECONDS)
        return False

    def _trim_if_due(self) -> bool:
        if not self._every or time.monotonic() < self._trimmed_at + self._every:
            return True
        goes_on = self._once(False)
        self._trimmed_at = time.monotonic()
        return goes_on

    def _trim_if_it_pays(self) -> bool:
        before, self._looked = self._looked, time.process_time()
        if self._looked - self._worked < _BUSY_SECONDS:
            return True
        quiet = self._looked - before < _QUIET_LOAD * _LOOK_SECONDS
        if quiet:
            pause = max(_QUIET_SECONDS, self._processor_cost / _QUIET_SHARE)
        else:
            pause = max(_SECONDS, self._cost / _SHARE)
        began, processor = time.monotonic(), time.thread_time()
        if began - self._trimmed_at < pause:
            return True
        goes_on = self._once(not quiet)
        self._trimmed_at = time.monotonic()
        self._cost = self._trimmed_at - began
        self._processor_cost = time.thread_time() - processor
        self._worked = self._looked = time.process_time()
        return goes_on

    def _once(self, spares: bool) -> bool:
        began = time.perf_counter()
        self._turn.acquire()
        try:
            self._sweep.once(spares)
        except Exception as error:
            self._record.parts["trims"] = f"off: {error}"
            self._record.write()
            return False
        finally:
            self._turn.release()
        self._record.trimmed(time.perf_counter() - began)
        return True
