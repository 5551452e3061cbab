"""One process of the scale benchmark: a cache of a given size, and what operations cost there."""

from __future__ import annotations

import gc
import itertools
import json
import mmap
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from statistics import median
from typing import Any

from benchmarks import memory

REPEATS = 5  # of len, info, contains and fork
TIMED, BATCH = 1000, 50  # stores and hits, timed by batches
LOOKS_SECONDS = 0.0005
SETTLED_SECONDS = 0.3
CONTROL_SECONDS = 5.0
FRESH_BYTES = 8 * mmap.PAGESIZE


class Clock:
    """A thread that looks at the clock every half millisecond, and how late it was at most.

    It also touches fresh pages. So it is late if the GIL is held, and if page faults wait.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._ended = False
        self._pages = mmap.mmap(-1, FRESH_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended:
            begun = time.perf_counter()
            time.sleep(LOOKS_SECONDS)
            self._touch()
            self.longest = max(self.longest, time.perf_counter() - begun - LOOKS_SECONDS)

    def _touch(self) -> None:
        for at in range(0, FRESH_BYTES, mmap.PAGESIZE):
            self._pages[at] = 1
        self._pages.madvise(mmap.MADV_DONTNEED)

    def stop(self) -> float:
        self._ended = True
        self._thread.join()
        return self.longest


def watched(what: str, act: Callable[[], object]) -> dict[str, float]:
    """Run `act` while another thread looks at the clock, until its background work has ended.

    The same duration without `act` is the control.
    """
    clock, cpu, begun = Clock(), time.process_time(), time.perf_counter()
    act()
    seconds = time.perf_counter() - begun
    while any(thread.name == "vrange-clear" for thread in threading.enumerate()):
        time.sleep(0.005)
    whole = time.perf_counter() - begun
    time.sleep(0.01)
    found = {
        f"{what}": seconds,
        f"{what}, until all is freed": whole,
        f"{what}, longest gap": clock.stop(),
        f"{what}, CPU": time.process_time() - cpu,
    }
    control = Clock()
    time.sleep(min(whole, CONTROL_SECONDS) + 0.01)
    return found | {f"{what}, longest gap of the control": control.stop()}


def each(act: Callable[[], object]) -> float:
    """Return the median of a few runs."""
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        act()
        times.append(time.perf_counter() - begun)
    return median(times)


def per_item(items: Iterator[int], act: Callable[[int], object]) -> float:
    """Return the median time of an item, of batches."""
    times = []
    for _ in range(TIMED // BATCH):
        begun = time.perf_counter()
        for item in itertools.islice(items, BATCH):
            act(item)
        times.append((time.perf_counter() - begun) / BATCH)
    return median(times)


def fork_and_wait() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def measure(kind: str, entries: int) -> dict[str, float]:
    """Fill a cache, and time what users call."""
    import numpy as np

    import vrange

    value: Any = b"v" * 100 if kind == "small" else np.zeros(512)
    found: dict[str, float] = {"gc.collect before": each(gc.collect)}
    cache = vrange.VolatileCache[int, Any](name="scale", hot_bytes=0, max_entries=2 * entries)

    def fill() -> None:
        for key in range(entries):
            cache[key] = value

    fill()
    assert len(cache) == entries, f"{len(cache)} of {entries} entries were kept"
    fresh = iter(range(entries, entries + TIMED))
    found["store"] = per_item(fresh, lambda key: cache.set(key, value))
    known = iter(random.Random(1).sample(range(entries), TIMED))
    found["hit"] = per_item(known, cache.__getitem__)
    found["len"] = each(lambda: len(cache))
    found["info"] = each(cache.info)
    found["contains"] = each(lambda: 1 in cache)
    gc.collect()
    found["gc.collect"] = each(gc.collect)
    found["resident_bytes"] = memory.anonymous_bytes()
    time.sleep(SETTLED_SECONDS)
    found["fork"] = each(fork_and_wait)
    found |= watched("list", lambda: len(list(cache)))
    lost = entries // 10
    cache.discard(*range(lost))
    found |= watched("sweep of a tenth", lambda: len(cache))
    assert len(cache) <= entries + TIMED - lost
    found |= watched("clear", cache.clear)
    assert len(cache) == 0
    fill()
    assert len(cache) == entries
    return found | watched("close", cache.close)


def dict_fork(resident: int) -> dict[str, float]:
    """Return what a fork costs a process that has as much memory in a plain dict."""
    held: dict[int, bytes] = {}
    while memory.anonymous_bytes() < resident:
        for _ in range(max(1, (resident - memory.anonymous_bytes()) // 4500)):
            held[len(held)] = b"v" * (4000 + len(held) % 2)
    time.sleep(SETTLED_SECONDS)
    return {"fork": each(fork_and_wait)}


if __name__ == "__main__":
    with suppress(PermissionError):  # so that other programs are not what is measured
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    if sys.argv[1] == "dict":
        print(json.dumps(dict_fork(int(sys.argv[2]))))
    else:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
