"""What tests on Dask's workers run there; workers import it."""

from __future__ import annotations

import os
import time
from collections import Counter

import numpy as np

import vrange
import vrange.dask

_PAGE = os.sysconf("SC_PAGE_SIZE")


@vrange.cached
def load(n: int) -> np.ndarray:
    """4 MiB, as a task reads them from storage."""
    return np.full(4 << 20, n % 256, "u1")


def resident_bytes() -> int:
    """The resident set of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE


def _note(log: str, n: int) -> None:
    with open(log, "a") as file:
        file.write(f"{n}\n")


def counts_of(log: str) -> dict[int, int]:
    """How often each argument was computed, in whatever process."""
    with open(log) as file:
        return dict(Counter(map(int, file)))


@vrange.dask.cached
def counted(log: str, n: int) -> np.ndarray:
    """An array, and a line in the file `log`."""
    _note(log, n)
    return np.full(1 << 16, n)


@vrange.dask.cached
def counted_slowly(log: str, n: int) -> np.ndarray:
    """The same, long enough for calls at the same time."""
    _note(log, n)
    time.sleep(0.5)
    if n < 0:
        raise ValueError("n is negative")
    return np.full(1 << 16, n)
