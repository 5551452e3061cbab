"""Sums of stats segments: the counts of all processes of one service.

Counts of processes that have ended stay in the sum; their bytes do not. The number of names is
bounded for a service as it is for a process. Otherwise, workers that come and go with names of
their own would add series without end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vrange._core import lib
from vrange._counters.names import (
    KINDS,
    LATENCIES,
    OUTCOMES,
    PRESSURE_ACTIONS,
    PRESSURE_LEVELS,
    PRESSURE_OUTCOMES,
)
from vrange._counters.segment import (
    BUCKETS,
    AccountCounts,
    Histogram,
    PressureCounts,
    Snapshot,
)

__all__ = ["Totals", "checked_count", "checked_text"]

NAMES_MOST = lib.SEGMENT_NAMES
OTHER = "other"
# Of a name in a segment, each byte that is not UTF-8 is read as a character of three bytes.
_TEXT_BYTES_MOST = 3 * lib.VRANGE_NAME_BYTES
_COUNT_END = 1 << 128  # a sum of 64-bit counts does not reach it
_COUNTS = ("purged_total_bytes", "evicted_total_bytes", "refaults", "refused")
_GAUGES = (
    "reserved_bytes",
    "pinned_bytes",
    "idle_bytes",
    "offered_bytes",
    "purged_bytes",
    "hot_bytes",
    "object_bytes",
)


@dataclass
class Totals:
    """A sum of segments.

    `accounts` is keyed by kind and name. The stack's gauges are those of the stack that came
    nearest to its end.
    """

    accounts: dict[tuple[str, str], AccountCounts] = field(default_factory=dict)
    latencies: dict[tuple[str, str, str], Histogram] = field(default_factory=dict)
    stack_returned_bytes: int = 0
    trims: int = 0
    stack_high_water_bytes: int = 0
    stack_limit_bytes: int = 0
    pressure: PressureCounts = field(default_factory=PressureCounts)
    pids: list[int] = field(default_factory=list)  # of the living processes
    rungs: set[str] = field(default_factory=set)

    def add(self, snapshot: Snapshot, *, ended: bool = False) -> None:
        """Add a process; if it has ended, only its counts."""
        for account in snapshot.accounts:
            self._add_account(account, ended)
        for key, histogram in snapshot.latencies.items():
            self.latencies.setdefault(key, Histogram()).add(histogram)
        self.stack_returned_bytes += snapshot.stack_returned_bytes
        self.trims += snapshot.trims
        self.pressure.add(snapshot.pressure, ended=ended)
        if ended:
            return
        self.pids.append(snapshot.pid)
        if snapshot.rung:
            self.rungs.add(snapshot.rung)
        nearest = self.stack_high_water_bytes * snapshot.stack_limit_bytes
        if not self.stack_limit_bytes or (
            snapshot.stack_high_water_bytes * self.stack_limit_bytes > nearest
        ):
            self.stack_high_water_bytes = snapshot.stack_high_water_bytes
            self.stack_limit_bytes = snapshot.stack_limit_bytes

    def merge_counts(self, other: Totals) -> None:
        """Add the counts of processes that have ended."""
        for account in other.accounts.values():
            self._add_account(account, ended=True)
        for key, histogram in other.latencies.items():
            self.latencies.setdefault(key, Histogram()).add(histogram)
        self.stack_returned_bytes += other.stack_returned_bytes
        self.trims += other.trims
        self.pressure.add(other.pressure, ended=True)

    def _add_account(self, account: AccountCounts, ended: bool) -> None:
        key = (account.kind, account.name)
        if key not in self.accounts and self._names() >= NAMES_MOST:
            key = (account.kind, OTHER)
        total = self.accounts.get(key)
        if total is None:
            total = self.accounts[key] = AccountCounts(key[1], key[0], closed=True)
        sums, counts = vars(total), vars(account)
        for name in _COUNTS if ended else (*_COUNTS, *_GAUGES):
            sums[name] += counts[name]
        for outcome, count in account.requests.items():
            total.requests[outcome] = total.requests.get(outcome, 0) + count
        total.regenerate.add(account.regenerate)
        total.closed = total.closed and (account.closed or ended)

    def _names(self) -> int:
        """Return how many names are counted apart: a process alone may have so many, and others."""
        return len(self.accounts) - sum((kind, OTHER) in self.accounts for kind in KINDS)

    # ---- counts on disk ----------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """Return the counts, for `from_json`."""
        return {
            "accounts": [
                {
                    "kind": kind,
                    "name": name,
                    "counts": [getattr(account, count) for count in _COUNTS],
                    "requests": account.requests,
                    "regenerate": _packed(account.regenerate),
                }
                for (kind, name), account in self.accounts.items()
            ],
            "latencies": [[*key, _packed(found)] for key, found in self.latencies.items()],
            "stack_returned_bytes": self.stack_returned_bytes,
            "trims": self.trims,
            "pressure": {
                "changes": self.pressure.changes,
                "actions": [[*key, count] for key, count in self.pressure.actions.items()],
                "returned_bytes": self.pressure.returned_bytes,
            },
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Totals:
        """Read what `as_json` returned. Raise LookupError, TypeError or ValueError for other data.

        Every label and count is checked. A text that can't be encoded, or a number that is no
        float, would end a scrape together with the metrics of the application.
        """
        totals = cls()
        if len(data["accounts"]) > NAMES_MOST + len(KINDS):
            raise ValueError(f"{len(data['accounts'])} names")
        for found in data["accounts"]:
            kind = _known(found["kind"], KINDS)
            account = AccountCounts(checked_text(found["name"]), kind, closed=True)
            for name, value in zip(_COUNTS, found["counts"], strict=True):
                setattr(account, name, checked_count(value))
            account.requests = _counts(found["requests"], OUTCOMES)
            account.regenerate = _unpacked(found["regenerate"])
            totals.accounts[account.kind, account.name] = account
        for metric, kind, which, packed in data["latencies"]:
            _known((metric, which), LATENCIES)
            totals.latencies[metric, _known(kind, KINDS), which] = _unpacked(packed)
        totals.stack_returned_bytes = checked_count(data["stack_returned_bytes"])
        totals.trims = checked_count(data["trims"])
        if "pressure" in data:  # absent from a ledger that an older vrange began
            totals.pressure = _pressure(data["pressure"])
        return totals


def checked_text(value: object) -> str:
    """Return a label. Raise TypeError or ValueError if it is none."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    if len(value.encode()) > _TEXT_BYTES_MOST:  # UnicodeEncodeError, a ValueError, for surrogates
        raise ValueError(f"a text of {len(value)} characters")
    return value


def checked_count(value: object) -> int:
    """Return a count. Raise TypeError or ValueError if it is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no count")
    if not 0 <= value < _COUNT_END:
        raise ValueError(f"{value} is no count")
    return value


def _known(value: Any, values: Iterable[Any]) -> Any:
    if value not in tuple(values):
        raise ValueError(f"{value!r} is unknown")
    return value


def _counts(data: dict[str, Any], names: Iterable[str]) -> dict[str, int]:
    return {_known(name, names): checked_count(count) for name, count in data.items()}


def _pressure(data: dict[str, Any]) -> PressureCounts:
    return PressureCounts(
        "",
        _counts(data["changes"], PRESSURE_LEVELS),
        {
            (_known(action, PRESSURE_ACTIONS), _known(outcome, PRESSURE_OUTCOMES)): checked_count(n)
            for action, outcome, n in data["actions"]
        },
        _counts(data["returned_bytes"], PRESSURE_ACTIONS),
    )


def _packed(histogram: Histogram) -> list[Any]:
    # The keys of an object in JSON are strings.
    filled = {str(bucket): count for bucket, count in enumerate(histogram.buckets) if count}
    return [histogram.sum_ns, len(histogram.buckets), filled]


def _unpacked(packed: list[Any]) -> Histogram:
    sum_ns, size, filled = packed
    if size not in (0, BUCKETS):  # 0: nothing was counted
        raise ValueError(f"a histogram of {size!r} buckets")
    buckets = [0] * size
    for bucket, count in filled.items():
        if not bucket.isdecimal() or int(bucket) >= size:
            raise ValueError(f"bucket {bucket!r} of {size}")
        buckets[int(bucket)] = checked_count(count)
    return Histogram(checked_count(sum_ns), buckets)
