"""Threads of the system, even if the program has patched threading.

gevent's monkey patches turn threads into greenlets; one that waits in native code would stop the
whole program. So this module asks gevent for the original functions.
"""

from __future__ import annotations

import _thread
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["original", "without_signals"]

# The kernel sends these to the thread that causes them, and ends the process if it blocks them.
_OF_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
_BLOCKED = signal.valid_signals() - _OF_FAULTS


def original(name: str) -> Any:
    """Return the function of `_thread` under this name, as it was before gevent patched it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original("_thread", name)  # the function itself if it is not patched
    return getattr(_thread, name)


@contextmanager
def without_signals() -> Iterator[None]:
    """Let threads that are started meanwhile take no signal that is sent to the process.

    A program may block a signal in its threads, and wait for it (sigwait, signalfd). It would be
    delivered to a thread that does not block it, and usually end the process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
