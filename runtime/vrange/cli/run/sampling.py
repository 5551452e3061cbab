"""The memory of a program and its children over time, measured from outside.

A sample reads one line of /proc per process. The cost of a sample determines how often one is
taken: samples, looking children up and reading LazyFree each use at most a thousandth of a
processor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from vrange._cgroup.limits import MemoryLimit, memory_limit, usage_of
from vrange._counters.lazyfree import lazyfree_bytes
from vrange.cli.run.family import Family

__all__ = ["Sample", "Sampler"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHARE = 1e-3
_SECONDS_LEAST = 0.05
_FAMILY_SECONDS = 0.2  # the interval at which children are looked up
_SAMPLES_MOST = 4096

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes
    ----------
    seconds : float
        The time since the start.
    rss_bytes : int
        The resident bytes of all processes.
    cgroup_bytes : int or None
        The bytes of the cgroup.
    processes : int
        The number of processes.
    lazyfree_bytes : int or None
        What of the resident bytes the kernel may reclaim at any moment; None if it was not read
        for this sample.

    """

    seconds: float
    rss_bytes: int
    cgroup_bytes: int | None
    processes: int
    lazyfree_bytes: int | None = None


class _Budget(Generic[T]):
    """Calls a function as often as its share of a processor allows."""

    def __init__(self, function: Callable[[], T], least_seconds: float) -> None:
        self._function = function
        self._least = least_seconds
        self._due = 0.0

    def call(self, now: float) -> T | None:
        """Call it and return its result, or None if it is not due."""
        if now < self._due:
            return None
        began = time.thread_time()
        result = self._function()
        self._due = now + max(self._least, (time.thread_time() - began) / _SHARE)
        return result


class Sampler:
    """Samples process `pid` and the processes that it starts.

    Parameters
    ----------
    pid : int
        The program's process.
    lazyfree : bool, default False
        Whether to read `LazyFree` as well. The kernel walks all pages of a process for it, so this
        has a share of a processor of its own, and most samples of a large process are without it.

    """

    def __init__(self, pid: int, *, lazyfree: bool = False) -> None:
        self.samples: list[Sample] = []
        self.peak_rss_bytes = 0
        self.peak_cgroup_bytes: int | None = None
        self.limit: MemoryLimit | None = None
        self.taken = 0
        self.pause_seconds = _SECONDS_LEAST
        self._began = time.monotonic()
        self._cpu = 0.0
        self._sample_cpu = 0.0  # of that, without what has a budget of its own
        self._family = Family(pid)
        self._families = _Budget(self._family.look, _FAMILY_SECONDS)
        self._lazyfree = _Budget(self._lazyfree_bytes, _SECONDS_LEAST) if lazyfree else None
        self._weighted = 0.0
        self._seconds = 0.0
        with suppress(OSError, ValueError):
            limit = memory_limit()
            self.limit = limit if limit.source != "machine" else None

    @property
    def cpu_seconds(self) -> float:
        """The processor time that sampling took."""
        return self._cpu

    @property
    def interpreters(self) -> set[int]:
        """The Pythons that the program started, other than by fork."""
        return self._family.interpreters

    @property
    def average_rss_bytes(self) -> int:
        """The average over time."""
        return int(self._weighted / self._seconds) if self._seconds else self.peak_rss_bytes

    def sample(self) -> None:
        """Take one sample, or none if the process has ended."""
        began = time.thread_time()
        now = time.monotonic() - self._began
        self._families.call(now)
        lazyfree = None if self._lazyfree is None else self._lazyfree.call(now)
        apart = time.thread_time()
        sizes = [size for size in map(_rss_bytes, self._family.pids) if size]
        if sizes:
            self._add(Sample(now, sum(sizes), self._cgroup(), len(sizes), lazyfree))
        ended = time.thread_time()
        self._cpu += ended - began
        self._sample_cpu += ended - apart
        self.taken += 1
        self.pause_seconds = max(_SECONDS_LEAST, self._sample_cpu / self.taken / _SHARE)

    def _add(self, sample: Sample) -> None:
        before = self.samples[-1].seconds if self.samples else 0.0
        self._weighted += sample.rss_bytes * (sample.seconds - before)
        self._seconds = sample.seconds
        self.peak_rss_bytes = max(self.peak_rss_bytes, sample.rss_bytes)
        if sample.cgroup_bytes is not None:
            self.peak_cgroup_bytes = max(self.peak_cgroup_bytes or 0, sample.cgroup_bytes)
        self.samples.append(sample)
        if len(self.samples) >= _SAMPLES_MOST:
            # A program may run for weeks, so halve the samples: keep the larger of each two.
            pairs = zip(self.samples[::2], self.samples[1::2], strict=False)
            self.samples = [max(pair, key=lambda one: one.rss_bytes) for pair in pairs]

    def _lazyfree_bytes(self) -> int:
        return sum(lazyfree_bytes(pid) or 0 for pid in self._family.pids)

    def _cgroup(self) -> int | None:
        if self.limit is None:
            return None
        try:
            return usage_of(self.limit)
        except (OSError, ValueError):
            return None


def _rss_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
