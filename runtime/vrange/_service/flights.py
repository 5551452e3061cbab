"""One computation per key at a time, among all threads and tasks of all processes.

The leader of a computation is found through the index. A caller that waits for it sleeps in short
steps, so that a leader that was killed or stopped is noticed, and a signal handler runs in time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from contextvars import ContextVar
from typing import Any

from vrange._core import ffi, lib
from vrange._service.index import Index

__all__ = ["Flight", "led_here"]

_STEP_NS = 40_000_000
_TASK_STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01)

# Those that this thread or task leads, the outermost first.
led_here: ContextVar[tuple[Flight, ...]] = ContextVar("vrange_led_by_service", default=())

# Those that each thread leads, in whatever task or greenlet. A thread that sleeps runs none.
_led_by_thread: defaultdict[int, list[Flight]] = defaultdict(list)


class Flight:
    """A computation that this caller leads, or that it waits for."""

    _thread: int | None = None

    def __init__(self, index: Index) -> None:
        self._index = index
        self.native = ffi.new("vrange_shared_flight *")
        self._member = lib.vrange_shared_identity(index.pointer)
        self.skipped = False

    @classmethod
    def begin(cls, index: Index, digest: bytes) -> Flight | None:
        """Lead the computation of a key, or find its leader. None: compute without."""
        flight = cls(index)
        # A signal handler may raise as soon as it leads: then it lands as it is dropped.
        result = lib.vrange_shared_lead(index.pointer, digest, flight.native)
        return flight if result in (lib.VRANGE_OK, lib.VRANGE_HELD) else None

    @property
    def leads(self) -> bool:
        """Whether this caller computes."""
        return bool(self.native.leads)

    @property
    def landing(self) -> int:
        """The number of the landing that ends this flight."""
        return int(self.native.landings)

    def __enter__(self) -> Flight:
        led_here.set((*led_here.get(), self))
        self._thread = threading.get_native_id()
        _led_by_thread[self._thread].append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._land()
        led_here.set(tuple(one for one in led_here.get() if one is not self))
        thread, self._thread = self._thread, None
        led = _led_by_thread.get(thread, []) if thread is not None else []
        if self in led:
            led.remove(self)
        if thread is not None and not led:
            _led_by_thread.pop(thread, None)

    def _land(self) -> None:
        # The child of a fork is another member: the flight is its parent's.
        if self.leads and lib.vrange_shared_identity(self._index.pointer) == self._member:
            lib.vrange_shared_land(self._index.pointer, self.native)
        self.native.leads = 0

    def __del__(self) -> None:
        if self.leads:
            self._land()

    # ---- waiting -------------------------------------------------------------------------------

    def wait(self, until: float | None) -> bool:
        """Wait for the leader. False if that takes too long, or would never end."""
        own = _led_by_thread.get(threading.get_native_id(), ())
        led = self._begin_to_wait(tuple(own))
        try:
            while True:
                if self._never_ends(led):
                    return False
                if self._has_landed(_STEP_NS):
                    return True
                if until is not None and time.monotonic() >= until:
                    return False
        finally:
            self._end_waiting(led)

    async def wait_async(self, until: float | None) -> bool:
        """Do the same while other tasks run."""
        sleep = _sleep_of_loop()
        if sleep is None:
            return False
        led = self._begin_to_wait(led_here.get())
        step = 0
        try:
            while True:
                if self._never_ends(led):
                    return False
                if self._has_landed(0):
                    return True
                if until is not None and time.monotonic() >= until:
                    return False
                await sleep(_TASK_STEPS[step])
                step = min(step + 1, len(_TASK_STEPS) - 1)
        finally:
            self._end_waiting(led)

    def _begin_to_wait(self, led_by_waiter: tuple[Flight, ...]) -> list[Flight]:
        led = [one for one in led_by_waiter if one._index is self._index]
        for one in led:
            lib.vrange_shared_waits_for(self._index.pointer, one.native, self.native.number)
        return led

    def _end_waiting(self, led: list[Flight]) -> None:
        for one in led:
            lib.vrange_shared_waits_for(self._index.pointer, one.native, -1)

    def _never_ends(self, led: list[Flight]) -> bool:
        if not led:
            return False
        flights = ffi.new("vrange_shared_flight[]", [one.native[0] for one in led])
        number = self.native.number
        return bool(lib.vrange_shared_leads_to(self._index.pointer, number, flights, len(led)))

    def _has_landed(self, nanoseconds: int) -> bool:
        held = lib.vrange_shared_wait(self._index.pointer, self.native, nanoseconds)
        return bool(held != lib.VRANGE_HELD)


def _sleep_of_loop() -> Any:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return None  # another library's loop: this task computes by itself
    return asyncio.sleep


os.register_at_fork(after_in_child=_led_by_thread.clear)
