"""Registers the workers of executors as they start, so that a trim reaches their stacks.

`Thread._bootstrap_inner` is the first function that runs in a thread. It catches what the thread
raises, so a frame around it appears in no traceback.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vrange._autostart.record import Record
from vrange._stacks.trim import register_thread

__all__ = ["is_executors", "register_executors"]

_EXECUTORS = (
    "concurrent.futures.thread",
    "anyio._backends._asyncio",
    "distributed.threadpoolexecutor",
)


def register_executors(record: Record) -> None:
    """Register every executor thread that is started from now on."""
    bootstrap: Callable[[threading.Thread], Any] = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def _bootstrap_inner(self: threading.Thread) -> Any:
        with suppress(Exception):
            if is_executors(self):
                register_thread()
                record.registered_threads += 1
        return bootstrap(self)

    threading.Thread._bootstrap_inner = _bootstrap_inner  # type: ignore[attr-defined]


def is_executors(thread: threading.Thread) -> bool:
    """Return whether the thread waits for tasks, as an executor's worker does."""
    target = getattr(thread, "_target", None)
    return getattr(target, "__module__", type(thread).__module__) in _EXECUTORS
