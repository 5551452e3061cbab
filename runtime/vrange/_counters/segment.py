"""Read stats segments from outside: the counts of a process, in a file that it maps.

segment.h defines the layout. Reading maps the file and copies numbers out of it. It needs neither
the other process's cooperation nor its GIL, and works if that process is stopped or hangs. A file
that is not a whole segment of this user is refused, because any user may put a file into /dev/shm.
"""

from __future__ import annotations

import mmap
import operator
import os
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from vrange._counters.descriptor import Descriptor
from vrange._counters.names import KINDS, RUNGS
from vrange.errors import VrangeError

__all__ = [
    "LATENCIES",
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

LATENCIES = (
    ("time_to_free", "released"),
    ("time_to_free", "offered"),
    ("time_to_reallocate", "resident"),
    ("time_to_reallocate", "purged"),
)
OUTCOMES = ("hot", "resident", "purged", "miss")

_MAGIC = b"VRANGE\r\n"
_VERSION = 3
PRESSURE_LEVELS = ("", "normal", "elevated", "critical")
PRESSURE_ACTIONS = ("offer_hot", "grow_hot", "trim_stacks", "trim_heap", "callback")
PRESSURE_OUTCOMES = ("done", "failed", "skipped")
_PRESSURE = struct.Struct("<25Q")
_HEADER = struct.Struct("<8s2IQ2I4Q2I4I6I2I64s64s4Q200sQ")
_ACCOUNT = struct.Struct("<2I64s15Q")
_TURN_AT = _HEADER.size - 8
_READY, _KEPT = 1, 2
_CLOSED = 2
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
    def of(cls, raw: bytes) -> PressureCounts:
        """Return the counts in a header's bytes."""
        level, _, *words = _PRESSURE.unpack(raw)
        if not any(words):
            return cls()  # no watcher ever ran
        entered, rest = words[:3], words[3:]
        pairs = [(action, outcome) for action in PRESSURE_ACTIONS for outcome in PRESSURE_OUTCOMES]
        return cls(
            PRESSURE_LEVELS[level] if level < len(PRESSURE_LEVELS) else "",
            dict(zip(PRESSURE_LEVELS[1:], entered, strict=True)),
            dict(zip(pairs, rest[: len(pairs)], strict=True)),
            dict(zip(PRESSURE_ACTIONS, rest[len(pairs) :], strict=True)),
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
    """The fields of the header, after checking them."""

    def __init__(self, data: memoryview, where: str) -> None:
        if len(data) < _HEADER.size:
            raise SegmentRefusedError(f"{where} is torn: {len(data)} bytes")
        # In the order of segment.h.
        (
            magic,
            version,
            header_bytes,
            self.bytes,
            self.pid,
            self.uid,
            self.start_ticks,
            self.stack_start,
            self.pid_namespace,
            self.group,
            self.flags,
            self.rung,
            self.accounts_at,
            self.account_bytes,
            self.accounts,
            self.regenerate_at,
            self.latencies_at,
            self.shard_bytes,
            self.shards,
            self.kinds,
            self.latencies,
            self.buckets,
            self.shards_used,
            self.accounts_used,
            service,
            name,
            self.stack_returned_bytes,
            self.trims,
            self.stack_high_water_bytes,
            self.stack_limit_bytes,
            self.pressure,
            self.turn,
        ) = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise SegmentRefusedError(f"{where} is not a stats segment")
        if version != _VERSION:
            raise SegmentRefusedError(
                f"{where} has layout {version}, and this vrange reads layout {_VERSION}"
            )
        if not self.flags & _READY or header_bytes < _HEADER.size or self.bytes != len(data):
            raise SegmentRefusedError(f"{where} is torn: {len(data)} bytes of {self.bytes}")
        histogram = 8 * (1 + self.buckets)
        sound = (
            self.kinds <= self.accounts_used <= self.accounts
            and self.shards_used <= self.shards
            and self.regenerate_at + histogram <= self.account_bytes
            and self.kinds * self.latencies * histogram <= self.shard_bytes
            and self.accounts_at + self.accounts * self.account_bytes <= len(data)
            and self.latencies_at + self.shards * self.shard_bytes <= len(data)
            and self.kinds >= len(KINDS)
            and self.latencies >= len(LATENCIES)
            and not any(at % 8 for at in (self.accounts_at, self.latencies_at, self.shard_bytes))
            and not any(at % 8 for at in (self.account_bytes, self.regenerate_at))
        )
        if not sound:
            raise SegmentRefusedError(f"{where} is torn: its tables don't fit into it")
        self.service = _text(service)
        self.name = _text(name)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")


def _histogram(words: memoryview, at: int, buckets: int) -> Histogram | None:
    sum_ns = words[at // 8]
    if sum_ns == 0:
        return None
    return Histogram(sum_ns, words[at // 8 + 1 : at // 8 + 1 + buckets].tolist())


def _accounts(data: memoryview, words: memoryview, head: Header) -> Iterator[AccountCounts]:
    for slot in range(head.accounts_used):
        at = head.accounts_at + slot * head.account_bytes
        (
            state,
            kind,
            name,
            ranges,
            reserved,
            all_bytes,
            idle,
            offered,
            purged,
            hot,
            purged_total,
            shed_total,
            refaults,
            *requests,
            refused,
        ) = _ACCOUNT.unpack_from(data, at)
        if state == 0 or kind >= len(KINDS):
            continue
        del ranges
        yield AccountCounts(
            name=_text(name),
            kind=KINDS[kind],
            closed=state == _CLOSED,
            reserved_bytes=reserved,
            pinned_bytes=max(0, all_bytes - idle - offered - purged),
            idle_bytes=_gauge(idle),
            offered_bytes=_gauge(offered),
            purged_bytes=_gauge(purged),
            hot_bytes=hot,
            purged_total_bytes=purged_total,
            shed_total_bytes=shed_total,
            refaults=refaults,
            refused=refused,
            requests=dict(zip(OUTCOMES, requests, strict=True)),
            regenerate=_histogram(words, at + head.regenerate_at, head.buckets) or Histogram(),
        )


def _gauge(word: int) -> int:
    # One thread's subtraction may be seen before another's addition: then it is briefly negative.
    return word if word < 1 << 63 else 0


def _latencies(words: memoryview, head: Header) -> dict[tuple[str, str, str], Histogram]:
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
    head = Header(data, where)
    with data.cast("Q") as words:
        for _ in range(_TRIES):
            turn = words[_TURN_AT // 8]
            accounts = list(_accounts(data, words, head))
            # It stays odd for ever if the process died while it moved counts.
            if turn % 2 == 0 and words[_TURN_AT // 8] == turn:
                break
            time.sleep(0)
            head = Header(data, where)
        latencies = _latencies(words, head)
    return Snapshot(
        pid=head.pid,
        start_ticks=head.start_ticks,
        service=head.service,
        name=head.name,
        group=head.group,
        rung=RUNGS[head.rung - 1] if 0 < head.rung <= len(RUNGS) else "",
        kept=bool(head.flags & _KEPT),
        accounts=accounts,
        latencies=latencies,
        stack_returned_bytes=head.stack_returned_bytes,
        trims=head.trims,
        stack_high_water_bytes=head.stack_high_water_bytes,
        stack_limit_bytes=head.stack_limit_bytes,
        pressure=PressureCounts.of(head.pressure),
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
            if not stat.S_ISREG(found.st_mode) or found.st_size < _HEADER.size:
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
