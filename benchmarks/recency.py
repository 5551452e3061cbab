"""What is hit on streams of requests: popularity that lasts, that moves on, and loops.

A hit counts for as much as computing the value takes, so that the figure of a mixed stream is the
share of the computing that the cache saves. Costs are stated and not measured: the figures are the
same in each run, but for the order in which values of the same worth are evicted.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from cachetools import LFUCache

import vrange
from benchmarks import report
from benchmarks.streams import REQUESTS, ROOM, STREAMS, WARM_UP, Stream

OURS, ENTRIES, LRU, LFU = "vrange", "vrange, max_entries", "LRU", "LFU"
LOOPS = ("loop", "epochs")
MOVING = ("moving front", "fast front", "moving window", "shift", "slow shift", "phases")
LASTING = ("Zipf 0.8", "Zipf 1.0", "Zipf 1.2", "scan", "mixed")
OF_LRU = 0.9
OF_LOOP = 0.6  # with room for 480 of 700 values, the best is .686

Look = Callable[[int], bool]  # requests a key; whether it was hit


def _ours(stream: Stream, **bounds: Any) -> Look:
    cache = vrange.VolatileCache[int, Any](name="stream", hot_bytes=0, **bounds)
    values = {size: np.ones(size, np.uint8) for size in map(stream.bytes_of, stream.keys)}

    def look(key: int) -> bool:
        if cache.get(key) is not None:
            return True
        cache._core.store(key, values[stream.bytes_of(key)], 0, stream.cost_ns(key))
        return False

    return look


def _lru(stream: Stream) -> Look:
    held: OrderedDict[int, int] = OrderedDict()
    used = 0

    def look(key: int) -> bool:
        nonlocal used
        if key in held:
            held.move_to_end(key)
            return True
        held[key] = stream.bytes_of(key)
        used += held[key]
        while used > stream.room_bytes:
            used -= held.popitem(last=False)[1]
        return False

    return look


def _lfu(stream: Stream) -> Look:
    cache: LFUCache[int, int] = LFUCache(stream.room_bytes, getsizeof=lambda size: size)

    def look(key: int) -> bool:
        if cache.get(key) is not None:
            return True
        cache[key] = stream.bytes_of(key)
        return False

    return look


CONTENDERS: dict[str, Callable[[Stream], Look]] = {
    OURS: lambda stream: _ours(stream, max_bytes=stream.room_bytes),
    ENTRIES: lambda stream: _ours(stream, max_entries=ROOM),
    LRU: _lru,
    LFU: _lfu,
}


def saved(stream: Stream, contender: str, requests: int = REQUESTS) -> float:
    """Return the share of the computing that the contender's hits save, after the warm-up."""
    look = CONTENDERS[contender](stream)
    for key in stream.keys[:WARM_UP]:
        look(key)
    counted = stream.keys[WARM_UP:requests]
    hits = sum(stream.cost_ns(key) for key in counted if look(key))
    return hits / sum(map(stream.cost_ns, counted))


def _targets(figures: dict[str, dict[str, float]]) -> list[report.Target]:
    moving = [
        report.Target(f"{name}, relative to LRU", found[OURS] / found[LRU], "at least", OF_LRU)
        for name, found in figures.items()
        if name in MOVING
    ]
    lasting = [
        report.Target(f"{name}, more than LRU", found[OURS] - found[LRU], "at least", 0)
        for name, found in figures.items()
        if name in LASTING
    ]
    loops = [
        report.Target(name, found[OURS], "at least", OF_LOOP)
        for name, found in figures.items()
        if name in LOOPS
    ]
    return moving + lasting + loops


def main() -> int:
    options = report.arguments(__doc__).parse_args()
    names = ["moving front", "Zipf 1.0", "loop"] if options.quick else list(STREAMS)
    figures: dict[str, dict[str, float]] = {}
    for name in names:
        stream = STREAMS[name]()
        equal = stream.room_bytes == ROOM * 4096
        figures[name] = {
            contender: saved(stream, contender)
            for contender in CONTENDERS
            if equal or contender != ENTRIES
        }
    columns = list(CONTENDERS)
    rows = [
        {"stream": name, **{each: found.get(each, float("nan")) for each in columns}}
        for name, found in figures.items()
    ]
    print(report.table(rows))
    measured = {"room": ROOM, "requests": REQUESTS, "figures": figures}
    return report.write("recency", options.results, measured, _targets(figures))


if __name__ == "__main__":
    sys.exit(main())
