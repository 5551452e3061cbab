"""The reserve's settings: how much is kept offered to the kernel, and how often that is checked."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from vrange._cgroup.limits import memory_limit
from vrange._core import ffi, lib
from vrange._ranges.limit_finders import find_limits
from vrange.errors import VrangeError
from vrange.sizes import parse_bytes

MIB = 1 << 20
_SHARE_OF_LIMIT = 8
_LEAST, _MOST = 16 * MIB, 512 * MIB
_TICK = lib.VRANGE_TICK_NS * 1e-9

_lock = threading.Lock()
_started = False
_follows_limit = False
_tick_seconds = _TICK


def set_reserve(bytes: int | str | None = None, tick: float | None = None) -> None:
    """Set how many bytes are kept offered to the kernel, and how often that is checked.

    The kernel may reclaim what is offered at any moment, without asking the process. So the process
    can grow by the size of the reserve in one step without being killed.

    Parameters
    ----------
    bytes : int or str, optional
        The size of the reserve, which is then always offered. The default is an eighth of the
        memory limit, from 16 to 512 MiB. With the default, nothing is offered while more than twice
        as much is free below the limits of the process's cgroups, and four times as much on the
        machine: free memory serves the same purpose.
    tick : float, optional
        The seconds between two checks, from 0.0001 to 10. The default is 5 ms.

    Raises
    ------
    ValueError
        If `bytes` is not a size, or `tick` is out of range.
    VrangeError
        If no thread can be started. Every range is then offered when it is released.

    Notes
    -----
    The setting applies to all caches and arenas of the process, and to the child of a fork. Any
    thread may call it at any time. If a running process is moved to another cgroup, its limits are
    found there within a second or two; the default size stays that of the first limit until this is
    called again.

    Examples
    --------
    >>> set_reserve("64MiB", tick=0.005)

    """
    global _started, _follows_limit, _tick_seconds
    if bytes is None:
        wanted = min(max(memory_limit().limit_bytes // _SHARE_OF_LIMIT, _LEAST), _MOST)
    else:
        wanted = parse_bytes(bytes, "bytes")
    if tick is None:
        tick = _TICK
    if not 0.0001 <= tick <= 10:
        raise ValueError(f"tick must be 0.0001 to 10 seconds, not {tick!r}")
    with _lock:
        result = lib.vrange_reserve_start(wanted, int(tick * 1e9), bytes is not None)
        _started = True
        _follows_limit = bytes is None
        _tick_seconds = tick
    find_limits()
    if result < 0:
        raise VrangeError(f"no thread can be started to keep the reserve (errno {-result})")


def ensure_reserve() -> None:
    """Start the reserve with its defaults if it has not been set."""
    if _started:
        return
    # Without a thread, every range is offered at release: slower, but still right.
    try:
        set_reserve()
    except VrangeError:
        lib.vrange_reserve_stop()


def offer(nbytes: int) -> int:
    """Offer the least valuable idle ranges now, until `nbytes` are offered. Return how many were.

    Nothing is offered on the eager rung.
    """
    return int(lib.vrange_reserve_offer(nbytes))


def offered_bytes() -> int:
    """Return the bytes that are offered, and that the kernel has not taken as far as is known."""
    info = ffi.new("vrange_reserve_info *")
    lib.vrange_reserve_read(info)
    return int(info.offered_bytes)


def follow_limit() -> None:
    """Fit the reserve to a limit that was set, unless its size was given."""
    if _follows_limit:
        with suppress(VrangeError):  # without a thread, each range is offered when it is released
            set_reserve(tick=_tick_seconds)


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held the old one


os.register_at_fork(after_in_child=_forget_lock)
