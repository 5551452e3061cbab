"""What tests on Dask's workers run there; workers import it."""

from __future__ import annotations

import os

import numpy as np

import vrange

_PAGE = os.sysconf("SC_PAGE_SIZE")


@vrange.cached
def load(n: int) -> np.ndarray:
    """4 MiB, as a task reads them from storage."""
    return np.full(4 << 20, n % 256, "u1")


def resident_bytes() -> int:
    """The resident set of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE
