"""New threads of the program: NumPy's handler is theirs too, and executors' stacks can be trimmed.

NumPy's handlers are context-local and a new thread begins with an empty context (NEP 49), so each
thread has to be given it. What runs first in a thread is `Thread._bootstrap_inner`; it catches what
the thread raises, so a frame around it is in nobody's traceback.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vrange.autostart.record import Record
from vrange.stack_trim import register_thread

__all__ = ["numpy_handler", "watch"]

# What gives the calling thread the handler; None until NumPy was imported, or where it can't be.
numpy_handler: Callable[[], object] | None = None

_EXECUTORS = ("concurrent.futures.thread", "anyio._backends._asyncio")


def watch(*, stacks: bool, record: Record) -> None:
    """Have every thread that is started from now on prepared, once a process."""
    bootstrap: Callable[[threading.Thread], Any] = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def _bootstrap_inner(self: threading.Thread) -> Any:
        with suppress(Exception):
            if numpy_handler is not None:
                numpy_handler()
        with suppress(Exception):
            if stacks and is_executors(self):
                register_thread()
                record.registered_threads += 1
        return bootstrap(self)

    threading.Thread._bootstrap_inner = _bootstrap_inner  # type: ignore[attr-defined]


def is_executors(thread: threading.Thread) -> bool:
    """Whether the thread is a worker that waits for tasks, as an executor's."""
    target = getattr(thread, "_target", None)
    return getattr(target, "__module__", type(thread).__module__) in _EXECUTORS
