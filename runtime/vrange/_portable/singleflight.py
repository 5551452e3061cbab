"""One computation per key at a time, across threads and tasks.

The first caller leads, and other callers wait as on Linux, where the native core leads
(vrange._cache.waiting).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, ClassVar

from vrange._cache.task_events import running_loop
from vrange._cache.unstored import copied
from vrange._cache.waiting import Waits, raise_shared
from vrange._portable import flight as native

Flight = native.Flight

_waits = Waits(native)
led_here = _waits.led_here


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
            waiter = _waits.wait(answer, self._timeout)
            anyway = waiter is None
            if waiter is not None and self._has_answer(waiter):
                return False, _answer_of(waiter)

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
            waiter = await _waits.wait_async(answer, self._timeout)
            anyway = waiter is None
            if waiter is not None and self._has_answer(waiter):
                return False, _answer_of(waiter)

    def _has_answer(self, waiter: native.Waiter) -> bool:
        """Return whether the leader passed on a value. Raise the error that it passed on."""
        if waiter.state not in (native.HAS_VALUE, native.HAS_ERROR, native.HAS_TEMPLATE):
            return False
        self._count_waited()
        if waiter.state == native.HAS_ERROR:
            raise_shared(waiter.result())
        return True

    def drop(self, key: Hashable) -> None:
        """Call off the key's computation: no caller joins it any more, and its flight is stale."""
        self.flights.drop(key)


def _answer_of(waiter: native.Waiter) -> Any:
    value = waiter.result()
    return copied(value) if waiter.state == native.HAS_TEMPLATE else value


def _forget_others_flights() -> None:
    native.forget_waiting()
    for flights in list(SingleFlight._all):
        flights.flights.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_others_flights)
