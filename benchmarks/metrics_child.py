"""Times hits with the first library that it finds, on request: one line in, one figure out."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import vrange
from benchmarks import contender

HOT_VALUES, LARGE_BYTES = 64, 256 << 10


def main() -> None:
    computed = 0

    @vrange.cached(name="hot")
    def value(key: int) -> bytes:
        nonlocal computed
        computed += 1
        return key.to_bytes(100, "little")

    keys = list(range(1000, 1000 + HOT_VALUES))
    for key in keys * 2:
        value(key)
    cache = vrange.VolatileCache[int, Any](name="volatile", hot_bytes=0)
    cache[0] = np.ones(LARGE_BYTES, np.uint8)
    vrange.set_reserve(tick=10.0)  # what is timed is a hit, not the reserve

    def hot(seconds: float) -> float:
        passes, start = 0, time.thread_time()
        while (taken := time.thread_time() - start) < seconds:
            for _ in range(20):
                for key in keys:
                    value(key)
            passes += 20
        return taken / (passes * len(keys)) * 1e9

    def volatile(seconds: float) -> float:
        hits, start = 0, time.thread_time()
        while (taken := time.thread_time() - start) < seconds:
            for _ in range(1000):
                cache[0]
            hits += 1000
        return taken / hits * 1e9

    contender.tell("ready", library=vrange._native.__file__)
    for line in sys.stdin:
        what, seconds = line.split()
        ns = {"hot": hot, "volatile": volatile}[what](float(seconds))
        assert computed == HOT_VALUES, "a hit was none"
        assert cache.info().purged == 0, "taken without pressure"
        # cached() declares the type of the function that it was given.
        counted = value.cache_info().hot_hits
        recorded = vrange.stats().time_to_reallocate["cache", "resident"].count
        contender.tell(what, ns=ns, counted=counted, recorded=recorded)


if __name__ == "__main__":
    main()
