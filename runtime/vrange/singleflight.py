"""One computation per key at a time, across threads and tasks.

The first to ask leads, the others wait for its value. If the leader fails, its exception is its
own, and the next of those who waited leads. Waiting never deadlocks on itself: who leads one key
and would have to wait, directly or through other leaders, for somebody who waits for it, computes
instead of waiting, as functools.cache does.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, ClassVar


class _Flight:
    """One computation under way. Its future gives (succeeded, value)."""

    __slots__ = ("future", "waits_for")

    def __init__(self) -> None:
        self.future: Future[tuple[bool, Any]] = Future()
        self.waits_for: list[_Flight] = []


# By context, not by thread: a task started inside a computation belongs to it.
_led: ContextVar[tuple[_Flight, ...]] = ContextVar("vrange_led_flights", default=())
_waiting = threading.Lock()  # of every waits_for, so that two can't begin to wait for each other


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
            if not _begin_to_wait(flight):
                return compute()
            try:
                succeeded, value = flight.future.result()
            finally:
                _end_waiting(flight)
            if succeeded:
                return value

    async def run_async(self, key: Hashable, compute: Callable[[], Awaitable[Any]]) -> Any:
        """The same for a coroutine function; waiting lets the event loop run."""
        while True:
            mine = _Flight()
            flight = self._flights.setdefault(key, mine)
            if flight is mine:
                return await self._lead_async(key, mine, compute)
            if not _begin_to_wait(flight):
                return await compute()
            try:
                # Shielded: who stops waiting must not cancel it for the others.
                succeeded, value = await asyncio.shield(asyncio.wrap_future(flight.future))
            finally:
                _end_waiting(flight)
            if succeeded:
                return value

    def _lead(self, key: Hashable, mine: _Flight, compute: Callable[[], Any]) -> Any:
        token = _led.set((*_led.get(), mine))
        result: tuple[bool, Any] = (False, None)
        try:
            value = compute()
            result = (True, value)
            return value
        finally:
            _led.reset(token)
            self._land(key, mine, result)

    async def _lead_async(
        self, key: Hashable, mine: _Flight, compute: Callable[[], Awaitable[Any]]
    ) -> Any:
        token = _led.set((*_led.get(), mine))
        result: tuple[bool, Any] = (False, None)
        try:
            value = await compute()
            result = (True, value)
            return value
        finally:
            _led.reset(token)
            self._land(key, mine, result)

    def _land(self, key: Hashable, mine: _Flight, result: tuple[bool, Any]) -> None:
        if self._flights.get(key) is mine:
            del self._flights[key]
        mine.future.set_result(result)


def _begin_to_wait(flight: _Flight) -> bool:
    """Says that whoever leads here waits for `flight`; False where that would be for ever."""
    led = _led.get()
    with _waiting:
        pending, seen = [flight], {id(flight)}
        while pending:
            item = pending.pop()
            if item in led:
                return False
            for other in item.waits_for:
                if id(other) not in seen:
                    seen.add(id(other))
                    pending.append(other)
        for item in led:
            item.waits_for.append(flight)
    return True


def _end_waiting(flight: _Flight) -> None:
    with _waiting:
        for item in _led.get():
            item.waits_for.remove(flight)


def _forget_others_flights() -> None:
    global _waiting
    _waiting = threading.Lock()
    led = _led.get()
    for flights in list(SingleFlight._all):
        flights._flights = {key: f for key, f in flights._flights.items() if f in led}


os.register_at_fork(after_in_child=_forget_others_flights)
