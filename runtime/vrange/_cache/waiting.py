"""Waiting for a computation that another thread or task leads.

The native core leads computations and finds those of other callers (native/python/cache). Python
does the waiting: a thread blocks, a task lets its event loop run. Waiters share the value, or the
exception that the computation raised. A KeyboardInterrupt or a cancellation ends the leader only,
and one of the waiters leads next. If a wait would never end, because the leader can't continue
before the caller does, the caller computes instead, as functools.cache does.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from typing import Any

from vrange._cache.patience import Patience
from vrange._cache.task_events import event_here, running_loop
from vrange._core import hit

# The innermost flight, by context and not by thread: a task started inside it belongs to it.
led_here: ContextVar[hit.Flight | None] = ContextVar("vrange_led", default=None)


def answer_after(timeout: float | None, flight: hit.Flight) -> Any:
    """Return a flight's value; the flight itself if the wait takes too long or would never end.

    NotImplemented: the flight landed without a value, and the caller looks the key up again.
    """
    waiter = _wait(flight, timeout)
    return flight if waiter is None else _outcome(waiter)


async def answer_async(
    core: hit.CacheCore,
    key: Hashable,
    function: Callable[[], Awaitable[Any]],
    timeout: float | None = None,
) -> Any:
    """Return the value under `key`, or compute it with the coroutine function and store it."""
    has_waited = False
    while True:
        answer = await core.answer_async(key, function, running_loop(), has_waited)
        if type(answer) is not hit.Flight:
            return answer
        waiter = await _wait_async(answer, timeout)
        if waiter is None:
            core.count_request(False)
            begun = time.monotonic_ns()
            value = await function()
            return core.unstored(value, time.monotonic_ns() - begun)
        if waiter.state in (hit.HAS_VALUE, hit.HAS_ERROR):
            core.count_request(True)
        outcome, has_waited = _outcome(waiter), True
        if outcome is not NotImplemented:
            return outcome


def _outcome(waiter: hit.Waiter) -> Any:
    if waiter.state == hit.HAS_VALUE:
        return waiter.result()
    if waiter.state == hit.HAS_ERROR:
        _raise(waiter.result())
    return NotImplemented


def _raise(error: BaseException) -> None:
    try:
        raise error
    finally:
        del error  # breaks a cycle: its traceback refers to this frame


def _wait(flight: hit.Flight, timeout: float | None) -> hit.Waiter | None:
    """Block this thread until the flight has landed. None: too late, or it would never end."""
    # A lock of threading, because gevent replaces that with its own.
    landed, thread, led = threading.Lock(), threading.get_ident(), led_here.get()
    patience = Patience(timeout)
    waiter = hit.Waiter(landed.release)
    landed.acquire()
    begun = None
    try:
        begun = hit.begin_to_wait(flight, led, waiter, thread)
        if begun == hit.WAITS:
            while not landed.acquire(timeout=patience.next_acquire(flight.loop is not None)):
                if not _goes_on(flight) or patience.is_over():
                    break
    finally:
        if begun == hit.WAITS:
            hit.end_waiting(flight, led, waiter, thread)
    return _landed(begun, waiter, patience)


def _landed(begun: int, waiter: hit.Waiter, patience: Patience) -> hit.Waiter | None:
    too_late = not waiter.state and patience.is_over()
    return None if begun == hit.NEVER_ENDS or too_late else waiter


async def _wait_async(flight: hit.Flight, timeout: float | None) -> hit.Waiter | None:
    """Do the same for a task, whose event loop runs meanwhile."""
    landed, led = event_here(), led_here.get()
    if landed is None:
        return None
    patience = Patience(timeout)
    waiter = hit.Waiter(landed.tell)
    begun = None
    try:
        begun = hit.begin_to_wait(flight, led, waiter, 0)
        while begun == hit.WAITS and not waiter.state:
            runs_here = flight.loop is None or flight.loop is landed.loop
            await landed.wait(patience.next_wait(not runs_here))
            if not waiter.state and (not _goes_on(flight) or patience.is_over()):
                break
    finally:
        if begun == hit.WAITS:
            hit.end_waiting(flight, led, waiter, 0)
    return _landed(begun, waiter, patience)


def _goes_on(flight: hit.Flight) -> bool:
    """Return whether the leader's event loop still runs. If not, no caller joins the flight."""
    loop = flight.loop
    if loop is None or loop.is_running():
        return True
    if loop.is_closed():
        flight.abandon()  # wakes all waiters
    else:
        flight.call_off()  # the loop may run again later
    return False


def _forget_others() -> None:
    hit.forget_waiting()
    hit.forget_flights(led_here.get())


os.register_at_fork(after_in_child=_forget_others)
