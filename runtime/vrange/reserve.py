"""How much is kept offered to the kernel, and how often that is looked after."""

from __future__ import annotations

import os
import threading

from vrange._core import ffi, lib
from vrange.cgroup import memory_limit
from vrange.errors import VrangeError
from vrange.sizes import parse_bytes

MIB = 1 << 20
_SHARE_OF_LIMIT = 8
_LEAST, _MOST = 16 * MIB, 512 * MIB
_TICK = 0.005

_lock = threading.Lock()
_started = False


def set_reserve(bytes: int | str | None = None, tick: float | None = None) -> None:
    """Sets how many bytes are kept offered to the kernel, and how often (seconds) that is looked
    at.

    What is offered the kernel may take at any moment with nobody asked, so the reserve is what the
    process can grow by, in one step, without being killed. None is the default: an eighth of the
    memory limit, from 16 to 512 MiB, every 5 ms.

    One setting a process, for all caches and arenas; may be called at any time from any thread, and
    holds in the child of a fork. Raises ValueError for a size or tick that is none, VrangeError
    where no thread can be started (then every range is offered as it is released).

    >>> set_reserve("64MiB", tick=0.005)
    """
    global _started
    limit = memory_limit()
    if bytes is None:
        wanted = min(max(limit.limit_bytes // _SHARE_OF_LIMIT, _LEAST), _MOST)
    else:
        wanted = parse_bytes(bytes, "bytes")
    if tick is None:
        tick = _TICK
    if not 0.0001 <= tick <= 10:
        raise ValueError(f"tick must be 0.0001 to 10 seconds, not {tick!r}")
    path = ffi.NULL if limit.usage_path is None else limit.usage_path.encode()
    with _lock:
        result = lib.vrange_reserve_start(wanted, int(tick * 1e9), limit.limit_bytes, path)
        if result < 0 and path != ffi.NULL:  # usage matters on the eager rung only
            result = lib.vrange_reserve_start(wanted, int(tick * 1e9), limit.limit_bytes, ffi.NULL)
        _started = True
    if result < 0:
        raise VrangeError(f"no thread can be started to keep the reserve (errno {-result})")


def ensure_reserve() -> None:
    """Starts the reserve with its defaults if nobody has set it."""
    if _started:
        return
    # Without a thread every range is offered at release: slower, and still right.
    try:
        set_reserve()
    except VrangeError:
        lib.vrange_reserve_stop()


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_forget_lock)
