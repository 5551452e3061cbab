"""The cost of a lower tier and of tags: cold reads and sets beside diskcache, and hits without.

Method. Values of three sizes lie in a directory (`below=`) and in a diskcache.Cache beside it, on
the same file system. Each round opens new caches, as a restarted process does, and reads each value
once; then it sets each value again. Times are processor time of the caller's thread, all contenders
in turn, compared by the median of the rounds' ratios. `set` of a cache with a lower tier waits
until the old value is removed there. The new one is written behind; the wall time of waiting for
that is given apart.

Hits are of values in memory: a decorated function with `below=`, with `tags=`, and with neither.

Check: each value is compared, every cold read is a hit below, and no hit computes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import diskcache
import numpy as np

import vrange
from benchmarks import report
from benchmarks.interleave import interleaved, paired_ratio
from benchmarks.report import Target

SIZES = {"1 KiB": (1 << 10, 200), "100 KiB": (100 << 10, 50), "8 MiB": (8 << 20, 4)}
DIRECTORY, DISKCACHE, MEMORY = "below=directory", "diskcache", "without below"
MOST_OF_DISKCACHE = 1.0
MOST_OF_PLAIN_HIT = 1.05
MOST_OF_TAGS_US = 2.0
clock = time.thread_time
Cache = vrange.VolatileCache[Any, Any]


class Values:
    """Values of one size in each kind of cache."""

    def __init__(self, place: Path, nbytes: int, count: int) -> None:
        self._place = place
        self._values = [np.full(nbytes, key % 251, np.uint8) for key in range(count)]
        with self._below() as cache, self._disk() as disk:
            for key, value in enumerate(self._values):
                cache[key] = disk[key] = value
            assert cache.flush(300)
        self.behind: list[float] = []

    def _below(self) -> Cache:
        return Cache(name="values", below=self._place / "directory")

    def _disk(self) -> diskcache.Cache:
        return diskcache.Cache(str(self._place / "diskcache"))

    def _each(self, use: Callable[[int], Any]) -> float:
        """Return the µs that a use of one value takes."""
        begun = clock()
        for key in range(len(self._values)):
            use(key)
        return (clock() - begun) / len(self._values) * 1e6

    def _right(self, get: Callable[[int], Any]) -> float:
        found: list[Any] = []
        took = self._each(lambda key: found.append(get(key)))
        assert all(map(np.array_equal, found, self._values))
        return took

    def cold_below(self) -> float:
        with self._below() as cache:
            took = self._right(cache.get)
            assert cache.info().below_hits == len(self._values)
        return took

    def cold_diskcache(self) -> float:
        with self._disk() as disk:
            return self._right(disk.get)

    def set_below(self) -> float:
        with self._below() as cache:
            took = self._each(lambda key: cache.set(key, self._values[key]))
            begun = time.perf_counter()
            assert cache.flush(300)
            self.behind.append((time.perf_counter() - begun) / len(self._values) * 1e6)
        return took

    def set_diskcache(self) -> float:
        with self._disk() as disk:
            return self._each(lambda key: disk.set(key, self._values[key]))

    def set_memory(self) -> float:
        with Cache(name="values") as cache:
            return self._each(lambda key: cache.set(key, self._values[key]))


def hits(place: Path, rounds: int, count: int) -> dict[str, list[float]]:
    """Return the µs of a hit, by round."""

    def timed(**parameters: Any) -> Callable[[], float]:
        computed: list[int] = []

        @vrange.cached(name="hits", **parameters)
        def function(x: int) -> bytes:
            computed.append(x)
            return bytes(100)

        def time_hits() -> float:
            begun = clock()
            for _ in range(count):
                function(1)
            taken = clock() - begun
            assert len(computed) <= 1
            return taken / count * 1e6

        function(1)
        return time_hits

    ways = {"plain": timed(), "below": timed(below=place / "hits"), "tags": timed(tags="t")}
    return interleaved(ways, rounds)


def main() -> int:
    options = report.arguments(__doc__).parse_args()
    rounds = 3 if options.quick else 15
    figures: dict[str, dict[str, float]] = {}
    targets: list[Target] = []
    with tempfile.TemporaryDirectory() as folder:
        for size, (nbytes, count) in SIZES.items():
            place = Path(folder) / size.replace(" ", "")
            place.mkdir()
            values = Values(place, nbytes, max(2, count // 10) if options.quick else count)
            cold = {DIRECTORY: values.cold_below, DISKCACHE: values.cold_diskcache}
            sets = {
                DIRECTORY: values.set_below,
                DISKCACHE: values.set_diskcache,
                MEMORY: values.set_memory,
            }
            reads, writes = interleaved(cold, rounds), interleaved(sets, rounds)
            figures[size] = {
                **{f"cold, {name}": median(took) for name, took in reads.items()},
                **{f"set, {name}": median(took) for name, took in writes.items()},
                "written behind": median(values.behind),
            }
            for what, took in (("a cold read", reads), ("a set", writes)):
                ratio = paired_ratio(took[DIRECTORY], took[DISKCACHE])
                told = f"{what} of {size}, relative to diskcache"
                targets.append(Target(told, ratio, "at most", MOST_OF_DISKCACHE))
        found = hits(Path(folder), rounds, 2_000 if options.quick else 100_000)
    ratio = paired_ratio(found["below"], found["plain"])
    more = median(found["tags"]) - median(found["plain"])
    targets.append(Target("a hit with below=", ratio, "at most", MOST_OF_PLAIN_HIT))
    targets.append(Target("µs more for a hit with tags=", more, "at most", MOST_OF_TAGS_US))
    of_hits = {name: median(took) for name, took in found.items()}
    print(report.table([{"µs": size, **each} for size, each in figures.items()]))
    print(report.table([{"µs of a hit": "", **of_hits}]))
    measured = {"rounds": rounds, "us": figures, "hit_us": of_hits}
    status = report.write("lower_tier", options.results, measured, targets)
    return 0 if options.quick else status


if __name__ == "__main__":
    sys.exit(main())
