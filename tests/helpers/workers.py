"""Calls in threads and on event loops that fail where they would wait for ever."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vrange import VolatileCache
from vrange._cache.native_flights import answer_async

PATIENCE = 20  # seconds until a test gives up: a bound for a broken build, not a measurement


class Worker(threading.Thread):
    """Runs one call; `result` raises what it raised, and fails where it hangs."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self._call: Callable[[], Any] = lambda: call(*arguments)
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "it waits for ever"
        if self._error is not None:
            raise self._error
        return self._value


@contextmanager
def switching_every(seconds: float) -> Iterator[None]:
    """Threads take turns that often, so that they meet everywhere."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


class SingleFlight:
    """The computations of a cache that keeps none of the values: it has no room for any."""

    def __init__(self) -> None:
        self._core = VolatileCache[Any, Any](max_bytes=0, hot_bytes=0)._core
        self.run = self._core.get_or_compute

    async def run_async(self, key: Any, compute: Callable[[], Any]) -> Any:
        return await answer_async(self._core, key, compute)

    @property
    def under_way(self) -> int:
        return self._core.under_way


def waiters(cache: Any, key: object) -> int:
    """How many threads and tasks wait for a key."""
    flight = cache._core.flight(key)
    return 0 if flight is None else flight.waiting


def run_async(coroutine: Any) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(coroutine, PATIENCE)

    return asyncio.run(bounded())


def check_that_none_computes(cache: Any, *keys: Any) -> None:
    """If a computation were left under a key, another thread would wait for it."""
    for key in keys:
        cache.pop(key, None)
        assert Worker(cache.get_or_compute, key, lambda: "again").result() == "again"
        del cache[key]
