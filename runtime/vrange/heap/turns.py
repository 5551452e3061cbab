"""One trims at a time: the lock of all trims of this process."""

from __future__ import annotations

import os
import threading

# A finalizer, or a handler of a signal, that trims while its thread does must not wait for itself.
lock = threading.RLock()


def _after_fork_in_child() -> None:
    global lock
    lock = threading.RLock()  # the parent's may have been held


os.register_at_fork(after_in_child=_after_fork_in_child)
