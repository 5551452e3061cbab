"""The lock of all trims of this process: one trim runs at a time."""

from __future__ import annotations

import os
import threading

# Reentrant: a finalizer or signal handler that trims during a trim of its thread must not deadlock.
lock = threading.RLock()


def _after_fork_in_child() -> None:
    global lock
    lock = threading.RLock()  # the parent's may have been held


os.register_at_fork(after_in_child=_after_fork_in_child)
