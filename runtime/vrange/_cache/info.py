"""What a cache tells of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheInfo:
    """What a cache did since it was made or cleared, and the bytes it has now, in whole pages.

    `hits` were answered without computing: `hot_hits` from values the cache holds itself,
    `resident_hits` from volatile ones that were all there. `purged` were cached and the kernel took
    them; `misses` never were, or had expired, or the cache itself had let them go. `refused` values
    were not stored, as there was no room. `index_bytes` is what keys and entries cost, roughly.
    """

    name: str
    hits: int
    hot_hits: int
    resident_hits: int
    misses: int
    purged: int
    entries: int
    pinned_bytes: int
    idle_bytes: int
    offered_bytes: int
    purged_bytes: int
    hot_bytes: int
    max_bytes: int | None
    evicted_bytes: int
    purged_total_bytes: int
    regenerated: int
    regenerate_seconds: float
    refused: int = 0
    max_entries: int | None = None
    index_bytes: int = 0
