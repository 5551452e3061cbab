"""Events of asyncio and of trio: a task waits for one, and any thread may set it."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any


def running_loop() -> Any:
    """Return the asyncio event loop that runs in this thread, or None."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class AsyncioEvent:
    """An event that a task of asyncio waits for. Any thread may set it."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self._told = loop.create_future()

    def tell(self) -> None:
        """Wake the task, from any thread."""
        self.loop.call_soon_threadsafe(self._tell_here)

    def _tell_here(self) -> None:
        if not self._told.done():  # the task may have been cancelled
            self._told.set_result(None)

    async def wait(self, seconds: float | None) -> None:
        """Wait until told, or for so long."""
        if seconds is None:
            await self._told
        else:
            await sys.modules["asyncio"].wait([self._told], timeout=seconds)


class TrioEvent:
    """An event that a task of trio waits for, also with anyio on trio. Any thread may set it."""

    loop = None

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._told = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def tell(self) -> None:
        """Wake the task, from any thread."""
        self._token.run_sync_soon(self._told.set)

    async def wait(self, seconds: float | None) -> None:
        """Wait until told, or for so long."""
        with self._trio.move_on_after(float("inf") if seconds is None else seconds):
            await self._told.wait()


def event_here() -> AsyncioEvent | TrioEvent | None:
    """Return an event for the running task; None if it is neither of asyncio nor of trio."""
    trio = sys.modules.get("trio")
    if trio is not None:
        with suppress(RuntimeError):
            trio.lowlevel.current_task()
            return TrioEvent(trio)
    loop = running_loop()
    return None if loop is None else AsyncioEvent(loop)
