"""The counts of a process, as they are read from its stats segment."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from vrange._core import ffi, lib
from vrange._counters.names import (
    KINDS,
    PRESSURE_ACTIONS,
    PRESSURE_LEVELS,
    PRESSURE_OUTCOMES,
)

__all__ = [
    "AccountCounts",
    "Histogram",
    "PressureCounts",
    "Snapshot",
    "account_figures",
    "bucket_floors_ns",
]


@cache
def bucket_floors_ns(buckets: int) -> tuple[int, ...]:
    """Return where each bucket begins, in ns, and where the last one ends."""
    return tuple(map(lib.vrange_bucket_floor_ns, range(buckets + 1)))


@dataclass
class Histogram:
    """Durations: `buckets[b]` is how many are in bucket b, and `sum_ns` is their sum."""

    sum_ns: int = 0
    buckets: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.buckets)

    def add(self, other: Histogram) -> None:
        """Add another histogram's durations to these."""
        self.sum_ns += other.sum_ns
        if not self.buckets:
            self.buckets = other.buckets.copy()
            return
        if len(self.buckets) < len(other.buckets):
            self.buckets += [0] * (len(other.buckets) - len(self.buckets))
        if len(self.buckets) == len(other.buckets):
            self.buckets = list(map(operator.add, self.buckets, other.buckets))
            return
        for bucket, count in enumerate(other.buckets):
            self.buckets[bucket] += count

    def percentile(self, percent: float) -> float | None:
        """Return the duration in seconds that `percent` % of the durations did not exceed.

        None if nothing is counted. The result is within 6.3 % of the true value, which is half the
        width of a bucket.
        """
        rank, seen, last = percent / 100 * self.count, 0, None
        for bucket, count in enumerate(self.buckets):
            if count:
                seen += count
                last = bucket
                if seen >= rank:
                    break
        if last is None:
            return None
        floors = bucket_floors_ns(len(self.buckets))
        return (floors[last] + floors[last + 1]) / 2e9


_FIGURES = (
    "reserved_bytes",
    "pinned_bytes",
    "idle_bytes",
    "offered_bytes",
    "purged_bytes",
    "hot_bytes",
    "object_bytes",
    "refaults",
    "refused",
)


def account_figures(counters: Any) -> dict[str, Any]:
    """Return what AccountCounts and AccountStats both have of a `vrange_account_counters`."""
    return {
        "name": ffi.string(counters.name).decode(errors="replace"),
        "kind": KINDS[counters.kind],
        "purged_total_bytes": counters.purged_total,
        "evicted_total_bytes": counters.shed_total,
        **{name: getattr(counters, name) for name in _FIGURES},
    }


@dataclass
class AccountCounts:
    """The counts under one name. A closed account has only counts and no bytes."""

    name: str
    kind: str
    closed: bool = False
    reserved_bytes: int = 0
    pinned_bytes: int = 0
    idle_bytes: int = 0
    offered_bytes: int = 0
    purged_bytes: int = 0
    hot_bytes: int = 0
    object_bytes: int = 0
    purged_total_bytes: int = 0
    evicted_total_bytes: int = 0
    refaults: int = 0
    refused: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    regenerate: Histogram = field(default_factory=Histogram)


@dataclass
class PressureCounts:
    """A pressure watcher's levels and actions. `level` is the present one; "" without a watcher."""

    level: str = ""
    changes: dict[str, int] = field(default_factory=dict)  # how often a level was entered
    actions: dict[tuple[str, str], int] = field(default_factory=dict)  # by action and outcome
    returned_bytes: dict[str, int] = field(default_factory=dict)  # by action

    def add(self, other: PressureCounts, *, ended: bool = False) -> None:
        """Add another's counts, and take the worse level unless the other process has ended."""
        for level, count in other.changes.items():
            self.changes[level] = self.changes.get(level, 0) + count
        for key, count in other.actions.items():
            self.actions[key] = self.actions.get(key, 0) + count
        for action, count in other.returned_bytes.items():
            self.returned_bytes[action] = self.returned_bytes.get(action, 0) + count
        if not ended:
            self.level = max(self.level, other.level, key=PRESSURE_LEVELS.index)

    @classmethod
    def of(cls, header: Any) -> PressureCounts:
        """Return the counts in a native header."""
        level = header.pressure_level
        changes = dict(zip(PRESSURE_LEVELS, header.pressure_changes, strict=True))
        actions = {
            (action, outcome): count
            for action, counts in zip(PRESSURE_ACTIONS, header.pressure_actions, strict=True)
            for outcome, count in zip(PRESSURE_OUTCOMES, counts, strict=True)
        }
        del changes[""]
        if not any(changes.values()) and not any(actions.values()):
            return cls()  # no watcher ever ran
        return cls(
            PRESSURE_LEVELS[level] if level < len(PRESSURE_LEVELS) else "",
            changes,
            actions,
            dict(zip(PRESSURE_ACTIONS, header.pressure_returned_bytes, strict=True)),
        )


@dataclass
class Snapshot:
    """Everything in one segment, read at about one moment."""

    pid: int
    start_ticks: int
    service: str
    name: str
    group: int
    rung: str
    kept: bool
    accounts: list[AccountCounts]
    latencies: dict[tuple[str, str, str], Histogram]  # (time_to_free, kind, stage) and so on
    stack_returned_bytes: int
    trims: int
    stack_high_water_bytes: int
    stack_limit_bytes: int
    pressure: PressureCounts = field(default_factory=PressureCounts)

    @property
    def service_key(self) -> str:
        """The key that the processes of one service share: VRANGE_SERVICE, or the process group."""
        return self.service or f"group-{self.group}"
