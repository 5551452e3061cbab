"""The threads that vrange starts are named, as top, gdb, perf and py-spy show them."""

from __future__ import annotations

from support import succeeds

# Every thread that the interpreter or NumPy starts by itself is there before vrange is used.
CHILD = """
import os, time
from pathlib import Path
import numpy as np
import vrange, vrange.pressure
{before}

def threads():
    found = {{}}
    for task in Path("/proc/self/task").iterdir():
        try:
            found[task.name] = (task / "comm").read_text().strip()
        except OSError:  # it has just ended
            pass
    return found

before = threads()
{use}
deadline = time.monotonic() + 20
while True:
    new = set(name for task, name in threads().items() if task not in before)
    if new == {names} or time.monotonic() > deadline:
        break
    time.sleep(0.001)
print(*sorted(new), flush=True)
os._exit(0)
"""


def names_after(use: str, names: set[str], before: str = "") -> set[str]:
    return set(succeeds(CHILD.format(use=use, names=names, before=before)).split())


def test_the_reserve_s_thread_is_named() -> None:
    use = "cache = vrange.VolatileCache(); cache[1] = np.ones(1 << 17)"
    assert names_after(use, {"vrange-reserve"}) == {"vrange-reserve"}


def test_the_watcher_s_threads_are_named() -> None:
    use = "watcher = vrange.pressure.watch(on_level=print)"
    assert names_after(use, {"vrange-pressure"}) == {"vrange-pressure"}


def test_the_thread_that_empties_a_cleared_cache_is_named() -> None:
    before = "cache = vrange.VolatileCache(hot_bytes=0)\n" + (
        "for key in range(300_000): cache[key] = (key, b'x' * 100)\n"
    )
    assert "vrange-clear" in names_after("cache.clear()", {"vrange-clear"}, before)


def test_a_trim_from_an_event_loop_is_named() -> None:
    use = """
import asyncio, threading, vrange.heap.trim
from vrange.heap import trim_lock
trim_lock.lock.acquire()  # the thread waits for it, so it can be seen
async def trim():
    return vrange.heap.trim()
asyncio.run(trim())
"""
    assert "vrange-trim" in names_after(use, {"vrange-trim"})
