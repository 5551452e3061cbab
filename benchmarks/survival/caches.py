"""The contenders, as the program in the cgroup sees them.

Nothing here imports vrange unless vrange is the contender: what it costs a small container counts
against it alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from benchmarks.polling_lru import PollingLRU
from benchmarks.survival import matrix

# The untuned LRU knows no burst: it reads the usage every UNTUNED_EVERY requests, and keeps as much
# memory free as vrange's reserve has by default.
UNTUNED_EVERY, UNTUNED_SHARE = 256, 8


class Contender:
    """A cache of one of the kinds in matrix.CONTENDERS."""

    def __init__(self, name: str, compute: Callable[[int], Any], usage: str, limit: int) -> None:
        self.value_bytes = compute(0).nbytes
        self._compute = compute
        self._lock = threading.Lock()
        self._stats: Callable[[], Any] | None = None
        self._values: Any = {}
        if name.split(",")[0] in matrix.RUNGS:
            import vrange

            self._stats = vrange.stats
            self._values = vrange.VolatileCache[int, Any](name="survival")
            self.get = self._get_or_compute
        elif name == matrix.DICT:
            self.get = self._get_from_dict
        else:
            settings = {"every_requests": UNTUNED_EVERY, "margin_bytes": limit // UNTUNED_SHARE}
            lru = PollingLRU(compute, usage, limit, **({} if name == matrix.TUNED else settings))
            self._values, self._lru = lru._values, lru
            self.get = self._get_locked

    def _get_or_compute(self, key: int) -> Any:
        return self._values.get_or_compute(key, lambda: self._compute(key))

    def _get_from_dict(self, key: int) -> Any:
        if key not in self._values:
            self._values[key] = self._compute(key)
        return self._values[key]

    def _get_locked(self, key: int) -> Any:
        with self._lock:
            return self._lru(key)

    def held(self) -> dict[str, int]:
        """Return the bytes that the cache could still give, and those offered to the kernel."""
        if self._stats:
            reserve = self._stats().reserve
            return {"idle": reserve.idle_bytes, "offered": reserve.offered_bytes}
        return {"idle": len(self._values) * self.value_bytes, "offered": 0}
