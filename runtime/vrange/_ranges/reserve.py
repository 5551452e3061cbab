"""The reserve's settings: how much is kept offered to the kernel, and how often that is checked."""

from __future__ import annotations

import os
import threading
from typing import Any

from vrange._cgroup.limits import memory_limit, memory_places
from vrange._cgroup.tree import NO_LIMIT, read_words
from vrange._core import ffi, lib
from vrange.errors import VrangeError
from vrange.sizes import parse_bytes

MIB = 1 << 20
_SHARE_OF_LIMIT = 8
_LEAST, _MOST = 16 * MIB, 512 * MIB
_TICK = 0.005

_lock = threading.Lock()
_started = False


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
    thread may call it at any time. If a running process is moved to another cgroup, call it again,
    unless `vrange.pressure.watch` does so; until then, only the machine is taken to limit the
    process.

    Examples
    --------
    >>> set_reserve("64MiB", tick=0.005)

    """
    global _started
    if bytes is None:
        wanted = min(max(memory_limit().limit_bytes // _SHARE_OF_LIMIT, _LEAST), _MOST)
    else:
        wanted = parse_bytes(bytes, "bytes")
    if tick is None:
        tick = _TICK
    if not 0.0001 <= tick <= 10:
        raise ValueError(f"tick must be 0.0001 to 10 seconds, not {tick!r}")
    with _lock:
        watch_limits()
        result = lib.vrange_reserve_start(wanted, int(tick * 1e9), bytes is not None)
        _started = True
    if result < 0:
        raise VrangeError(f"no thread can be started to keep the reserve (errno {-result})")


def watch_limits() -> None:
    """Pass the cgroups that limit this process now to the native side."""
    places = memory_places()[: lib.VRANGE_CGROUPS]
    cgroups = ffi.new("vrange_cgroup[]", len(places))
    kept = []  # holds the memory that the structs point to

    def path_of(name: str) -> Any:
        kept.append(ffi.new("char[]", os.fsencode(place.directory / name)))
        return kept[-1]

    for cgroup, place in zip(cgroups, places, strict=True):
        cgroup.usage = path_of(place.files.usage)
        cgroup.stat = path_of("memory.stat")
        for number, name in enumerate(place.files.limits):
            cgroup.limits[number] = path_of(name)
        above = read_words(place.limits_above) if place.limits_above is not None else {}
        cgroup.limit_above = above.get("hierarchical_memory_limit", NO_LIMIT)
    if lib.vrange_headroom_watch(cgroups, len(places)) < 0:
        lib.vrange_headroom_watch(cgroups, 0)  # the cgroups were removed, or can't be read


def ensure_reserve() -> None:
    """Start the reserve with its defaults if it has not been set."""
    if _started:
        return
    # Without a thread, every range is offered at release: slower, but still right.
    try:
        set_reserve()
    except VrangeError:
        lib.vrange_reserve_stop()


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held the old one


os.register_at_fork(after_in_child=_forget_lock)
