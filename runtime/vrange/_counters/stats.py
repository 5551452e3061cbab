"""A snapshot of everything that the native side counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from vrange._core import ffi, lib
from vrange._counters.counts import account_figures, bucket_floors_ns
from vrange._counters.names import KINDS, LATENCIES
from vrange.sizes import format_bytes

NS = 1e-9


@dataclass(frozen=True)
class AccountStats:
    """The counts under one name. Bytes are those of ranges, in whole pages.

    Attributes
    ----------
    name, kind : str
        The label, and what it counts: an arena, cache, array, stack or the heap.
    ranges : int
        The number of ranges.
    reserved_bytes : int
        The reserved address space.
    pinned_bytes, idle_bytes, offered_bytes, purged_bytes : int
        The bytes in each state now.
    hot_bytes : int
        The bytes that a cache holds strongly.
    object_bytes : int
        The part of `hot_bytes` that lies outside ranges, in ordinary objects. The rest is part of
        `pinned_bytes`.
    purged_total_bytes : int
        The bytes that the kernel has reclaimed so far.
    evicted_total_bytes : int
        The bytes that vrange itself has dropped so far.
    hot_hits, resident_hits, purged, misses, waited, peer_hits : int
        The lookups by outcome.
    regenerated : int
        The values that were computed, for the first time or again.
    regenerate_seconds : float
        The time that this took.
    refaults : int
        The touches of lost blocks that were answered.

    """

    name: str
    kind: str
    ranges: int
    reserved_bytes: int
    pinned_bytes: int
    idle_bytes: int
    offered_bytes: int
    purged_bytes: int
    hot_bytes: int
    object_bytes: int
    purged_total_bytes: int
    evicted_total_bytes: int
    hot_hits: int
    resident_hits: int
    purged: int
    misses: int
    regenerated: int
    regenerate_seconds: float
    refaults: int
    refused: int
    waited: int
    peer_hits: int


@dataclass(frozen=True)
class ReserveStats:
    """The state of the reserve.

    Attributes
    ----------
    running : bool
        Whether the caretaker runs, the thread that keeps the reserve.
    bytes : int
        The size of the reserve.
    tick_seconds : float
        The interval at which the thread checks it.
    offered_bytes, idle_bytes : int
        The bytes that are offered to the kernel, and those that could be.
    ticks : int
        The turns of the thread.
    helped : int
        The turns that threads ran because they stored a value while the caretaker was late.
    offers : int
        The ranges that were offered to the kernel.
    losses : int
        The ranges that the thread itself found purged.
    rankings : int
        The passes over the idle ranges to order them by value.
    busy_seconds : float
        The processor time that all of this took.

    """

    running: bool
    bytes: int
    tick_seconds: float
    offered_bytes: int
    idle_bytes: int
    ticks: int
    helped: int
    offers: int
    losses: int
    rankings: int
    busy_seconds: float


@cache
def _bucket_floors() -> tuple[float, ...]:
    return tuple(floor * NS for floor in bucket_floors_ns(lib.VRANGE_BUCKETS))


@dataclass(frozen=True, repr=False)
class LatencySummary:
    """A histogram of durations: `buckets[b]` of them lie from `floors[b]` up to `floors[b + 1]`."""

    count: int
    sum_seconds: float
    buckets: tuple[int, ...]

    def __repr__(self) -> str:
        if not self.count:
            return "LatencySummary(count=0)"
        return (
            f"LatencySummary(count={self.count}, median={self.percentile(50) * 1e6:.3g} µs, "
            f"p99={self.percentile(99) * 1e6:.3g} µs)"
        )

    @property
    def floors(self) -> tuple[float, ...]:
        """The beginning of each bucket in seconds, and the end of the last one."""
        return _bucket_floors()

    def percentile(self, percent: float) -> float:
        """Return the duration in seconds that `percent` of 100 durations did not exceed.

        Parameters
        ----------
        percent : float
            From 0 to 100.

        Returns
        -------
        float
            The duration, within 6.3 % of the truth, which is half the width of a bucket. NaN if
            nothing was counted.

        Raises
        ------
        ValueError
            If `percent` is out of range.

        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percent must be 0 to 100, not {percent!r}")
        if self.count == 0:
            return float("nan")
        rank = percent / 100 * self.count
        seen = 0
        last = 0
        for bucket, count in enumerate(self.buckets):
            if count:
                seen += count
                last = bucket
                if seen >= rank:
                    break
        floors = self.floors
        return (floors[last] + floors[last + 1]) / 2


@dataclass(frozen=True, repr=False)
class Stats:
    """A snapshot of all counts.

    Attributes
    ----------
    accounts : tuple[AccountStats, ...]
        The counts by name.
    reserve : ReserveStats
        The state of the reserve.
    time_to_free : Mapping[tuple[str, str], LatencySummary]
        Keyed by (kind, stage). The stage is "released" (the time that the caller waited) or
        "offered" (the time until the kernel could reclaim it).
    time_to_reallocate : Mapping[tuple[str, str], LatencySummary]
        Keyed by (kind, outcome). The outcome is "resident" or "purged".

    """

    accounts: tuple[AccountStats, ...]
    reserve: ReserveStats
    time_to_free: Mapping[tuple[str, str], LatencySummary]
    time_to_reallocate: Mapping[tuple[str, str], LatencySummary]

    def __repr__(self) -> str:
        states = ", ".join(
            f"{format_bytes(sum(getattr(account, f'{state}_bytes') for account in self.accounts))} "
            f"{state}"
            for state in ("pinned", "idle", "offered")
        )
        freed = sum(summary.count for summary in self.time_to_free.values())
        reallocated = sum(summary.count for summary in self.time_to_reallocate.values())
        return (
            f"<vrange.Stats: {len(self.accounts)} accounts, {states}; freed {freed:,} times, "
            f"reallocated {reallocated:,} times>"
        )


def account_stats(counters: Any) -> AccountStats:
    """Convert a native `vrange_account_counters`."""
    requests = counters.requests
    return AccountStats(
        **account_figures(counters),
        ranges=counters.ranges,
        hot_hits=requests[lib.VRANGE_REQUEST_HOT],
        resident_hits=requests[lib.VRANGE_REQUEST_RESIDENT],
        purged=requests[lib.VRANGE_REQUEST_PURGED],
        misses=requests[lib.VRANGE_REQUEST_MISS],
        waited=requests[lib.VRANGE_REQUEST_WAITED],
        peer_hits=requests[lib.VRANGE_REQUEST_PEER],
        regenerated=counters.regenerated,
        regenerate_seconds=counters.regenerate_ns * NS,
    )


def _accounts() -> tuple[AccountStats, ...]:
    count = lib.vrange_accounts_read(ffi.NULL, 0)
    counters = ffi.new("vrange_account_counters[]", count + 16)  # more may be opened meanwhile
    count = min(lib.vrange_accounts_read(counters, count + 16), count + 16)
    return tuple(account_stats(counters[i]) for i in range(count))


def _latency(kind: int, latency: int) -> LatencySummary:
    histogram = ffi.new("vrange_histogram *")
    lib.vrange_latency_read(kind, latency, histogram)
    return LatencySummary(histogram.count, histogram.sum_ns * NS, tuple(histogram.buckets))


def stats() -> Stats:
    """Return everything that was counted in this process so far.

    Returns
    -------
    Stats
        A snapshot.

    Notes
    -----
    It takes about a millisecond and stops no other thread.

    Examples
    --------
    >>> stats().time_to_free["cache", "released"].count >= 0
    True

    """
    info = ffi.new("vrange_reserve_info *")
    lib.vrange_reserve_read(info)
    numbers = list(enumerate(LATENCIES))
    free = {which: number for number, (metric, which) in numbers if metric == "time_to_free"}
    reallocate = {
        which: number for number, (metric, which) in numbers if metric == "time_to_reallocate"
    }
    return Stats(
        accounts=_accounts(),
        reserve=ReserveStats(
            running=bool(info.running),
            bytes=info.bytes,
            tick_seconds=info.tick_ns * NS,
            offered_bytes=info.offered_bytes,
            idle_bytes=info.idle_bytes,
            ticks=info.ticks,
            helped=info.helped,
            offers=info.offers,
            losses=info.losses,
            rankings=info.rankings,
            busy_seconds=info.busy_ns * NS,
        ),
        time_to_free={
            (kind, stage): _latency(number, latency)
            for number, kind in enumerate(KINDS)
            for stage, latency in free.items()
        },
        time_to_reallocate={
            (kind, outcome): _latency(number, latency)
            for number, kind in enumerate(KINDS)
            for outcome, latency in reallocate.items()
        },
    )
