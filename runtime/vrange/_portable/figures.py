"""The figures of the portable cache, counted since it was made or cleared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vrange._cache.info import CacheInfo
from vrange._cache.parameters import CacheParameters
from vrange._portable.values import Values


@dataclass
class Figures:
    """What a cache counts. Callers hold the cache's lock."""

    hits: int = 0
    misses: int = 0
    waited: int = 0
    refused: int = 0
    regenerated: int = 0
    regenerate_seconds: float = 0.0

    def read(self, name: str, values: Values[Any], parameters: CacheParameters) -> CacheInfo:
        """Return the figures as on Linux. Every hit is a hot one, and nothing is ever purged."""
        return CacheInfo(
            name=name,
            hits=self.hits + self.waited,
            hot_hits=self.hits,
            resident_hits=0,
            misses=self.misses,
            purged=0,
            entries=len(values.keys()),
            pinned_bytes=values.nbytes,
            idle_bytes=0,
            offered_bytes=0,
            purged_bytes=0,
            hot_bytes=values.nbytes,
            max_bytes=parameters.max_bytes,
            evicted_bytes=values.evicted_bytes,
            purged_total_bytes=0,
            regenerated=self.regenerated,
            regenerate_seconds=self.regenerate_seconds,
            refused=self.refused,
            waited=self.waited,
            max_entries=parameters.max_entries,
            object_bytes=0,  # all of them count as pinned
        )
