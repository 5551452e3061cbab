"""Waiting for a flight, which another thread or task leads. Both caches wait so.

A flight is one of the native core's or one of the portable cache's. The names in their modules are
the same, so a `Waits` takes the module: `vrange._hit` or `vrange._portable.flight`.

A thread blocks, a task lets its event loop run. Waiters share the value, or the exception that the
computation raised. A KeyboardInterrupt or a cancellation ends the leader only, and one of the
waiters leads next. If a wait would never end, because the leader can't continue before the caller
does, the caller computes instead, as functools.cache does.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from vrange._cache.patience import Patience
from vrange._cache.task_events import event_here

__all__ = ["Waits", "raise_shared"]


class Waits:
    """The waits of one kind of cache.

    `led_here` is the innermost flight, by context and not by thread: a task started inside it
    belongs to it.
    """

    def __init__(self, flights: Any) -> None:
        self._flights = flights
        self.led_here: ContextVar[Any] = ContextVar("vrange_led", default=None)

    def wait(self, flight: Any, timeout: float | None) -> Any:
        """Block this thread until the flight has landed, and return the waiter.

        None: too late, or it would never end. A waiter without a state: the flight was called off.
        """
        # A lock of threading, because gevent replaces that with its own.
        landed, thread, led = threading.Lock(), threading.get_ident(), self.led_here.get()
        flights, patience = self._flights, Patience(timeout)
        waiter = flights.Waiter(landed.release)
        landed.acquire()
        begun = None
        try:
            begun = flights.begin_to_wait(flight, led, waiter, thread)
            if begun == flights.WAITS:
                while not landed.acquire(timeout=patience.next_acquire(flight.loop is not None)):
                    if not _goes_on(flight) or patience.is_over():
                        break
        finally:
            if begun == flights.WAITS:
                flights.end_waiting(flight, led, waiter, thread)
        return self._landed(begun, waiter, patience)

    async def wait_async(self, flight: Any, timeout: float | None) -> Any:
        """Do the same for a task, whose event loop runs meanwhile."""
        landed, led = event_here(), self.led_here.get()
        if landed is None:
            return None
        flights, patience = self._flights, Patience(timeout)
        waiter = flights.Waiter(landed.tell)
        begun = None
        try:
            begun = flights.begin_to_wait(flight, led, waiter, 0)
            while begun == flights.WAITS and not waiter.state:
                runs_here = flight.loop is None or flight.loop is landed.loop
                await landed.wait(patience.next_wait(not runs_here))
                if not waiter.state and (not _goes_on(flight) or patience.is_over()):
                    break
        finally:
            if begun == flights.WAITS:
                flights.end_waiting(flight, led, waiter, 0)
        return self._landed(begun, waiter, patience)

    def _landed(self, begun: int | None, waiter: Any, patience: Patience) -> Any:
        too_late = not waiter.state and patience.is_over()
        return None if begun == self._flights.NEVER_ENDS or too_late else waiter


def _goes_on(flight: Any) -> bool:
    """Return whether the leader's event loop still runs. If not, no caller joins the flight."""
    loop = flight.loop
    if loop is None or loop.is_running():
        return True
    if loop.is_closed():
        flight.abandon()  # wakes all waiters
    else:
        flight.call_off()  # the loop may run again later
    return False


def raise_shared(error: BaseException) -> None:
    """Raise the error of the leader's computation."""
    try:
        raise error
    finally:
        del error  # breaks a cycle: its traceback refers to this frame
