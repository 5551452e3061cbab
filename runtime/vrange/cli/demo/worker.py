"""The demo's child: one process with a cache, requests for it, and an application beside it.

The process and its application share one memory limit. Requests in skewed order come all the time.
In one phase the application takes most of the limit, half of it step by step and the rest at once,
and then frees it. The child reports everything to its parent line by line, so that the parent knows
how far the child came even if it is killed.
"""

from __future__ import annotations

import signal
import statistics
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import psutil

from vrange._cgroup.limits import memory_usage
from vrange._counters.stats import stats
from vrange._ranges.capabilities import capabilities
from vrange.cli.demo.contenders import Cache, Dict, Lru, Volatile
from vrange.cli.demo.material import Key, NotPython, Value, choose, make, stamp
from vrange.cli.demo.messages import (
    PHASES,
    Job,
    Latency,
    Message,
    Result,
    Sample,
    Sizing,
    from_line,
    to_line,
)

__all__ = ["main"]

MIB = 1 << 20
SEED = 2013
SAMPLE_SECONDS = 0.2
APP_STEP_BYTES = 4 * MIB
APP_STEPS_SHARE = 0.5  # of what the application takes, in steps; it takes the rest at once
APP_TAKES_BY = 0.4  # the fraction of the phase's requests after which the application has all
REQUESTS_A_SECOND = 400
LEFT_FOR_VALUES = 0.4  # of their bytes, once the application has its share,
LEFT_LEAST = 1 / 6  # but at least this fraction of the limit: a tenth may be hot and stays
KERNEL_BYTES = 4 * MIB  # page tables and the like, which count but are not visible here
REQUESTS_AT_ONCE = 4096
LOOK_EVERY = 16  # requests between two checks of the limit, if no cgroup enforces it


class _Over(Exception):
    """Without a cgroup: usage would exceed the limit, so the process would be killed here."""


class Process:
    """One run of one contender."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.cache: Cache
        match job.contender:
            case "vrange":
                self.cache = Volatile()
            case "dict":
                self.cache = Dict()
            case "LRU":
                self.cache = Lru(job.lru_bytes)
        self.app: list[np.ndarray[tuple[int], np.dtype[np.uint8]]] = []
        self.app_bytes = 0  # that the application is to take
        self.base_bytes = 0  # the usage besides values
        self.stamps: dict[Key, int] = {}
        self.recency: OrderedDict[Key, None] = OrderedDict()  # used if no cgroup enforces the limit
        self.phase = ""
        self.started = self.sampled = 0.0
        self.requests = self.recomputed = self.wrong = 0
        self.recompute_seconds = self.waited_seconds = 0.0
        self.hit_seconds: list[float] = []
        self.counts_before = (0, 0)
        self._self = psutil.Process()

    def run(self) -> Result:
        """Run all phases, and return the result."""
        rng = np.random.default_rng(SEED)
        keys = choose(self.job.value_bytes, rng)
        try:
            keys = self.fill(keys)
            self.size(keys)
            requests = skewed(keys, rng)
            for phase in PHASES[1:]:
                self.serve(phase, requests)
        except _Over:
            return Result(over=True)
        return Result(latencies()) if self.job.contender == "vrange" else Result()

    def fill(self, keys: list[Key]) -> list[Key]:
        """Request each value once, and return the keys that have one."""
        self.begin("fill")
        good = []
        for key in keys:
            try:
                self.request(key)
            except NotPython:
                continue
            good.append(key)
            if len(good) == self.job.values:
                break
            if self.job.values is None and self.elapsed() > self.job.fill_seconds:
                break
        self.sample(last=True)
        return good

    def size(self, keys: list[Key]) -> None:
        """Determine how much the application must take so that some values have to go."""
        value_bytes = self.value_bytes()
        self.base_bytes = max(0, self.anonymous_bytes() - value_bytes) + KERNEL_BYTES
        left = int(max(LEFT_FOR_VALUES * value_bytes, LEFT_LEAST * self.job.limit_bytes))
        share = max(0, self.job.limit_bytes - self.base_bytes - left)
        self.app_bytes = share if self.job.app_bytes is None else self.job.app_bytes
        files = len({path for _, path in keys})
        rung = capabilities().rung
        tell(Sizing(len(keys), files, value_bytes, self.base_bytes, self.app_bytes, rung))

    def serve(self, phase: str, requests: Iterator[Key]) -> None:
        """Serve the requests of a phase as they arrive, or as soon as possible after that.

        Each contender gets the same requests, and at each one the application has made the same
        progress.
        """
        if phase == "after":
            self.app.clear()
        self.begin(phase)
        count = int(self.job.phase_seconds * REQUESTS_A_SECOND)
        for number in range(count):
            if phase == "during":
                self.take(number / count / APP_TAKES_BY)
            early = number / REQUESTS_A_SECOND - self.elapsed()
            if early > 0:
                time.sleep(early)
            self.request(next(requests))
        self.sample(last=True)

    def elapsed(self) -> float:
        """Return the seconds since the phase began."""
        return time.perf_counter() - self.started

    def take(self, progress: float) -> None:
        """Let the application take its due; at a `progress` of 1 it has everything."""
        due = self.app_bytes if progress >= 1 else self.app_bytes * progress * APP_STEPS_SHARE
        missing = int(due) - self.taken_bytes()
        if missing >= APP_STEP_BYTES or (progress >= 1 and missing > 0):
            self.sample()  # if it is killed, this is the last sample
            if not self.job.enforced:
                self.stay_below(missing)
            self.app.append(np.ones(missing, np.uint8))
            self.sample()

    def request(self, key: Key) -> None:
        """Request a value, use it, and check that it is the right one."""
        computed = self.recomputed
        asked = time.perf_counter()

        def compute() -> Value:
            started = time.perf_counter()
            value = make(key)
            self.recompute_seconds += time.perf_counter() - started
            self.recomputed += 1
            return value

        value = self.cache.get(key, compute)
        now = time.perf_counter()
        self.waited_seconds += now - asked
        if self.recomputed == computed:
            self.hit_seconds.append(now - asked)
        self.requests += 1
        seen = stamp(value)
        self.wrong += self.stamps.setdefault(key, seen) != seen
        del value
        if not self.job.enforced:
            self.recency[key] = None
            self.recency.move_to_end(key)
            if self.app and self.requests % LOOK_EVERY == 0:
                self.stay_below()
        if now - self.sampled > SAMPLE_SECONDS:
            self.sample()

    def stay_below(self, coming: int = 0) -> None:
        """Without a cgroup: do what a limit would do before `coming` more bytes are used."""
        if self.job.contender != "vrange":
            if self.usage_bytes() + coming > self.job.limit_bytes:
                raise _Over
            return
        left = self.job.limit_bytes - self.base_bytes - self.taken_bytes() - coming
        while self.recency and self.value_bytes() > left:
            oldest, _ = self.recency.popitem(last=False)
            self.cache.discard(oldest)

    def value_bytes(self) -> int:
        """Return the bytes of values that use memory."""
        states = self.cache.bytes_by_state()
        return sum(size for state, size in states.items() if state not in ("hot", "purged"))

    def taken_bytes(self) -> int:
        """Return the bytes that the application has."""
        return sum(chunk.nbytes for chunk in self.app)

    def anonymous_bytes(self) -> int:
        """Return the resident bytes of this process that no file backs."""
        memory = self._self.memory_info()
        return int(memory.rss - memory.shared)

    def usage_bytes(self) -> int:
        """Return the usage that counts: the cgroup's, or this process's own."""
        return memory_usage() if self.job.enforced else self.anonymous_bytes()

    def begin(self, phase: str) -> None:
        """Reset the counters for a new phase."""
        self.phase = phase
        self.started = time.perf_counter()
        self.requests = self.recomputed = self.wrong = 0
        self.recompute_seconds = self.waited_seconds = 0.0
        self.hit_seconds.clear()
        self.counts_before = self.cache.counts()
        self.sample()

    def sample(self, *, last: bool = False) -> None:
        """Report the progress."""
        now = time.perf_counter()
        hits, purged = self.cache.counts()
        hits_before, purged_before = self.counts_before
        self.sampled = now
        tell(
            Sample(
                phase=self.phase,
                seconds=now - self.started,
                requests=self.requests,
                hits=hits - hits_before,
                purged=purged - purged_before,
                recomputed=self.recomputed,
                recompute_seconds=self.recompute_seconds,
                waited_seconds=self.waited_seconds,
                wrong=self.wrong,
                app_bytes=self.taken_bytes(),
                usage_bytes=self.usage_bytes(),
                bytes=self.cache.bytes_by_state(),
                hit_median_seconds=statistics.median(self.hit_seconds)
                if last and self.hit_seconds
                else None,
                last=last,
            )
        )


def skewed(keys: list[Key], rng: np.random.Generator) -> Iterator[Key]:
    """Yield keys forever; the n-th most popular one n times as rarely as the first (Zipf).

    The same keys and generator give the same requests, so every contender gets the same ones.
    """
    weights = 1.0 / np.arange(1, len(keys) + 1)
    weights /= weights.sum()
    popular = rng.permutation(len(keys))
    while True:
        for rank in rng.choice(len(keys), REQUESTS_AT_ONCE, p=weights):
            yield keys[popular[rank]]


def latencies() -> list[Latency]:
    """Return the caches' latencies that the native side measured."""
    now = stats()
    figures = {
        "time-to-free, released": now.time_to_free["cache", "released"],
        "time-to-free, offered": now.time_to_free["cache", "offered"],
        "time-to-reallocate, resident": now.time_to_reallocate["cache", "resident"],
        "time-to-reallocate, purged": now.time_to_reallocate["cache", "purged"],
    }
    return [
        Latency(what, figure.count, figure.percentile(50), figure.percentile(99))
        for what, figure in figures.items()
        if figure.count
    ]


def tell(message: Message) -> None:
    """Send a message to the parent."""
    sys.stdout.write(to_line(message))
    sys.stdout.flush()


def main(line: str) -> None:
    """Do the job that `line` describes."""
    # If the parent is gone, the next message ends this process; an interrupt ends it at once.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    job = from_line(line)
    if not isinstance(job, Job):
        raise TypeError(f"expected a Job, not {type(job).__name__}")
    tell(Process(job).run())
