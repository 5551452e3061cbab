"""How much is kept offered to the kernel, and how often that is looked after."""

from __future__ import annotations

import os
import threading
from typing import Any

from vrange._core import ffi, lib
from vrange.cgroup import memory_limit, memory_places
from vrange.cgroup_tree import NO_LIMIT, read_words
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
    memory limit, from 16 to 512 MiB, every 5 ms; and while more than twice as much is free below
    the limits of the process's cgroups, and four times as much on the machine, nothing is offered,
    since what is free does as well. Of a size that is given, so much is offered always.

    One setting a process, for all caches and arenas; may be called at any time from any thread, and
    holds in the child of a fork. To be called again where a process that runs is put into another
    cgroup, unless `vrange.pressure.watch` does so; until then it is taken to have no limit but the
    machine. Raises ValueError for a size or tick that is none, VrangeError where no thread can be
    started (then every range is offered as it is released).

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
    """Tells the native side which cgroups limit this process now."""
    places = memory_places()[: lib.VRANGE_CGROUPS]
    cgroups = ffi.new("vrange_cgroup[]", len(places))
    kept = []  # what a struct points to has to be held by somebody

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
        lib.vrange_headroom_watch(cgroups, 0)  # removed meanwhile, or not to be read


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
