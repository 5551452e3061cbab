"""Answers of a computation that another thread or task leads, for the native core.

The native core leads computations and finds those of other callers (native/python/cache). Python
does the waiting: see waiting.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from vrange._cache.collector import copy_within_room
from vrange._cache.task_events import running_loop
from vrange._cache.unstored import copied
from vrange._cache.waiting import Waits, raise_shared
from vrange._core import hit

_waits = Waits(hit)
led_here = _waits.led_here


def answer_after(timeout: float | None, flight: hit.Flight) -> Any:
    """Return a flight's value; the flight itself if the wait takes too long or would never end.

    NotImplemented: the flight landed without a value, and the caller looks the key up again.
    """
    waiter = _waits.wait(flight, timeout)
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
        waiter = await _waits.wait_async(answer, timeout)
        if waiter is None:
            core.count_request(False)
            return await _answer_unstored(core, function)
        is_answer = waiter.state in (hit.HAS_VALUE, hit.HAS_ERROR)
        if is_answer:
            core.count_request(True)
        outcome, has_waited = _outcome(waiter), True
        if outcome is not NotImplemented:
            if not is_answer:
                core.count_request(True)
            return outcome
        if core.closed:  # while this caller waited
            return await _answer_unstored(core, function)


async def _answer_unstored(core: hit.CacheCore, function: Callable[[], Awaitable[Any]]) -> Any:
    begun = time.monotonic_ns()
    value = await function()
    return core.unstored(value, time.monotonic_ns() - begun)


def _outcome(waiter: hit.Waiter) -> Any:
    if waiter.state == hit.HAS_VALUE:
        return waiter.result()
    if waiter.state == hit.HAS_ERROR:
        raise_shared(waiter.result())
    if waiter.state == hit.HAS_TEMPLATE:
        try:
            return _copied(waiter.result())
        except Exception:  # for example, there is no room: the caller computes
            return NotImplemented
    return NotImplemented


def _forget_others() -> None:
    hit.forget_waiting()
    hit.forget_flights(led_here.get())


def _copied(value: Any) -> Any:
    return copied(value, copy_within_room)


hit.set_copy(_copied)
os.register_at_fork(after_in_child=_forget_others)
