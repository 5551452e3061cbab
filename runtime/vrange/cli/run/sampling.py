"""The memory of a program and its children over time, measured from outside.

A sample reads one line of /proc per process. The cost of a sample determines how often one is
taken: sampling uses at most a thousandth of a processor.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vrange._cgroup.limits import MemoryLimit, memory_limit, usage_of

__all__ = ["Sample", "Sampler"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHARE = 1e-3
_SECONDS_LEAST = 0.05
_FAMILY_SECONDS = 1.0  # the interval at which children are looked up
_SAMPLES_MOST = 4096


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

    """

    seconds: float
    rss_bytes: int
    cgroup_bytes: int | None
    processes: int


class Sampler:
    """Samples process `pid` and the processes that it starts."""

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self.peak_rss_bytes = 0
        self.peak_cgroup_bytes: int | None = None
        self.limit: MemoryLimit | None = None
        self.taken = 0
        self.pause_seconds = _SECONDS_LEAST
        self._pid = pid
        self._began = time.monotonic()
        self._cpu = 0.0
        self._family = [pid]
        self._family_at = -_FAMILY_SECONDS
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
    def average_rss_bytes(self) -> int:
        """The average over time."""
        return int(self._weighted / self._seconds) if self._seconds else self.peak_rss_bytes

    def sample(self) -> None:
        """Take one sample, or none if the process has ended."""
        began = time.thread_time()
        now = time.monotonic() - self._began
        if now - self._family_at >= _FAMILY_SECONDS:
            self._family = _family(self._pid)
            self._family_at = now
        sizes = [size for size in map(_rss_bytes, self._family) if size]
        if sizes:
            self._add(Sample(now, sum(sizes), self._cgroup(), len(sizes)))
        spent = time.thread_time() - began
        self._cpu += spent
        self.taken += 1
        self.pause_seconds = max(_SECONDS_LEAST, self._cpu / self.taken / _SHARE)

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


def _family(pid: int) -> list[int]:
    """Return the process and its descendants, if the kernel lists them (CONFIG_PROC_CHILDREN)."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                with suppress(OSError):
                    found += map(int, (task / "children").read_text().split())
    return found
