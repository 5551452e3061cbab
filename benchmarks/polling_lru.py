"""The best that is possible without the kernel's help: an LRU that watches the cgroup's usage.

Every so many requests it reads the usage. If less than `margin_bytes` are left below the limit, it
evicts the least recently used entries until as much is left as it wants, and makes glibc return the
memory (malloc_trim: most of it would otherwise stay in the heap).

Polling more often and a smaller margin keep more in the cache. If it polls too seldom, or the
margin is too small, one step of the application's allocations kills it. `python -m
benchmarks.tune_polling_lru` tries a grid; the defaults are the settings that did most per
CPU-second among those that always survived.
"""

from __future__ import annotations

import ctypes
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

EVERY_REQUESTS = 32
MARGIN_BYTES = 16 << 20
EXTRA_BYTES = 8 << 20  # evicted beyond the margin, so that not every poll must evict


class PollingLRU:
    """Calls `compute(key)` for missing keys; `usage_path` and the limit are those of the cgroup."""

    def __init__(
        self,
        compute: Callable[[Any], Any],
        usage_path: str,
        limit_bytes: int,
        every_requests: int = EVERY_REQUESTS,
        margin_bytes: int = MARGIN_BYTES,
        extra_bytes: int = EXTRA_BYTES,
    ) -> None:
        self._compute = compute
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._usage = os.open(usage_path, os.O_RDONLY)
        self._most = limit_bytes - margin_bytes
        self._extra = extra_bytes
        self._every = self._left = every_requests
        self._trim = ctypes.CDLL(None).malloc_trim
        self.polls = self.trims = 0

    def __call__(self, key: Hashable) -> Any:
        self._left -= 1
        if not self._left:
            self._left = self._every
            self._poll()
        try:
            value = self._values[key]
        except KeyError:
            value = self._values[key] = self._compute(key)
        else:
            self._values.move_to_end(key)
        return value

    def _poll(self) -> None:
        self.polls += 1
        excess = int(os.pread(self._usage, 32, 0)) - self._most
        if excess <= 0:
            return
        excess += self._extra
        while excess > 0 and self._values:
            _, value = self._values.popitem(last=False)
            excess -= value.nbytes
        del value
        self._trim(0)
        self.trims += 1
