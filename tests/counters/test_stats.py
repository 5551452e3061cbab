"""Snapshots: buckets, percentiles and counters that add up."""

from __future__ import annotations

import math
import threading
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import EAGER, PAGE, lose, wait_offered

import vrange
from vrange._core import ffi, lib
from vrange._counters.names import KINDS
from vrange._counters.stats import LatencySummary, stats

STACK = lib.VRANGE_KIND_STACK  # nobody else counts there in these tests


def histogram() -> LatencySummary:
    return vrange.stats().time_to_reallocate["stack", "purged"]


@given(st.integers(8, 1 << 39))
@example(8)
@example((1 << 39) - 1)
def test_a_bucket_is_within_its_error(nanoseconds: int) -> None:
    before = histogram()
    lib.vrange_latency_record(STACK, lib.VRANGE_REALLOCATE_PURGED, nanoseconds)
    after = histogram()
    grown = [b for b, n in enumerate(after.buckets) if n != before.buckets[b]]
    assert len(grown) == 1
    low, high = after.floors[grown[0]] * 1e9, after.floors[grown[0] + 1] * 1e9
    assert low * (1 - 1e-12) <= nanoseconds < high * (1 + 1e-12)
    assert abs((low + high) / 2 - nanoseconds) / nanoseconds <= 0.063
    assert after.count == before.count + 1
    assert after.sum_seconds - before.sum_seconds == pytest.approx(nanoseconds * 1e-9, rel=0.01)


def test_floors_grow_and_end_after_the_last_bucket() -> None:
    floors = histogram().floors
    assert len(floors) == lib.VRANGE_BUCKETS + 1
    assert floors[0] == 0
    assert all(low < high for low, high in pairwise(floors))


def test_durations_beyond_the_last_bucket_are_counted_there() -> None:
    before = histogram()
    lib.vrange_latency_record(STACK, lib.VRANGE_REALLOCATE_PURGED, (1 << 64) - 1)
    assert histogram().buckets[-1] == before.buckets[-1] + 1


@pytest.mark.parametrize(
    ("kind", "latency"), [(-1, 0), (lib.VRANGE_KINDS, 0), (0, -1), (0, lib.VRANGE_LATENCIES)]
)
def test_what_is_no_histogram_is_ignored(kind: int, latency: int) -> None:
    before = vrange.stats()
    lib.vrange_latency_record(kind, latency, 1000)
    out = ffi.new("vrange_histogram *")
    out.count = 77
    lib.vrange_latency_read(kind, latency, out)
    assert out.count == 0
    assert (
        vrange.stats().time_to_reallocate["stack", "purged"]
        == (before.time_to_reallocate["stack", "purged"])
    )


def test_threads_that_record_at_once_lose_nothing() -> None:
    before = histogram().count

    def record() -> None:
        for nanoseconds in range(20_000):
            lib.vrange_latency_record(STACK, lib.VRANGE_REALLOCATE_PURGED, nanoseconds)

    threads = [threading.Thread(target=record) for _ in range(12)]  # more than there are shards
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert histogram().count == before + 12 * 20_000


def summary(counts: dict[int, int]) -> LatencySummary:
    buckets = tuple(counts.get(b, 0) for b in range(lib.VRANGE_BUCKETS))
    return LatencySummary(sum(buckets), 0.0, buckets)


def test_percentiles() -> None:
    of = summary({100: 50, 200: 49, 300: 1})
    floors = of.floors
    middle = {b: (floors[b] + floors[b + 1]) / 2 for b in (100, 200, 300)}
    assert of.percentile(0) == of.percentile(50) == middle[100]
    assert of.percentile(50.1) == of.percentile(99) == middle[200]
    assert of.percentile(99.1) == of.percentile(100) == middle[300]
    assert math.isnan(summary({}).percentile(50))
    for wrong in (-1, 101, float("nan")):
        with pytest.raises(ValueError, match="percent must be 0 to 100"):
            of.percentile(wrong)


def test_every_kind_is_there() -> None:
    now = stats()
    assert {kind for kind, _ in now.time_to_free} == set(KINDS)
    assert {stage for _, stage in now.time_to_free} == {"released", "offered"}
    assert {outcome for _, outcome in now.time_to_reallocate} == {"resident", "purged"}


def test_bytes_of_an_arena_by_state(arena: vrange.Arena) -> None:
    assert arena.stats().reserved_bytes == arena.size
    ranges = [arena.allocate(3 * PAGE) for _ in range(4)]
    for r in ranges:
        r.buffer[:] = b"x" * r.nbytes
    now = arena.stats()
    assert (now.ranges, now.pinned_bytes) == (4, 12 * PAGE)
    for r in ranges[1:]:
        r.mark_volatile()
    ranges[3].discard()
    now = arena.stats()
    assert now.pinned_bytes == 3 * PAGE
    assert now.idle_bytes + now.offered_bytes == 6 * PAGE
    assert now.purged_bytes == now.purged_total_bytes == 3 * PAGE
    if not EAGER:
        wait_offered(ranges[1]._handle)
        wait_offered(ranges[2]._handle)
        assert arena.stats().offered_bytes == 6 * PAGE
        lose(ranges[2]._handle)
        assert ranges[2].pin()
        assert arena.stats().purged_total_bytes == 6 * PAGE
    ranges[3].free()
    now = arena.stats()
    assert (now.ranges, now.purged_bytes) == (3, 0)
    for r in ranges:
        r.free()
    now = arena.stats()
    assert now.pinned_bytes == now.idle_bytes == now.offered_bytes == now.purged_bytes == 0
    assert now.ranges == 0


def test_latencies_of_an_arena_are_told(arena: vrange.Arena) -> None:
    before = stats()
    r = arena.allocate(PAGE)
    r.buffer[:1] = b"x"
    r.mark_volatile()
    if not EAGER:
        wait_offered(r._handle)
    assert not r.pin()
    r.mark_volatile()
    r.discard()
    assert r.pin()
    r.refilled()
    now = stats()

    def more(of: str, which: str) -> int:
        then: int = getattr(before, of)["arena", which].count
        return int(getattr(now, of)["arena", which].count) - then

    assert more("time_to_free", "released") == 2
    assert more("time_to_free", "offered") >= (0 if EAGER else 1)
    assert more("time_to_reallocate", "resident") == 1
    assert more("time_to_reallocate", "purged") == 1
