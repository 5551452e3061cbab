"""Volatile hits of small values, by kind: each hit decodes the value out of a slab."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import vrange
from benchmarks.interleave import interleaved

VALUES = 64
MOST_MICROSECONDS = {"str": 0.6, "bytes": 0.6, "int": 0.6, "tuple": 0.6, "ndarray": 1.0}
MAKE: dict[str, Callable[[int], Any]] = {
    "str": lambda n: f"{n:0100}",
    "bytes": lambda n: n.to_bytes(100, "little"),
    "int": lambda n: n << 40,
    "tuple": lambda n: (n, f"user {n}", n / 8),
    "ndarray": lambda n: np.full(25, n, np.float64),  # 200 bytes
}
WAYS = ("@cached", "cache[key]")
clock = time.perf_counter


class SmallHits:
    """A filled cache that holds nothing strongly; `microseconds` times its hits."""

    def __init__(self, kind: str, way: str, seconds: float) -> None:
        self._make = MAKE[kind]
        self._keys = list(range(1000, 1000 + VALUES))
        self._seconds = seconds
        self._cache: Any
        if way == "@cached":
            self._cache = vrange.cached(hot_bytes=0)(self._make)
            self._pass = self._call_all
        else:
            self._cache = vrange.VolatileCache[int, Any](name=f"small {kind}", hot_bytes=0)
            for key in self._keys:
                self._cache[key] = self._make(key)
            self._pass = self._look_up_all
        self._pass()

    def _call_all(self) -> None:
        call = self._cache
        for key in self._keys:
            call(key)

    def _look_up_all(self) -> None:
        cache = self._cache
        for key in self._keys:
            cache[key]

    def _counts(self) -> tuple[int, int]:
        found = self._cache
        info = found.cache_info() if hasattr(found, "cache_info") else found.info()
        return info.hits, info.misses

    def microseconds(self) -> float:
        """Return the time per hit, including the loop over the keys."""
        passes, run = 0, self._pass
        hits, misses = self._counts()
        start = clock()
        while (taken := clock() - start) < self._seconds:
            run()
            passes += 1
        assert self._counts() == (hits + passes * VALUES, misses), "a hit was none"
        return taken / (passes * VALUES) * 1e6


def small_hits(rounds: int, seconds: float) -> dict[tuple[str, str], list[float]]:
    """Return the times in µs of each kind and way, by round."""
    caches = {(kind, way): SmallHits(kind, way, seconds) for kind in MAKE for way in WAYS}
    return interleaved({name: cache.microseconds for name, cache in caches.items()}, rounds)
