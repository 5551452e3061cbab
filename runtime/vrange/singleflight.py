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


class _Leader:
    """Who computes, and whom that waits for. `loop_thread` is where the event loop runs that has to
    go on for it, None where a thread of its own does.

    Apart from its flight, because contexts refer to it that live longer than the computed value.
    """

    __slots__ = ("loop_thread", "waits_for")

    def __init__(self, loop_thread: int | None) -> None:
        self.loop_thread = loop_thread
        self.waits_for: list[_Leader] = []


_Result = tuple[bool, Any]  # (succeeded, value)


class _Flight:
    """One computation under way, and who waits for it.

    Not a concurrent.futures.Future: that and asyncio cost more memory and time to import than all
    of vrange, and most computations have nobody waiting.
    """

    __slots__ = ("_result", "_waiters", "leader")

    def __init__(self, loop_thread: int | None = None) -> None:
        self._result: _Result | None = None
        self._waiters: list[Callable[[_Result], None]] | None = None
        self.leader = _Leader(loop_thread)

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
            result = self._result
            if result is None:
                self._waiters = [*(self._waiters or ()), tell]
                return
        tell(result)

    def land(self, result: _Result) -> None:
        """Tells the result to all who wait."""
        with _waiting:
            self._result = result
            waiters, self._waiters = self._waiters, None
        for tell in waiters or ():
            tell(result)


# By context, not by thread: a task started inside a computation belongs to it.
_led: ContextVar[tuple[_Leader, ...]] = ContextVar("vrange_led", default=())
_waiting = threading.Lock()  # of what is below, so that two can't begin to wait for each other
_blocked: dict[int, _Leader] = {}  # by thread, whom it waits for without running its event loop


class SingleFlight:
    """The computations under way for one cache. Safe from any thread; in the child of a fork, those
    of other threads of the parent are forgotten.
    """

    _all: ClassVar[weakref.WeakSet[SingleFlight]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}
        self._all.add(self)

    def run(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """compute(), or what another thread or task is just computing for the same key."""
        while True:
            mine = _Flight()
            flight = self._flights.setdefault(key, mine)
            if flight is mine:
                return self._lead(key, mine, compute)
            led = _begin_to_wait(flight.leader, blocks=True)
            if led is None:
                return compute()
            try:
                succeeded, value = flight.wait()
            finally:
                _end_waiting(flight.leader, led, blocks=True)
            if succeeded:
                return value

    async def run_async(self, key: Hashable, compute: Callable[[], Awaitable[Any]]) -> Any:
        """The same for a coroutine function; waiting lets the event loop run."""
        while True:
            mine = _Flight(threading.get_ident())
            flight = self._flights.setdefault(key, mine)
            if flight is mine:
                return await self._lead_async(key, mine, compute)
            led = _begin_to_wait(flight.leader, blocks=False)
            if led is None:
                return await compute()
            try:
                succeeded, value = await flight.wait_async()
            finally:
                _end_waiting(flight.leader, led, blocks=False)
            if succeeded:
                return value

    def _lead(self, key: Hashable, mine: _Flight, compute: Callable[[], Any]) -> Any:
        _led.set((*_led.get(), mine.leader))
        result: _Result = (False, None)
        try:
            value = compute()
            result = (True, value)
            return value
        finally:
            self._land(key, mine, result)

    async def _lead_async(
        self, key: Hashable, mine: _Flight, compute: Callable[[], Awaitable[Any]]
    ) -> Any:
        _led.set((*_led.get(), mine.leader))
        result: _Result = (False, None)
        try:
            value = await compute()
            result = (True, value)
            return value
        finally:
            self._land(key, mine, result)

    def _land(self, key: Hashable, mine: _Flight, result: _Result) -> None:
        if self._flights.get(key) is mine:
            del self._flights[key]
        mine.land(result)
        # Not by a token: a coroutine that nobody awaits any more is closed in another context.
        _led.set(tuple(leader for leader in _led.get() if leader is not mine.leader))


def _begin_to_wait(leader: _Leader, *, blocks: bool) -> tuple[_Leader, ...] | None:
    """Says that whoever leads here waits for `leader`, and, if that `blocks`, whoever needs this
    thread's event loop. Returns who leads here; None where the wait would be for ever.
    """
    led = _led.get()
    thread = threading.get_ident()
    with _waiting:
        pending, seen = [leader], {leader}
        while pending:
            other = pending.pop()
            if other in led or (blocks and other.loop_thread == thread):
                return None
            waited_for = list(other.waits_for)
            if other.loop_thread in _blocked:
                waited_for.append(_blocked[other.loop_thread])
            pending += [one for one in waited_for if one not in seen]
            seen.update(waited_for)
        for other in led:
            other.waits_for.append(leader)
        if blocks:
            _blocked[thread] = leader
    return led


def _end_waiting(leader: _Leader, led: tuple[_Leader, ...], *, blocks: bool) -> None:
    with _waiting:
        for other in led:
            other.waits_for.remove(leader)
        if blocks:
            del _blocked[threading.get_ident()]


def _forget_others_flights() -> None:
    global _waiting
    _waiting = threading.Lock()
    _blocked.clear()
    led = _led.get()
    for flights in list(SingleFlight._all):
        flights._flights = {k: f for k, f in flights._flights.items() if f.leader in led}


os.register_at_fork(after_in_child=_forget_others_flights)
