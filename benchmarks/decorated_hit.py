"""The cost of a hit: hot and volatile; alone, and beside a busy Python thread.

Method. Each cache decorates the same function of one int and is filled with 64 values of 100 bytes.
Then the hits are timed for fifths of a second, all caches in turn, and compared by the median of
the rounds' ratios. The floor is a plain dict behind a function. diskcache answers from disk, so its
loop is shorter. Then the same is run with a second Python thread that never waits. The other thread
now gets half of the time, and a cache that releases the GIL within a hit waits for it 5 ms at a
time (the GIL convoy).

A volatile hit is one of a cache that holds nothing strongly (hot_bytes=0): the value of 256 KiB is
pinned, and released when it dies. Its rate beside the busy thread is compared with its rate alone.

Small volatile values (small_hits.py): 64 of each kind, through `@cached` and `cache[key]`, with
nothing held strongly. Their targets are times: 0.6 µs, and 1 µs for an array of 200 bytes.

Volatile and offered: the kernel has been told that it may reclaim the value, so a pin has to revoke
that, page by page. Floor: MADV_POPULATE_WRITE itself, called through ctypes (the cost of ctypes is
subtracted), on ranges that were stored and offered together with those that are pinned, in turn.

Check: nothing is computed while hits are timed, and the kernel counts the offered bytes as LazyFree
before each round, and no longer after it.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from statistics import median
from typing import Any

import numpy as np

import vrange
from benchmarks import memory, peers, plot, report, small_hits
from benchmarks.busy import busy_thread
from benchmarks.interleave import interleaved, paired_ratio
from benchmarks.report import Target
from vrange._core import ffi, lib

HOT_VALUES = 64
LARGE_BYTES = 256 << 10
OFFERED_VALUES = 64  # pinned in a round; as many more are for the kernel's own call
QUIET_TICK_SECONDS = 0.5  # the reserve doesn't look while a round is timed
MOST_TIMES_LRU_CACHE = 1.5
LEAST_SHARE_BESIDE_BUSY = 1 / 3
MOST_TIMES_KERNEL = 1.5
clock = time.perf_counter


class HotHits:
    """One filled cache; `ns` times its hits."""

    def __init__(self, name: str, seconds: float) -> None:
        self._computed = 0
        self._call = peers.PEERS[name](self._compute, peers.ENTRIES.get(name))
        self._keys = list(range(1000, 1000 + HOT_VALUES))
        self._seconds = seconds
        for key in self._keys * 2:
            self._call(key)
        assert self._computed == HOT_VALUES

    def _compute(self, key: int) -> bytes:
        self._computed += 1
        return key.to_bytes(100, "little")

    def ns(self) -> float:
        """Return the time per hit, including the loop over the keys."""
        call, keys, seconds = self._call, self._keys, self._seconds
        passes = 0
        start = clock()
        while (taken := clock() - start) < seconds:
            for key in keys:
                call(key)
            passes += 1
        assert self._computed == HOT_VALUES, "a hit was none"
        assert self._call(keys[-1]) == keys[-1].to_bytes(100, "little")
        return taken / (passes * len(keys)) * 1e9


def hot_hits(rounds: int, seconds: float, busy: bool) -> dict[str, list[float]]:
    """Return the times in ns of all peers, by round."""
    caches = {name: HotHits(name, seconds) for name in peers.PEERS}
    with busy_thread() if busy else nullcontext():
        return interleaved({name: cache.ns for name, cache in caches.items()}, rounds)


class VolatileHits:
    """Hits of values that nothing holds between the hits."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._cache = vrange.VolatileCache[int, Any](name="volatile", hot_bytes=0)
        self._cache[0] = np.ones(LARGE_BYTES, np.uint8)

    def rate(self) -> float:
        """Return the hits per second of wall time, by one thread."""
        cache, hits = self._cache, 0
        start = clock()
        while (taken := clock() - start) < self._seconds:
            for _ in range(10):
                cache[0]
            hits += 10
        info = cache.info()
        assert info.purged == 0, "taken without pressure"
        return hits / taken

    def rate_beside_busy(self) -> float:
        with busy_thread():
            return self.rate()

    def close(self) -> None:
        self._cache.close()


def volatile_hits(rounds: int, seconds: float, tick: float | None) -> dict[str, list[float]]:
    """Return the rates alone and beside a busy thread, by round."""
    vrange.set_reserve(tick=tick)
    hits = VolatileHits(seconds)
    found = interleaved({"alone": hits.rate, "busy": hits.rate_beside_busy}, rounds)
    hits.close()
    vrange.set_reserve()
    return found


class OfferedHits:
    """Two sets of offered values: one is pinned by the cache, the other by the kernel's call."""

    def __init__(self) -> None:
        vrange.set_reserve(bytes="128MiB", tick=QUIET_TICK_SECONDS)
        self._cache = vrange.VolatileCache[int, Any](name="offered", hot_bytes=0)
        self._sets = [list(range(OFFERED_VALUES)), list(range(OFFERED_VALUES, 2 * OFFERED_VALUES))]
        self._address = {}
        for key in range(2 * OFFERED_VALUES):
            self._cache[key] = np.full(LARGE_BYTES, key, np.uint8)
            self._address[key] = self._cache[key].ctypes.data & -memory.PAGE_BYTES
        start = clock()
        for _ in range(1000):
            memory.getppid()
        self._ctypes_us = (clock() - start) / 1000 * 1e6

    def round(self) -> dict[str, float]:
        """Return times in µs: one pin and release, offered and idle, and the kernel's share."""
        self._wait_until_offered()
        before = memory.lazyfree_bytes()
        whole = 2 * OFFERED_VALUES * LARGE_BYTES
        assert before >= 0.98 * whole, f"{before} of {whole} bytes are lazily free"
        pinned, told = self._sets
        self._sets.reverse()
        offered = self._pin_all(pinned)
        populate, address = memory.madvise, self._address
        start = clock()
        for key in told:
            populate(address[key], LARGE_BYTES, memory.MADV_POPULATE_WRITE)
        kernel = (clock() - start) / OFFERED_VALUES * 1e6 - self._ctypes_us
        idle = self._pin_all(pinned)
        after = memory.lazyfree_bytes()
        assert after <= 0.02 * whole, f"{after} bytes are still lazily free: nothing was pinned"
        self._pin_all(told)  # and so they are offered again
        return {"offered": offered, "kernel": kernel, "idle": idle}

    def _pin_all(self, keys: list[int]) -> float:
        cache = self._cache
        start = clock()
        for key in keys:
            cache[key]
        taken = clock() - start
        assert all(cache[key][-1] == key for key in keys)
        return taken / len(keys) * 1e6

    def _wait_until_offered(self) -> None:
        """Wait until the reserve has offered everything.

        It has just looked then, and will look again a tick later.
        """
        reserve = ffi.new("vrange_reserve_info *")
        until = clock() + 10
        while True:
            lib.vrange_reserve_read(reserve)
            if (
                reserve.idle_bytes == 0
                and reserve.offered_bytes >= 2 * OFFERED_VALUES * LARGE_BYTES
            ):
                return
            assert clock() < until, "the reserve doesn't offer what is idle"
            time.sleep(0.001)

    def close(self) -> None:
        self._cache.close()
        vrange.set_reserve()


def offered_hits(rounds: int) -> dict[str, list[float]]:
    hits = OfferedHits()
    found = [hits.round() for _ in range(rounds)]
    hits.close()
    return {name: [one[name] for one in found] for name in found[0]}


def draw(hot: dict[str, dict[str, list[float]]], results: Any) -> None:
    drawn, panels = plot.figure(1, 2, sharey=True)
    drawn.subplots_adjust(left=0.15, right=0.97, top=0.82, bottom=0.08, wspace=0.08)
    drawn.text(
        0.03,
        0.93,
        "A hot hit of a decorated function, ns (logarithmic)",
        fontsize=23,
        fontweight="bold",
    )
    names = sorted(hot["alone"], key=lambda name: -median(hot["alone"][name]))
    for axes, (title, times) in zip(panels, hot.items(), strict=True):
        values = [median(times[name]) for name in names]
        colours = [plot.OURS if name == "vrange" else "#B8B8B8" for name in names]
        axes.barh(names, values, color=colours, height=0.62)
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * 8)
        axes.set_title({"alone": "alone", "busy": "beside a busy Python thread"}[title], pad=12)
        axes.tick_params(length=0, labelsize=15, labelcolor=plot.INK)
        axes.set_xticks([])
        axes.minorticks_off()
        axes.spines["bottom"].set_visible(False)
        for place, value in enumerate(values):
            axes.annotate(
                f"{value:,.0f}", (value, place), (7, 0), textcoords="offset points", va="center"
            )
    plot.save(drawn, results, "decorated_hit")


def main() -> int:
    args = report.arguments(__doc__).parse_args()
    rounds, seconds = (3, 0.05) if args.quick else (15, 0.2)
    hot = {
        "alone": hot_hits(rounds, seconds, busy=False),
        "busy": hot_hits(rounds, seconds, busy=True),
    }
    volatile = {
        "the reserve at its default": volatile_hits(rounds, seconds, None),
        "idle (the reserve looks every 10 s)": volatile_hits(rounds, seconds, 10.0),
    }
    offered = offered_hits(rounds)
    small = small_hits.small_hits(rounds, seconds / 4)

    print(
        report.table(
            [
                {"hot hit, ns": name}
                | {how: median(times[name]) for how, times in hot.items()}
                | {
                    f"{how}, × lru_cache": paired_ratio(times[name], times["lru_cache"])
                    for how, times in hot.items()
                }
                for name in peers.PEERS
            ]
        )
    )
    shares = {name: paired_ratio(rate["busy"], rate["alone"]) for name, rate in volatile.items()}
    for name, rate in volatile.items():
        print(
            f"\nvolatile hits a second, {name}:", {k: f"{median(v):.0f}" for k, v in rate.items()}
        )
    times_kernel = paired_ratio(offered["offered"], offered["kernel"])
    print("\npin and release of 256 KiB, µs:", {k: f"{median(v):.2f}" for k, v in offered.items()})
    print()
    print(
        report.table(
            [
                {"small volatile hit, µs": kind}
                | {way: median(small[kind, way]) for way in small_hits.WAYS}
                | {"target": most}
                for kind, most in small_hits.MOST_MICROSECONDS.items()
            ]
        )
    )

    targets = []
    if not args.quick:
        targets = [
            Target(
                f"hot hit beside lru_cache, {how}",
                paired_ratio(times["vrange"], times["lru_cache"]),
                "at most",
                MOST_TIMES_LRU_CACHE,
            )
            for how, times in hot.items()
        ]
        targets += [
            Target(
                f"volatile hits beside a busy thread, {name}",
                share,
                "at least",
                LEAST_SHARE_BESIDE_BUSY,
            )
            for name, share in shares.items()
        ]
        targets += [
            Target(
                f"volatile hit of a small {kind} through {way}, µs",
                median(times),
                "at most",
                small_hits.MOST_MICROSECONDS[kind],
            )
            for (kind, way), times in small.items()
        ]
        what = "offered value of 256 KiB, pin and release, beside MADV_POPULATE_WRITE"
        targets.append(Target(what, times_kernel, "at most", MOST_TIMES_KERNEL))
    draw(hot, args.results)
    measured = {
        "hot_ns": {how: {k: median(v) for k, v in times.items()} for how, times in hot.items()},
        "volatile_hits_per_second": {
            name: {how: median(rates) for how, rates in found.items()}
            for name, found in volatile.items()
        },
        "small_volatile_us": {
            kind: {way: median(small[kind, way]) for way in small_hits.WAYS}
            for kind in small_hits.MAKE
        },
        "offered_us": {name: median(times) for name, times in offered.items()},
        "rounds": rounds,
    }
    return report.write("decorated_hit", args.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
