"""Giving back what was cleared, in a thread of its own.

A cache of a million entries is empty as soon as it is cleared, and its memory is given back in
steps (native/python/cache/clear.c). Each step is short, so that no other thread waits long for the
GIL.
"""

from __future__ import annotations

import threading
import time

from vrange._core import hit, lib

_AT_ONCE = 32  # entries, between two looks at the clock
_STEP_SECONDS = 0.0005  # with the GIL held; after it other threads run for a moment
_PAUSE_SECONDS = 0.0002


def give_back(core: hit.CacheCore) -> None:
    """Free in the background what `core` has cleared."""
    threading.Thread(target=_bury, args=(core,), name="vrange-clear").start()


def _bury(core: hit.CacheCore) -> None:
    lib.vrange_thread_name(b"vrange-clear")
    begun = time.monotonic()
    while core.bury(_AT_ONCE):
        if time.monotonic() - begun > _STEP_SECONDS:
            # Without a pause, this thread would win the GIL back before other threads wake up.
            time.sleep(_PAUSE_SECONDS)
            begun = time.monotonic()
