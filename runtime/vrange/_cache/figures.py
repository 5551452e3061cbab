"""The figures of a cache, read from its account: counted since the cache was made or cleared."""

from __future__ import annotations

from vrange._cache.info import CacheInfo
from vrange._cache.parameters import CacheParameters
from vrange._core import hit
from vrange._counters.account import Account


class Figures:
    """The figures of one cache. When it is cleared, they start again, and its account counts on."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.start()

    def start(self) -> None:
        """Count from here."""
        self._before = self._account.read()

    def read(self, core: hit.CacheCore, parameters: CacheParameters) -> CacheInfo:
        """Return the figures of the cache that has this core and these parameters."""
        entries = core.count()  # sweeps, so that the bytes below are right
        before = self._before  # first: clear() may set a later one meanwhile
        now = self._account.read()
        hot_hits = now.hot_hits - before.hot_hits
        resident_hits = now.resident_hits - before.resident_hits
        waited = now.waited - before.waited
        peer_hits = now.peer_hits - before.peer_hits
        return CacheInfo(
            name=self._account.name,
            hits=hot_hits + resident_hits + waited + peer_hits,
            hot_hits=hot_hits,
            resident_hits=resident_hits,
            misses=now.misses - before.misses,
            purged=now.purged - before.purged,
            entries=entries,
            pinned_bytes=now.pinned_bytes,
            idle_bytes=now.idle_bytes,
            offered_bytes=now.offered_bytes,
            purged_bytes=now.purged_bytes,
            hot_bytes=core.hot_bytes,
            max_bytes=parameters.max_bytes,
            evicted_bytes=now.evicted_total_bytes - before.evicted_total_bytes,
            purged_total_bytes=now.purged_total_bytes - before.purged_total_bytes,
            regenerated=now.regenerated - before.regenerated,
            regenerate_seconds=now.regenerate_seconds - before.regenerate_seconds,
            refused=now.refused - before.refused,
            max_entries=parameters.max_entries,
            index_bytes=core.index_bytes,
            waited=waited,
            peer_hits=peer_hits,
            object_bytes=core.object_bytes,
        )
