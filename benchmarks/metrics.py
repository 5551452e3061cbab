"""The cost of observation: one sample, one scrape, and the hit path with and without recording.

Method. One sample: a loop in C over the recording function, minus the same loop over a function
that does nothing; per thread, for one thread, and for more threads than have histograms of their
own. A scrape: prometheus_client's generate_latest over a registry with only vrange's collector, in
a process with 20 used caches; beside it the collector's part, and generate_latest over the same
metrics when they are ready, which no collector can change. The hit path: the library as it is,
with a collector registered and scraped, and a second one compiled without recording
(-DVRANGE_WITHOUT_RECORDING), each in a process of its own, alternately; the median of the rounds'
ratios is compared. Times are the thread's processor time.

Check: the samples are counted, every cache is in the text, and the library that records has
recorded as many hits as were timed, the other none.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import prometheus_client
from cffi import FFI
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import vrange
from benchmarks import report
from benchmarks.contender import ROOT
from benchmarks.interleave import interleaved, paired_ratio
from benchmarks.report import Target
from vrange._core import ffi, lib

CACHES = 20
MOST_SCRAPE_MS, MOST_HIT_RATIO, MOST_SAMPLE_NS = 3.0, 1.03, 15.0
THREADS_PAST_THE_SHARDS = 12

LOOP = """
#include <stdint.h>
#include <time.h>
typedef void (*recorder)(int, int, uint64_t);
static void nothing(int kind, int latency, uint64_t ns) {
    __asm__ volatile("" ::"r"(kind + latency + ns));
}
static double run(void *function, uint64_t times) {
    recorder volatile record = function ? (recorder)function : nothing;
    struct timespec before, after;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    for (uint64_t i = 0; i < times; i++) record(4, 0, (i * 2654435761u) & 0xfffff);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    return (after.tv_sec - before.tv_sec) * 1e9 + (after.tv_nsec - before.tv_nsec);
}
"""


def native_loop(directory: Path) -> Any:
    """Return a function (recorder or NULL, times) that returns nanoseconds of processor time."""
    builder = FFI()
    builder.cdef("double run(void *function, uint64_t times);")
    builder.set_source("_recording_loop", LOOP, extra_compile_args=["-O2"])
    builder.compile(tmpdir=str(directory))
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module("_recording_loop").lib.run
    finally:
        sys.path.remove(str(directory))


def sample_ns(run: Any, times: int, threads: int) -> float:
    """Return the cost of one sample, as the median over the threads."""
    record = ffi.cast(
        "void *", int(ffi.cast("uintptr_t", ffi.addressof(lib, "vrange_latency_record")))
    )
    from_address = int(ffi.cast("uintptr_t", record))
    before = vrange.stats().time_to_free["heap", "released"].count
    found: list[float] = []

    def measure() -> None:
        empty = run(_pointer(0), times)
        found.append((run(_pointer(from_address), times) - empty) / times)

    workers = [threading.Thread(target=measure) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    counted = vrange.stats().time_to_free["heap", "released"].count - before
    assert counted == times * threads, f"{counted} of {times * threads} samples were counted"
    return median(found)


def _pointer(address: int) -> Any:
    loop_ffi = importlib.import_module("_recording_loop").ffi
    return loop_ffi.cast("void *", address)


class Ready(Collector):
    """A collector whose metrics are ready."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        return self._metrics


def thread_ms(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return (time.thread_time() - start) * 1e3


def scrape_ms(rounds: int) -> dict[str, float]:
    """Return the processor time of a scrape with 20 used caches, and of its parts."""
    caches = [
        vrange.VolatileCache[int, bytes](name=f"cache-{n}", hot_bytes="64KiB", arena_bytes="4MiB")
        for n in range(CACHES)
    ]
    for cache in caches:
        for key in range(30):
            cache.get_or_compute(key, lambda: os.urandom(9000))
            cache[key]
        cache.discard()
        for key in range(30):
            cache.get_or_compute(key, lambda: os.urandom(9000))
    registry = prometheus_client.CollectorRegistry()
    collector = vrange.metrics.register(registry)
    ready = prometheus_client.CollectorRegistry()
    ready.register(Ready(list(collector.collect())))
    contenders: dict[str, Callable[[], object]] = {
        "whole": lambda: prometheus_client.generate_latest(registry),
        "collector": lambda: list(collector.collect()),
        "prometheus_client": lambda: prometheus_client.generate_latest(ready),
    }
    timed = {name: functools.partial(thread_ms, call) for name, call in contenders.items()}
    found = {name: median(times) for name, times in interleaved(timed, rounds).items()}
    text = prometheus_client.generate_latest(registry)
    for cache in caches:
        assert f'vrange_bytes{{name="{cache.name}"'.encode() in text
        cache.close()
    return found | {"lines": float(text.count(b"\n"))}


def build(directory: Path, flags: str) -> Path:
    """Build the package again with these compiler options. Return where it can be imported."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir"]
    # A copy: a build in the tree would leave its objects there, and the next one would take them.
    tree = directory / "tree"
    shutil.copytree(
        ROOT, tree, ignore=shutil.ignore_patterns("*.so", "*.o", ".*", "build", "results")
    )
    subprocess.run(
        [*command, "--target", str(directory / "site"), str(tree)],
        env=os.environ | {"CFLAGS": flags},
        check=True,
    )
    return directory / "site"


class Child:
    """A process with one of the two libraries, which times hits on request."""

    def __init__(self, site: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.metrics_child"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(site)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.last: dict[str, Any] = {}
        assert self._answer()["library"].startswith(str(site)), "another library was loaded"

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        self.last = json.loads(self._process.stdout.readline())
        return self.last

    def ns(self, what: str, seconds: float) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {seconds}\n")
        self._process.stdin.flush()
        return float(self._answer()["ns"])

    def close(self) -> None:
        self._process.communicate("")


def hits(
    pairs: int, rounds: int, seconds: float, sites: dict[str, Path]
) -> dict[str, dict[str, list[float]]]:
    """Return times in ns of hits, by kind of hit and library.

    New pairs of processes are started now and then, because the places that the loader chooses
    change the times by some per cent.
    """
    found: dict[str, dict[str, list[float]]] = {
        what: {name: [] for name in sites} for what in ("hot", "volatile")
    }
    for _ in range(pairs):
        children = {name: Child(site) for name, site in sites.items()}
        for what, times in found.items():
            contenders = {
                name: functools.partial(child.ns, what, seconds) for name, child in children.items()
            }
            for name, measured in interleaved(contenders, rounds).items():
                times[name] += measured
        assert children["on"].last["recorded"] > 1000
        assert children["on"].last["counted"] > 1000
        assert children["off"].last["recorded"] == children["off"].last["counted"] == 0
        for child in children.values():
            child.close()
    return found


def main() -> int:
    args = report.arguments(__doc__).parse_args()
    pairs, rounds, seconds, times = (1, 3, 0.05, 100_000) if args.quick else (8, 7, 0.15, 5_000_000)
    with tempfile.TemporaryDirectory(prefix="vrange-bench-") as name:
        scrape = scrape_ms(20 if args.quick else 200)  # first: before there are a dozen threads
        run = native_loop(Path(name))
        sample = {
            "a thread's own histogram": sample_ns(run, times, 1),
            f"{THREADS_PAST_THE_SHARDS} threads": sample_ns(run, times, THREADS_PAST_THE_SHARDS),
        }
        flags = {"on": "", "off": "-DVRANGE_WITHOUT_RECORDING"}
        sites = {which: build(Path(name, which), flag) for which, flag in flags.items()}
        found = hits(pairs, rounds, seconds, sites)
    ratios = {what: paired_ratio(times["on"], times["off"]) for what, times in found.items()}
    print("one sample, ns:", {k: f"{v:.1f}" for k, v in sample.items()})
    print("a scrape, ms:", {k: f"{v:.2f}" for k, v in scrape.items()})
    for what, times_of in found.items():
        print(f"{what} hit, ns:", {k: f"{median(v):.1f}" for k, v in times_of.items()})
    print("ratio on to off:", {k: f"{v:.3f}" for k, v in ratios.items()})
    targets = []
    if not args.quick:
        targets = [
            Target("one sample, ns", sample["a thread's own histogram"], "at most", MOST_SAMPLE_NS),
            Target(f"a scrape of {CACHES} caches, ms", scrape["whole"], "at most", MOST_SCRAPE_MS),
            *(
                Target(f"{what} hit, recording on to off", ratio, "at most", MOST_HIT_RATIO)
                for what, ratio in ratios.items()
            ),
        ]
    measured = {
        "sample_ns": sample,
        "scrape_ms": scrape,
        "hit_ns": {w: {k: median(v) for k, v in times.items()} for w, times in found.items()},
        "hit_ratio": ratios,
        "rounds": pairs * rounds,
    }
    return report.write("metrics", args.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
