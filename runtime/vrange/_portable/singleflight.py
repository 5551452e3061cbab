"""One computation per key at a time, across threads and tasks.

The first caller leads. Other callers wait for the value, or for the exception that the computation
raised. A KeyboardInterrupt or a cancellation ends the leader only, and one of the waiters leads
next. If a wait would never end, because the leader can't continue before the caller does, or will
not continue at all, the caller computes instead, as functools.cache does.

On Linux, the native core leads, and vrange._cache.waiting waits.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from typing import Any, ClassVar

from vrange._cache.patience import Patience
from vrange._cache.task_events import event_here, running_loop
from vrange._portable import flight as native

Flight = native.Flight

# The innermost flight, by context and not by thread: a task started inside it belongs to it.
led_here: ContextVar[Flight | None] = ContextVar("vrange_led", default=None)


class SingleFlight:
    """The computations under way for one cache, by key in `under_way`.

    Any thread may use it. In the child of a fork, the computations of the parent's other threads
    are forgotten.
    """

    _all: ClassVar[weakref.WeakSet[SingleFlight]] = weakref.WeakSet()

    def __init__(
        self, timeout: float | None = None, count_waited: Callable[[], object] = lambda: None
    ) -> None:
        self._timeout = timeout
        self._count_waited = count_waited
        self.flights = native.Flights(led_here)
        self.under_way: dict[Hashable, Flight] = self.flights.under_way
        self._all.add(self)

    def fly(self, key: Hashable, compute: Callable[[Flight], Any]) -> tuple[bool, Any]:
        """Return (True, compute(flight)), or (False, what another thread or task computed)."""
        anyway = False
        while True:
            led, answer = self.flights.lead(key, compute, anyway)
            if led:
                return True, answer
            waiter = self._wait(key, answer)
            anyway = waiter is None
            if waiter is not None and self._has_answer(waiter):
                return False, waiter.result()

    async def fly_async(
        self, key: Hashable, compute: Callable[[Flight], Awaitable[Any]]
    ) -> tuple[bool, Any]:
        """Do the same for a coroutine function; waiting lets the event loop run."""
        anyway = False
        while True:
            loop = running_loop()
            led, answer = await self.flights.lead_async(key, compute, anyway, loop)
            if led:
                return True, answer
            waiter = await self._wait_async(key, answer)
            anyway = waiter is None
            if waiter is not None and self._has_answer(waiter):
                return False, waiter.result()

    def _has_answer(self, waiter: native.Waiter) -> bool:
        """Return whether the leader passed on a value. Raise the error that it passed on."""
        if waiter.state not in (native.HAS_VALUE, native.HAS_ERROR):
            return False
        self._count_waited()
        if waiter.state == native.HAS_ERROR:
            _raise(waiter.result())
        return True

    def drop(self, key: Hashable) -> None:
        """Call off the key's computation: no caller joins it any more, and its flight is stale."""
        self.flights.drop(key)

    def _wait(self, key: Hashable, flight: Flight) -> native.Waiter | None:
        """Block this thread until the flight has landed. None: too late, or it never would."""
        # A lock of threading, because gevent replaces that with its own.
        landed, thread, led = threading.Lock(), threading.get_ident(), led_here.get()
        patience = Patience(self._timeout)
        waiter = native.Waiter(landed.release)
        landed.acquire()
        begun = None
        try:
            begun = native.begin_to_wait(flight, led, waiter, thread)
            if begun == native.WAITS:
                while not landed.acquire(timeout=patience.next_acquire(flight.loop is not None)):
                    if not self._goes_on(key, flight) or patience.is_over():
                        return None
        finally:
            if begun == native.WAITS:
                native.end_waiting(flight, led, waiter, thread)
        return None if begun == native.NEVER_ENDS else waiter

    async def _wait_async(self, key: Hashable, flight: Flight) -> native.Waiter | None:
        """Do the same for a task, whose event loop runs meanwhile."""
        landed, led = event_here(), led_here.get()
        if landed is None:
            return None
        patience = Patience(self._timeout)
        waiter = native.Waiter(landed.tell)
        begun = None
        try:
            begun = native.begin_to_wait(flight, led, waiter, 0)
            while begun == native.WAITS and not waiter.state:
                loop = flight.loop
                runs_here = loop is None or loop is landed.loop
                await landed.wait(patience.next_wait(not runs_here))
                if not waiter.state and (not self._goes_on(key, flight) or patience.is_over()):
                    return None
        finally:
            if begun == native.WAITS:
                native.end_waiting(flight, led, waiter, 0)
        return None if begun == native.NEVER_ENDS else waiter

    def _goes_on(self, key: Hashable, flight: Flight) -> bool:
        """Return whether to wait on. A flight whose event loop is closed lands without a value."""
        loop = flight.loop
        if loop is None or loop.is_running():
            return True
        if loop.is_closed():
            self.flights.abandon(key, flight)
            return True  # abandon() woke all waiters
        return False


def _raise(error: BaseException) -> None:
    """Raise the error of the leader's computation."""
    try:
        raise error
    finally:
        del error  # breaks a cycle: its traceback refers to this frame


def _forget_others_flights() -> None:
    native.forget_waiting()
    for flights in list(SingleFlight._all):
        flights.flights.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_others_flights)
