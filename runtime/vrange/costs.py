"""What computing a value took, so that it can be told what losing it would cost."""

from __future__ import annotations

import resource
import time


class Stopwatch:
    """Runs from its making on, for the thread that made it.

    A computation that never waited costs its processor time: how long others kept it from running
    would mark it as dear for no fault of its own, and keep it while dearer ones go. One that
    waited, for a disk or a server, costs all the time it took.
    """

    __slots__ = ("_cpu", "_started", "_waits")

    def __init__(self) -> None:
        self._cpu, self._waits = _cpu_and_waits()
        self._started = time.perf_counter_ns()

    def stop(self) -> tuple[int, int]:
        """(time passed, cost), in nanoseconds; cost is at least 1."""
        passed = time.perf_counter_ns() - self._started
        cpu, waits = _cpu_and_waits()
        return passed, max(1, passed if waits > self._waits else min(passed, cpu - self._cpu))


def _cpu_and_waits() -> tuple[int, int]:
    # The times that getrusage tells are split by ticks: they jump.
    return time.thread_time_ns(), resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
