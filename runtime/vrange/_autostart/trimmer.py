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


def _rest(seconds: float) -> None:
    """Sleep, and let requests of other processes be answered meanwhile."""
    until = time.monotonic() + seconds
    left = seconds
    while left > 0:
        time.sleep(left if left < _LOOK_SECONDS else _LOOK_SECONDS)
        lib.vrange_requests_look()
        left = until - time.monotonic()


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
        self._turn = _thread.allocate_lock()

    def start(self) -> None:
        """Start now, and in each child after fork. No trim begins once the program has ended."""
        _thread.start_new_thread(hit.run_in_background, (self._run, False))
        os.register_at_fork(after_in_child=self._again)
        atexit.register(self._end)

    def _end(self) -> None:
        self._turn.acquire(timeout=_END_SECONDS)

    def _again(self) -> None:
        self._turn = _thread.allocate_lock()  # the parent's thread may have held the old one
        with suppress(RuntimeError):  # if no thread can be started, the child runs without trims
            # Most children execute a program at once, some after they have limited themselves.
            _thread.start_new_thread(hit.run_in_background, (self._run, True))

    def _run(self) -> None:
        lib.vrange_thread_name(b"vrange-trim")
        if self._every is None:
            self._trim_as_it_pays()
        while self._every is not None:
            _rest(self._every or _LOOK_SECONDS)
            if self._every and not self._once(False):
                return

    def _trim_as_it_pays(self) -> None:
        worked = looked = time.process_time()
        trimmed_at, cost = time.monotonic(), 0.0
        while True:
            _rest(_LOOK_SECONDS)
            before, looked = looked, time.process_time()
            if looked - worked < _BUSY_SECONDS:
                continue
            quiet = looked - before < _QUIET_LOAD * _LOOK_SECONDS
            pause = (
                max(_QUIET_SECONDS, cost / _QUIET_SHARE) if quiet else max(_SECONDS, cost / _SHARE)
            )
            began = time.monotonic()
            if began - trimmed_at < pause:
                continue
            if not self._once(not quiet):
                return
            trimmed_at = time.monotonic()
            cost = trimmed_at - began
            worked = looked = time.process_time()

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
