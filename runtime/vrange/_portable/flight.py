"""Computations under way, and waits for them: flight.c and wait.c in Python.

Without the native core, a signal handler that raises in the middle of this code may leave a key
under way. Code written in Python can't rule that out.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Generator, Hashable
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from vrange._cache.unstored import copied

WAITS, HAS_LANDED, NEVER_ENDS = range(3)
HAS_VALUE, HAS_ERROR, HAS_NOTHING, HAS_TEMPLATE = range(1, 5)

_lock = threading.RLock()  # guards everything in this module
_blocked: dict[int, Flight] = {}  # thread to the flight that it waits for, blocked


class Flight:
    """A computation under way, of a key of a cache's `flights`."""

    def __init__(
        self, flights: Flights, key: Hashable, outer: Flight | None, loop: Any = None
    ) -> None:
        self._flights, self._key = flights, key
        self.outer = outer  # the flight in whose computation this one began
        self.loop = loop
        self.thread = threading.get_ident()
        self.landed = False
        self.stale = False
        self.skipped = False  # its value must not be stored
        self.copies = False  # its value was not stored, and each waiter gets a copy of its own
        self.others: list[Flight] = []  # flights of the same key that could not wait for this one
        self.waiters: list[Waiter] = []
        self.waits_for: list[Flight] = []

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return len(self.waiters)

    def call_off(self) -> None:
        """Let no caller join it any more. Its result is not stored."""
        self._flights.call_off(self._key, self)

    def abandon(self) -> None:
        """Land it without a value, because its leader will not continue."""
        self._flights.land(self._key, self, HAS_NOTHING, None)
        self.stale = True


class Waiter:
    """One waiter for a flight; `wake` is called when the flight has landed."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.state = 0
        self._value: Any = None
        self._traceback: TracebackType | None = None

    def tell(self, state: int, value: Any, traceback: TracebackType | None) -> None:
        """Pass on the outcome. `traceback`: of an error, before a waiter raises it."""
        self._traceback = traceback
        self.state, self._value = state, value
        with suppress(RuntimeError):  # the waiter's event loop is closed
            self.wake()

    def result(self) -> Any:
        """Return the value, or the error with the traceback that the leader gave it, once."""
        value, self._value = self._value, None
        if self.state == HAS_ERROR:
            traceback, self._traceback = self._traceback, None
            return value.with_traceback(traceback)
        return value


def _template_of(mine: Flight, value: Any) -> tuple[int, Any]:
    """Return what to land with, before the leader can change its value."""
    try:
        return (HAS_TEMPLATE, copied(value)) if mine.waiters else (HAS_NOTHING, None)
    except Exception:  # it can't be copied: each waiter computes
        return HAS_NOTHING, None


class Flights:
    """The computations of a cache that are under way. `led` is the context's innermost one."""

    def __init__(self, led: ContextVar[Flight | None]) -> None:
        self.under_way: dict[Hashable, Flight] = {}
        self._led = led

    def lead(
        self, key: Hashable, compute: Callable[[Flight], Any], anyway: bool
    ) -> tuple[bool, Any]:
        """Return (True, compute(flight)), or (False, flight) if another leader computes the key."""
        mine = Flight(self, key, self._led.get())
        other = self._take_off(key, mine, anyway)
        if other is not None:
            return False, other
        try:
            self._led.set(mine)
            value = compute(mine)
        except BaseException as error:
            self._end(key, mine, error)
            raise
        self._end(key, mine, None, value)
        return True, value

    def lead_async(
        self, key: Hashable, compute: Callable[[Flight], Awaitable[Any]], anyway: bool, loop: Any
    ) -> Awaitable[tuple[bool, Any]]:
        """Return an awaitable of the same, for a coroutine function."""
        return _Flown(self._fly(key, compute, anyway, loop))

    async def _fly(
        self, key: Hashable, compute: Callable[[Flight], Awaitable[Any]], anyway: bool, loop: Any
    ) -> tuple[bool, Any]:
        mine = Flight(self, key, self._led.get(), loop)
        other = self._take_off(key, mine, anyway)
        if other is not None:
            return False, other
        try:
            self._led.set(mine)
            value = await compute(mine)
        except BaseException as error:
            self._end(key, mine, error)
            raise
        self._end(key, mine, None, value)
        return True, value

    def _take_off(self, key: Hashable, mine: Flight, anyway: bool) -> Flight | None:
        with _lock:
            first = self.under_way.setdefault(key, mine)
            if first is mine:
                return None
            if anyway:
                first.others.append(mine)
                return None
            return first

    def _end(
        self, key: Hashable, mine: Flight, error: BaseException | None, value: Any = None
    ) -> None:
        # A coroutine that is no longer awaited may be closed in another context.
        if self._led.get() is mine:
            self._led.set(mine.outer)
        if error is None and mine.copies:
            self.land(key, mine, *_template_of(mine, value))
        elif error is None:
            self.land(key, mine, HAS_VALUE, value)
        elif isinstance(error, Exception):
            self.land(key, mine, HAS_ERROR, error)
        else:
            self.land(key, mine, HAS_NOTHING, None)

    def land(self, key: Hashable, mine: Flight, state: int, value: Any) -> None:
        """End a flight: no caller joins it any more, and its waiters get the outcome."""
        with _lock:
            if not mine.stale:
                self._take_out(key, mine)
            mine.landed, mine.loop = True, None
            waiters, mine.waiters = mine.waiters, []
        traceback = value.__traceback__ if state == HAS_ERROR else None
        for waiter in waiters:
            waiter.tell(state, value, traceback)

    def _take_out(self, key: Hashable, mine: Flight) -> None:
        first = self.under_way.pop(key, None)
        if first is mine:
            if mine.others:
                next_one, *others = mine.others
                next_one.others += others
                self.under_way[key] = next_one
        elif first is not None:
            self.under_way[key] = first
            if mine in first.others:
                first.others.remove(mine)

    def drop(self, key: Hashable) -> None:
        """Mark the key's computations as stale; no caller joins them any more."""
        with _lock:
            first = self.under_way.pop(key, None)
            for flight in () if first is None else (first, *first.others):
                flight.stale = True

    def drop_all(self) -> None:
        """Mark all computations as stale."""
        with _lock:
            for key in list(self.under_way):
                self.drop(key)

    def call_off(self, key: Hashable, flight: Flight) -> None:
        """Mark one computation as stale; no caller joins it any more."""
        with _lock:
            if not flight.stale:
                self._take_out(key, flight)
                flight.stale = True

    def after_fork(self) -> None:
        """Forget all flights that this thread does not lead."""
        led = _and_outer(self._led.get())
        for key, flight in list(self.under_way.items()):
            if flight not in led:
                self.drop(key)
            for other in flight.others:
                other.stale = True
            flight.others.clear()


class _Flown:
    """An awaitable coroutine."""

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, tuple[bool, Any]]:
        return self._coroutine.__await__()  # type: ignore[no-any-return]


def _and_outer(flight: Flight | None) -> list[Flight]:
    led = []
    while flight is not None:
        led.append(flight)
        flight = flight.outer
    return led


def begin_to_wait(flight: Flight, led: Flight | None, waiter: Waiter, thread: int) -> int:
    """Record that the leader of `led` waits for `flight`, and block `thread` unless that is 0."""
    ours = _and_outer(led)
    with _lock:
        if flight.landed:
            return HAS_LANDED
        pending, seen = [flight], {flight}
        while pending:
            other = pending.pop()
            if other.landed:
                continue
            if other in ours or (thread and other.thread == thread):
                return NEVER_ENDS
            waited_for = list(other.waits_for)
            if other.thread in _blocked:
                waited_for.append(_blocked[other.thread])
            pending += [one for one in waited_for if one not in seen]
            seen.update(waited_for)
        flight.waiters.append(waiter)
        for one in ours:
            one.waits_for.append(flight)
        if thread:
            _blocked[thread] = flight
        return WAITS


def end_waiting(flight: Flight, led: Flight | None, waiter: Waiter, thread: int) -> None:
    """Remove that record."""
    with _lock:
        if waiter in flight.waiters:
            flight.waiters.remove(waiter)
        for one in _and_outer(led):
            if flight in one.waits_for:
                one.waits_for.remove(flight)
        if thread:
            _blocked.pop(thread, None)


def forget_waiting() -> None:
    """Remove the records of all other threads, as after a fork."""
    global _lock
    _lock = threading.RLock()
    _blocked.clear()
