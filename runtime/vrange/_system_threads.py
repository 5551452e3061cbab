"""Threads of the system, even if the program has patched threading.

gevent's monkey patches turn threads into greenlets; one that waits in native code would stop the
whole program. So this module asks gevent for the original functions.
"""

from __future__ import annotations

import _thread
import sys
from typing import Any

__all__ = ["original"]


def original(name: str) -> Any:
    """Return the function of `_thread` under this name, as it was before gevent patched it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original("_thread", name)  # the function itself if it is not patched
    return getattr(_thread, name)
