"""One computation per key at a time, across threads and tasks.

The first to ask leads, the others wait for its value. If the leader fails, its exception is its
own, and the next of those who waited leads. Waiting never deadlocks on itself: who leads one key
and would have to wait, directly or through other leaders, for somebody who waits for it, computes
instead of waiting, as functools.cache does.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, ClassVar

_Result = tuple[bool, Any]  # (succeeded, value)
_NO_VALUE: _Result = (False, None)


class Flight:
    """One computation under way, who waits for it, and for which others it waits itself.
    `loop_thread` is where the event loop runs that has to go on for it, None where a thread of its
    own does.

    It never has the value: contexts refer to it that live longer. Who comes when it has landed asks
    anew. Not a concurrent.futures.Future: that and asyncio cost more memory and time to import than
    all of vrange, and most computations have nobody waiting.
    """

    # Of the class, so that making one runs no code: most are never asked for any of it.
    landed = False
    loop_thread: int | None = None
    waits_for: list[Flight] | None = None
    waiters: list[Callable[[_Result], None]] | None = None

    def wait(self) -> _Result:
        """Blocks this thread until the flight has landed."""
        landed: list[_Result] = []
        lock = threading.Lock()
        lock.acquire()

        def tell(result: _Result) -> None:
            landed.append(result)
            lock.release()

        self._when_landed(tell)
        lock.acquire()
        return landed[0]

    async def wait_async(self) -> _Result:
        """The same for a task: its event loop runs meanwhile."""
        import asyncio  # whose loop is running, so it costs nothing any more

        loop = asyncio.get_running_loop()
        landed: asyncio.Future[_Result] = loop.create_future()

        def tell_here(result: _Result) -> None:
            if not landed.done():  # the task may have been cancelled
                landed.set_result(result)

        def tell(result: _Result) -> None:
            # A loop that is closed has nobody waiting any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(tell_here, result)

        self._when_landed(tell)
        return await landed

    def _when_landed(self, tell: Callable[[_Result], None]) -> None:
        with _waiting:
            # In this order: who lands takes no lock, but says so before looking for who waits.
            self.waiters = [*(self.waiters or ()), tell]
            if not self.landed:
                return
            self.waiters.remove(tell)
        tell(_NO_VALUE)

    def land(self, result: _Result) -> None:
        """Tells the result to all who wait."""
        self.landed = True
        if self.waiters is not None:
            with _waiting:
                waiters, self.waiters = self.waiters, None
            for tell in waiters:
                tell(result)


# By context, not by thread: a task started inside a computation belongs to it.
led_here: ContextVar[tuple[Flight, ...]] = ContextVar("vrange_led", default=())
_waiting = threading.Lock()  # of what is below, so that two can't begin to wait for each other
_blocked: dict[int, Flight] = {}  # by thread, whom it waits for without running its event loop


class SingleFlight:
    """The computations under way for one cache, in `under_way`. Safe from any thread; in the child
    of a fork, those of other threads of the parent are forgotten. A cache leads most of them
    natively (native/lead.c); `run` and `run_async` do the others, and all waiting.
    """

    _all: ClassVar[weakref.WeakSet[SingleFlight]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.under_way: dict[Hashable, Flight] = {}
        self._all.add(self)

    def run(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """compute(), or what another thread or task is just computing for the same key."""
        mine = Flight()
        waited_for = None  # if it is still there, comparing its key failed
        while (flight := self.under_way.setdefault(key, mine)) is not mine:
            led = None if flight is waited_for else _begin_to_wait(flight, blocks=True)
            if led is None:
                return compute()
            waited_for = flight
            try:
                succeeded, value = flight.wait()
            finally:
                _end_waiting(flight, led, blocks=True)
            if succeeded:
                return value
        led = led_here.get()
        led_here.set((*led, mine))
        result = _NO_VALUE
        try:
            value = compute()
            result = (True, value)
            return value
        finally:
            led_here.set(led)
            self._land(key, mine, result)

    async def run_async(self, key: Hashable, compute: Callable[[], Awaitable[Any]]) -> Any:
        """The same for a coroutine function; waiting lets the event loop run."""
        mine = Flight()
        mine.loop_thread = threading.get_ident()
        waited_for = None
        while (flight := self.under_way.setdefault(key, mine)) is not mine:
            led = None if flight is waited_for else _begin_to_wait(flight, blocks=False)
            if led is None:
                return await compute()
            waited_for = flight
            try:
                succeeded, value = await flight.wait_async()
            finally:
                _end_waiting(flight, led, blocks=False)
            if succeeded:
                return value
        led_here.set((*led_here.get(), mine))
        result = _NO_VALUE
        try:
            value = await compute()
            result = (True, value)
            return value
        finally:
            # A coroutine that nobody awaits any more is closed in another context.
            led_here.set(tuple(flight for flight in led_here.get() if flight is not mine))
            self._land(key, mine, result)

    def _land(self, key: Hashable, mine: Flight, result: _Result) -> None:
        try:
            if self.under_way.get(key) is mine:
                del self.under_way[key]
        finally:
            mine.land(result)


def _begin_to_wait(flight: Flight, *, blocks: bool) -> tuple[Flight, ...] | None:
    """Says that whoever leads here waits for `flight`, and, if that `blocks`, whoever needs this
    thread's event loop. Returns what is led here; None where the wait would be for ever.
    """
    led = led_here.get()
    thread = threading.get_ident()
    with _waiting:
        pending, seen = [flight], {flight}
        while pending:
            other = pending.pop()
            if other in led or (blocks and other.loop_thread == thread):
                return None
            waited_for = list(other.waits_for or ())
            if other.loop_thread in _blocked:
                waited_for.append(_blocked[other.loop_thread])
            pending += [one for one in waited_for if one not in seen]
            seen.update(waited_for)
        for other in led:
            other.waits_for = [*(other.waits_for or ()), flight]
        if blocks:
            _blocked[thread] = flight
    return led


def _end_waiting(flight: Flight, led: tuple[Flight, ...], *, blocks: bool) -> None:
    with _waiting:
        for other in led:
            if other.waits_for:
                other.waits_for.remove(flight)
        if blocks:
            del _blocked[threading.get_ident()]


def _forget_others_flights() -> None:
    global _waiting
    _waiting = threading.Lock()
    _blocked.clear()
    led = led_here.get()
    for flights in list(SingleFlight._all):
        ours = {k: f for k, f in flights.under_way.items() if f in led}
        flights.under_way.clear()  # the same dict, as others refer to it
        flights.under_way.update(ours)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_others_flights)
