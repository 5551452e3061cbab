"""Read stats segments from outside: the counts of a process, in a file that it maps.

segment_layout.h defines the layout, and cffi reads it there. Reading copies out of the file. It
needs neither the other process's cooperation nor its GIL, and works if that process is stopped or
hangs. A file that is not a whole segment of this user is refused, because any user may put a file
into /dev/shm, and a file may be damaged or cut short.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from vrange._core import ffi, lib
from vrange._counters.counts import (
    AccountCounts,
    Histogram,
    PressureCounts,
    Snapshot,
    account_figures,
    bucket_floors_ns,
)
from vrange._counters.names import KINDS, LATENCIES, OUTCOMES, RUNGS
from vrange._counters.own_file import FileRefusedError, OwnFile

__all__ = [
    "BUCKETS",
    "AccountCounts",
    "Histogram",
    "PressureCounts",
    "Segment",
    "SegmentRefusedError",
    "Snapshot",
    "bucket_floors_ns",
    "open_segment",
    "parse",
    "read",
]

_MAGIC = ffi.string(lib.SEGMENT_MAGIC)
_HEADER_BYTES = ffi.sizeof("segment_header")
_SLOT_BYTES = ffi.sizeof("segment_slot")
BUCKETS = ffi.sizeof("segment_histogram") // 8 - 1
_HISTOGRAM_BYTES = ffi.sizeof("segment_histogram")
_TRIES = 200
# Tables of this layout may grow, but no reader copies without a bound or shows names without end.
_BYTES_MOST = 8 * lib.vrange_segment_bytes()
_ACCOUNTS_MOST = 1024
_OVERFLOWS_MOST = 4 * lib.SEGMENT_OVERFLOWS


class SegmentRefusedError(FileRefusedError):
    """A file is not a stats segment, is torn, or belongs to another user."""


class _Source(Protocol):
    """Where the bytes of a segment are copied from."""

    where: str
    size: int

    def read(self, offset: int, size: int) -> bytes: ...


class _Memory:
    """A segment in memory of this process."""

    def __init__(self, data: memoryview, where: str) -> None:
        self.where, self.size, self._data = where, len(data), data

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._data[offset : offset + size])


class Segment:
    """An open segment with a checked header. `fields` has the native names."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self.fields: Any = self._header()

    def _header(self) -> Any:
        where, size = self._source.where, self._source.size
        if size < _HEADER_BYTES:
            raise SegmentRefusedError(f"{where} is torn: {size} bytes")
        # A copy: the other process may change what was checked.
        head = ffi.new("segment_header *")
        ffi.buffer(head)[:] = self._source.read(0, _HEADER_BYTES)
        if ffi.buffer(head.magic)[:] != _MAGIC:
            raise SegmentRefusedError(f"{where} is not a stats segment")
        if head.version != lib.SEGMENT_VERSION:
            raise SegmentRefusedError(
                f"{where} has layout {head.version}, and this vrange reads layout "
                f"{lib.SEGMENT_VERSION}"
            )
        ready = head.flags & lib.SEGMENT_READY
        if not ready or head.header_bytes < _HEADER_BYTES or head.bytes != size:
            raise SegmentRefusedError(f"{where} is torn: {size} bytes of {head.bytes}")
        if not _is_sound(head, size):
            raise SegmentRefusedError(f"{where} is torn: its tables don't fit into it")
        return head

    def snapshot(self) -> Snapshot:
        """Copy the counts. Raise SegmentRefusedError if the segment is no longer whole."""
        for _ in range(_TRIES):
            head = self._header()
            table = self._source.read(head.accounts_at, head.accounts_used * head.account_bytes)
            overflow = self._source.read(head.overflow_at, head.overflow_used * head.overflow_bytes)
            # It stays odd for ever if the process died while it moved counts.
            if head.turn % 2 == 0 and self._header().turn == head.turn:
                break
            time.sleep(0)
        return Snapshot(
            pid=head.pid,
            start_ticks=head.start_ticks,
            service=_text(head.service),
            name=_text(head.name),
            group=head.group,
            rung=RUNGS[head.rung - 1] if 0 < head.rung <= len(RUNGS) else "",
            kept=bool(head.flags & lib.SEGMENT_KEPT),
            accounts=list(_accounts(table, overflow, head)),
            latencies=self._latencies(head),
            stack_returned_bytes=head.stack_returned_bytes,
            trims=head.trims,
            stack_high_water_bytes=head.stack_high_water_bytes,
            stack_limit_bytes=head.stack_limit_bytes,
            pressure=PressureCounts.of(head),
        )

    def _latencies(self, head: Any) -> dict[tuple[str, str, str], Histogram]:
        found: dict[tuple[str, str, str], Histogram] = {}
        for shard in range(max(1, head.shards_used)):
            at = head.latencies_at + shard * head.shard_bytes
            data = self._source.read(at, head.kinds * head.latencies * _HISTOGRAM_BYTES)
            words = memoryview(data).cast("Q")
            for kind, kind_name in enumerate(KINDS):
                for latency, (metric, which) in enumerate(LATENCIES):
                    place = (kind * head.latencies + latency) * _HISTOGRAM_BYTES
                    histogram = _histogram(words, place)
                    if histogram is not None:
                        found.setdefault((metric, kind_name, which), Histogram()).add(histogram)
        return found


def _is_sound(head: Any, size: int) -> bool:
    """Return whether the tables that a header describes lie within `size` bytes."""
    return bool(
        head.kinds <= head.accounts_used <= head.accounts <= _ACCOUNTS_MOST
        and head.shards_used <= head.shards
        and head.shards >= 1
        and head.buckets == BUCKETS
        and head.account_bytes >= _SLOT_BYTES
        and head.regenerate_at + _HISTOGRAM_BYTES <= head.account_bytes
        and head.kinds * head.latencies * _HISTOGRAM_BYTES <= head.shard_bytes
        and head.accounts_at + head.accounts * head.account_bytes <= size
        and head.latencies_at + head.shards * head.shard_bytes <= size
        and head.kinds >= len(KINDS)
        and head.latencies >= len(LATENCIES)
        and head.overflow_used <= head.overflows <= _OVERFLOWS_MOST
        and head.overflow_bytes >= ffi.sizeof("segment_overflow")
        and head.overflow_at + head.overflows * head.overflow_bytes <= size
        and not head.account_bytes % 8
        and not head.overflow_bytes % 8
        and not head.regenerate_at % 8
    )


def _text(raw: Any) -> str:
    text: bytes = ffi.string(raw)
    return text.decode(errors="replace")


def _histogram(words: memoryview, at: int) -> Histogram | None:
    sum_ns = words[at // 8]
    if sum_ns == 0:
        return None
    return Histogram(sum_ns, words[at // 8 + 1 : at // 8 + 1 + BUCKETS].tolist())


def _accounts(table: bytes, overflow: bytes, head: Any) -> Iterator[AccountCounts]:
    words = memoryview(table).cast("Q")
    slot, one = ffi.new("segment_slot *"), ffi.new("vrange_account_counters *")
    overflow_table = ffi.from_buffer(overflow)
    for at in range(0, len(table), head.account_bytes):
        ffi.buffer(slot)[:] = table[at : at + _SLOT_BYTES]
        lib.vrange_account_read_copy(slot, one)
        if one.state == lib.VRANGE_ACCOUNT_FREE or not 0 <= one.kind < len(KINDS):
            continue
        if at < head.kinds * head.account_bytes:
            lib.vrange_account_add_overflows(
                one, overflow_table, head.overflow_used, head.overflow_bytes
            )
        yield AccountCounts(
            **account_figures(one),
            closed=one.state == lib.VRANGE_ACCOUNT_CLOSED,
            requests=dict(zip(OUTCOMES, one.requests, strict=True)),
            regenerate=_histogram(words, at + head.regenerate_at) or Histogram(),
        )


def parse(data: memoryview, where: str = "the segment") -> Snapshot:
    """Copy the counts out of a segment's bytes; SegmentRefusedError if they are not a segment."""
    return Segment(_Memory(data, where)).snapshot()


class _SegmentFile(OwnFile):
    refusal = SegmentRefusedError


@contextmanager
def open_segment(path: str | os.PathLike[str]) -> Iterator[Segment]:
    """Open the segment in a file of this user, whether its process is alive or not.

    Raise SegmentRefusedError if the file is torn, belongs to another user or has another layout,
    and OSError if it can't be read.
    """
    with _SegmentFile(path, _BYTES_MOST) as file:
        yield Segment(file)


def read(path: str | os.PathLike[str]) -> Snapshot:
    """Return the counts in the segment at `path`. Raise as `open_segment` does."""
    with open_segment(path) as segment:
        return segment.snapshot()
