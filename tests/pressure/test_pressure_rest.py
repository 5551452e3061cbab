"""A watcher beside a cache rests while nothing changes, and is roused when something does."""

from __future__ import annotations

import pytest
from cgroup_support import in_cgroup

pytestmark = pytest.mark.memory_cgroup

PRELUDE = """
    import queue, sys, time
    import numpy as np, vrange
    levels = queue.Queue()
    watcher = vrange.pressure.watch(
        interval=0.02, min_interval=0, stalled=1, on_level=lambda change: levels.put(change.level))
    cache = vrange.VolatileCache(hot_bytes=0)
    cache["k"] = np.ones(100_000)
    time.sleep(3)
"""


def test_it_looks_seldom_while_nothing_changes() -> None:
    code = (
        PRELUDE
        + """
    before = watcher.info().polls
    time.sleep(3)
    print(watcher.info().polls - before, watcher.level)
    """
    )
    polls, level = in_cgroup(code).split()
    assert int(polls) < 15, "every fifth interval would be 30 times"
    assert level == "normal"


def test_it_hears_of_memory_that_is_used_while_it_rests() -> None:
    code = (
        PRELUDE
        + """
    held = []
    while levels.empty() and len(held) < int(sys.argv[1]):
        held.append(np.ones(1 << 20))
        time.sleep(0.1)
    print(levels.get(timeout=20))
    """
    )
    assert in_cgroup(code, 33, limit=320 << 20) in ("elevated", "critical")


def test_it_goes_on_looking_once_no_cache_is_open() -> None:
    """Then the caretaker reads no figure that would show a change."""
    code = """
    import time, vrange
    cache = vrange.VolatileCache()
    cache["k"] = b"x" * 100_000
    cache.close()
    watcher = vrange.pressure.watch(interval=0.1)
    time.sleep(2)
    turns, looks = vrange.stats().reserve.ticks, watcher.info().polls
    while vrange.stats().reserve.ticks < turns + 4:
        time.sleep(0.1)
    print(watcher.info().polls - looks)
    """
    assert int(in_cgroup(code, limit=320 << 20)) >= 2
