"""The program that runs under pressure: requests for a cache, and an application beside it.

A request asks for one of 1600 arrays of 256 KiB, with a popularity by Zipf's law. On a miss, the
array is decompressed, which takes about a millisecond. Meanwhile, in the same process, the
application takes memory and frees it. cache_under_pressure runs this in a child, which sends its
parent a line of JSON every `SAMPLE_REQUESTS` requests and after each phase.
"""

from __future__ import annotations

import os
import resource
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import contender
from benchmarks.peers import PEERS
from benchmarks.polling_lru import PollingLRU
from benchmarks.pressure_source import KEYS, VALUE_BYTES, Source
from vrange._cgroup.limits import memory_limit

PHASES = ("warm-up", "steady", "app takes memory", "freed")
SAMPLE_REQUESTS = 200
MB = 10**6


def requests(seed: int, per_phase: int) -> list[int]:
    """Return the same keys for every contender; a key is its rank in popularity."""
    weights = 1 / np.arange(1, KEYS + 1)
    cumulated = np.cumsum(weights / weights.sum())
    drawn = np.random.default_rng(seed).random(len(PHASES) * per_phase)
    keys: list[int] = np.minimum(np.searchsorted(cumulated, drawn), KEYS - 1).tolist()
    return keys


class Application:
    """The rest of the process: takes memory in the third phase, and frees it in the fourth.

    "ramp": 30 × 10 MB, evenly over the first half of the phase; "step" and "burst": 300 and 400 MB
    in one piece at its first request. NumPy asks for huge pages, so a step takes 2 MiB at a time.
    """

    def __init__(self, name: str, per_phase: int) -> None:
        pieces, megabytes = {"ramp": (30, 10), "step": (1, 300), "burst": (1, 400)}[name]
        self._pieces = pieces
        self._piece_bytes = megabytes * MB
        self._every = per_phase // 2 / pieces
        self._held: list[np.ndarray] = []

    @property
    def held_bytes(self) -> int:
        return len(self._held) * self._piece_bytes

    def step(self, phase: int, number: int) -> None:
        """Do what is due before a request."""
        if phase == 2 and len(self._held) < self._pieces:
            if number >= len(self._held) * self._every:
                self._held.append(np.ones(self._piece_bytes, np.uint8))
        elif phase == 3:
            self._held.clear()


def cached(task: dict[str, Any], compute: Callable[[int], Any]) -> Callable[[int], Any]:
    """Return the contender's version of `compute`."""
    if task["peer"] == "polling LRU":
        limit = memory_limit()
        assert limit.usage_path is not None, "the polling LRU needs a cgroup to poll"
        return PollingLRU(compute, limit.usage_path, limit.limit_bytes, **task.get("options", {}))
    megabytes = task.get("megabytes")
    entries = megabytes * (1 << 20) // VALUE_BYTES if megabytes else None
    return PEERS[task["peer"]](compute, entries)


def usage_reader() -> Callable[[], int]:
    path = memory_limit().usage_path
    if path is None:
        return lambda: 0
    file = os.open(path, os.O_RDONLY)
    return lambda: int(os.pread(file, 32, 0))


def run(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Serve all requests, and yield a summary of each phase."""
    per_phase = task["per_phase"]
    keys = requests(task["seed"], per_phase)
    source = Source(task["source"])
    computing_ns = 0

    def compute(key: int) -> np.ndarray:
        nonlocal computing_ns
        start = time.thread_time_ns()
        value = source.compute(key)
        computing_ns += time.thread_time_ns() - start
        return value

    get = cached(task, compute)
    application = Application(task["application"], per_phase)
    usage = usage_reader()
    clock = time.perf_counter_ns
    bad = 0
    for phase, name in enumerate(PHASES):
        hit_ns = array("q")
        hits_sampled = computing_ns = 0
        cpu = time.process_time()
        spent = resource.getrusage(resource.RUSAGE_SELF)
        wall = time.perf_counter()
        for number in range(per_phase):
            application.step(phase, number)
            key = keys[phase * per_phase + number]
            computed = source.computed
            start = clock()
            value = get(key)
            good = source.is_good(key, value)
            taken = clock() - start
            del value
            if source.computed == computed:
                hit_ns.append(taken)
            if not good:
                bad += 1
            if (number + 1) % SAMPLE_REQUESTS == 0:
                contender.tell(
                    "sample",
                    requests=phase * per_phase + number + 1,
                    hit_ratio=(len(hit_ns) - hits_sampled) / SAMPLE_REQUESTS,
                    usage_bytes=usage(),
                    application_bytes=application.held_bytes,
                )
                hits_sampled = len(hit_ns)
        cpu = time.process_time() - cpu
        wall = time.perf_counter() - wall
        now = resource.getrusage(resource.RUSAGE_SELF)
        ordered = np.sort(np.asarray(hit_ns))
        yield {
            "phase": name,
            "requests": per_phase,
            "hit_ratio": len(hit_ns) / per_phase,
            "requests_per_cpu_second": per_phase / cpu,
            "cpu_seconds": cpu,
            "computing_seconds": computing_ns / 1e9,
            "system_seconds": now.ru_stime - spent.ru_stime,
            "minor_faults": now.ru_minflt - spent.ru_minflt,
            "wall_seconds": wall,
            "hit_median_us": float(np.median(ordered)) / 1e3 if len(ordered) else None,
            "hit_p99_us": float(np.percentile(ordered, 99)) / 1e3 if len(ordered) else None,
            "bad": bad,
        }


def compute_ms(source: Source) -> float:
    """Return the cost of one value: the median of some."""
    taken = []
    for key in range(30):
        start = time.perf_counter()
        source.compute(key)
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2] * 1e3


def main() -> None:
    task = contender.task()
    contender.tell("source", compute_ms=compute_ms(Source(task["source"])))
    for phase in run(task):
        contender.tell("phase", **phase)


if __name__ == "__main__":
    main()
