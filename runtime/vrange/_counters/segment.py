"""Read stats segments from outside: the counts of a process, in a file that it maps.

segment_layout.h defines the layout, and cffi reads it there. Reading maps the file and copies out
of it. It needs neither the other process's cooperation nor its GIL, and works if that process is
stopped or hangs. A file that is not a whole segment of this user is refused, because any user may
put a file into /dev/shm.
"""

from __future__ import annotations

import mmap
import operator
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from vrange._core import ffi, lib
from vrange._counters.descriptor import Descriptor
from vrange._counters.names import (
    KINDS,
    LATENCIES,
    OUTCOMES,
    PRESSURE_ACTIONS,
    PRESSURE_LEVELS,
    PRESSURE_OUTCOMES,
    RUNGS,
)
from vrange.errors import VrangeError

__all__ = [
    "AccountCounts",
    "Header",
    "Histogram",
    "PressureCounts",
    "SegmentRefusedError",
    "Snapshot",
    "bucket_floors_ns",
    "mapped",
    "parse",
    "read",
]

_MAGIC = ffi.string(lib.SEGMENT_MAGIC)
_HEADER_BYTES = ffi.sizeof("segment_header")
_ACCOUNT_BYTES = ffi.sizeof("struct vrange_account")
_TURN_AT = ffi.offsetof("segment_header", "turn")
_TRIES = 200
_EIGHTHS = 8


class SegmentRefusedError(VrangeError):
    """A file is not a stats segment, is torn, or belongs to another user."""


@cache
def bucket_floors_ns(buckets: int) -> tuple[int, ...]:
    """Return where each bucket begins, in ns, and where the last one ends."""
    floors = list(range(_EIGHTHS))
    for bucket in range(buckets + 1 - _EIGHTHS):
        octave, eighth = divmod(bucket, _EIGHTHS)
        floors.append((_EIGHTHS + eighth) << octave)
    return tuple(floors)


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
    shed_total_bytes: int = 0
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


class Header:
    """A copy of a segment's header, checked. `fields` has the native names."""

    def __init__(self, data: memoryview, where: str) -> None:
        if len(data) < _HEADER_BYTES:
            raise SegmentRefusedError(f"{where} is torn: {len(data)} bytes")
        # A copy: the other process may change what was checked.
        self.fields = head = _copy("segment_header", data[:_HEADER_BYTES])
        if ffi.buffer(head.magic)[:] != _MAGIC:
            raise SegmentRefusedError(f"{where} is not a stats segment")
        if head.version != lib.SEGMENT_VERSION:
            raise SegmentRefusedError(
                f"{where} has layout {head.version}, and this vrange reads layout "
                f"{lib.SEGMENT_VERSION}"
            )
        ready = head.flags & lib.SEGMENT_READY
        if not ready or head.header_bytes < _HEADER_BYTES or head.bytes != len(data):
            raise SegmentRefusedError(f"{where} is torn: {len(data)} bytes of {head.bytes}")
        histogram = 8 * (1 + head.buckets)
        sound = (
            head.kinds <= head.accounts_used <= head.accounts
            and head.shards_used <= head.shards
            and head.account_bytes >= _ACCOUNT_BYTES
            and head.regenerate_at + histogram <= head.account_bytes
            and head.kinds * head.latencies * histogram <= head.shard_bytes
            and head.accounts_at + head.accounts * head.account_bytes <= len(data)
            and head.latencies_at + head.shards * head.shard_bytes <= len(data)
            and head.kinds >= len(KINDS)
            and head.latencies >= len(LATENCIES)
            and not any(at % 8 for at in (head.accounts_at, head.latencies_at, head.shard_bytes))
            and not any(at % 8 for at in (head.account_bytes, head.regenerate_at))
        )
        if not sound:
            raise SegmentRefusedError(f"{where} is torn: its tables don't fit into it")
        self.service = _text(head.service)
        self.name = _text(head.name)


def _copy(kind: str, data: memoryview) -> Any:
    copied = ffi.new(f"{kind} *")
    ffi.buffer(copied)[:] = data
    return copied


def _text(raw: Any) -> str:
    text: bytes = ffi.string(raw)
    return text.decode(errors="replace")


def _histogram(words: memoryview, at: int, buckets: int) -> Histogram | None:
    sum_ns = words[at // 8]
    if sum_ns == 0:
        return None
    return Histogram(sum_ns, words[at // 8 + 1 : at // 8 + 1 + buckets].tolist())


def _accounts(data: memoryview, words: memoryview, head: Any) -> Iterator[AccountCounts]:
    for slot in range(head.accounts_used):
        at = head.accounts_at + slot * head.account_bytes
        one = _copy("struct vrange_account", data[at : at + _ACCOUNT_BYTES])
        if one.state == lib.ACCOUNT_FREE or one.kind >= len(KINDS):
            continue
        gone = one.idle_bytes + one.offered_bytes + one.purged_bytes
        yield AccountCounts(
            name=_text(one.name),
            kind=KINDS[one.kind],
            closed=one.state == lib.ACCOUNT_CLOSED,
            reserved_bytes=one.reserved_bytes,
            pinned_bytes=max(0, one.range_bytes - gone),
            idle_bytes=_gauge(one.idle_bytes),
            offered_bytes=_gauge(one.offered_bytes),
            purged_bytes=_gauge(one.purged_bytes),
            hot_bytes=one.hot_bytes,
            object_bytes=one.object_bytes,
            purged_total_bytes=one.purged_total,
            shed_total_bytes=one.shed_total,
            refaults=one.refaults,
            refused=one.refused,
            requests=dict(zip(OUTCOMES, one.requests, strict=True)),
            regenerate=_histogram(words, at + head.regenerate_at, head.buckets) or Histogram(),
        )


def _gauge(word: int) -> int:
    # One thread's subtraction may be seen before another's addition: then it is briefly negative.
    return word if word < 1 << 63 else 0


def _latencies(words: memoryview, head: Any) -> dict[tuple[str, str, str], Histogram]:
    found: dict[tuple[str, str, str], Histogram] = {}
    each = 8 * (1 + head.buckets)
    for shard in range(max(1, head.shards_used)):
        for kind, kind_name in enumerate(KINDS):
            for latency, (metric, which) in enumerate(LATENCIES):
                at = head.latencies_at + shard * head.shard_bytes
                at += (kind * head.latencies + latency) * each
                histogram = _histogram(words, at, head.buckets)
                if histogram is None:
                    continue
                key = (metric, kind_name, which)
                if key in found:
                    found[key].add(histogram)
                else:
                    found[key] = histogram
    return found


def parse(data: memoryview, where: str = "the segment") -> Snapshot:
    """Copy the counts out of a segment's bytes; SegmentRefusedError if they are not a segment."""
    checked = Header(data, where)
    head = checked.fields
    with data.cast("Q") as words:
        for _ in range(_TRIES):
            turn = words[_TURN_AT // 8]
            accounts = list(_accounts(data, words, head))
            # It stays odd for ever if the process died while it moved counts.
            if turn % 2 == 0 and words[_TURN_AT // 8] == turn:
                break
            time.sleep(0)
            checked = Header(data, where)
            head = checked.fields
        latencies = _latencies(words, head)
    return Snapshot(
        pid=head.pid,
        start_ticks=head.start_ticks,
        service=checked.service,
        name=checked.name,
        group=head.group,
        rung=RUNGS[head.rung - 1] if 0 < head.rung <= len(RUNGS) else "",
        kept=bool(head.flags & lib.SEGMENT_KEPT),
        accounts=accounts,
        latencies=latencies,
        stack_returned_bytes=head.stack_returned_bytes,
        trims=head.trims,
        stack_high_water_bytes=head.stack_high_water_bytes,
        stack_limit_bytes=head.stack_limit_bytes,
        pressure=PressureCounts.of(head),
    )


def read(path: str | os.PathLike[str]) -> Snapshot:
    """Read the segment at `path`, whether its process is alive or not.

    Raises SegmentRefusedError if the file is torn, belongs to another user or has another layout,
    and OSError if it can't be read.
    """
    with mapped(path) as data:
        return parse(data, os.fspath(path))


class mapped:
    """A file of this user that is mapped for reading."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        held = Descriptor(os.open(path, flags))
        try:
            found = os.fstat(held.number)
            if found.st_uid != os.geteuid():
                raise SegmentRefusedError(f"{path} belongs to user {found.st_uid}, not this one")
            if not stat.S_ISREG(found.st_mode) or found.st_size < _HEADER_BYTES:
                raise SegmentRefusedError(f"{path} is torn: {found.st_size} bytes")
            self._map = mmap.mmap(held.number, found.st_size, prot=mmap.PROT_READ)
        finally:
            held.close()

    def __enter__(self) -> memoryview:
        self._view = memoryview(self._map)
        return self._view

    def __exit__(self, *error: object) -> None:
        self._view.release()
        self._map.close()
