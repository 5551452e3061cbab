"""Releasing memory: the cost of deleting the last view, from 64 KiB to 64 MiB.

Method. Eight arrays of one size are held; then the list that holds them is cleared, and the time is
divided by eight. vrange's arrays come from a VolatileCache that holds nothing strongly, so that
their deletion is the release. Its sizes are measured in turn, since the claim is that they cost the
same. At release, the peers do what an allocator would do to return the memory: MADV_FREE,
MADV_DONTNEED or munmap, through ctypes, on written mappings of the same size. At each size the
peers are measured in turn, because what they do to 64 MiB leaves all caches of the processor cold
for the next one. All figures are medians of the rounds.

Floor: for the peers, one system call through the same route (getppid). vrange makes none, which is
proved and not timed: see silent_release.py.

"Release and use again" marks a Range volatile, pins it and writes one word of each page. The peers
release likewise and write one word of each page. Floor: writing the words.

Check: after a release vrange's pages are all resident and no longer pinned; MADV_FREE's are counted
as LazyFree, and DONTNEED's are gone.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import vrange
from benchmarks import memory, plot, report, silent_release
from benchmarks.interleave import interleaved
from benchmarks.report import Target

KIB, MIB = 1 << 10, 1 << 20
SIZES = [64 * KIB, 256 * KIB, 1 * MIB, 4 * MIB, 16 * MIB, 64 * MIB]
BATCH = 8
SMALL = -1  # the key of one more value, of the smallest size
CONSTANT = 2.0  # largest to smallest: the sizes differ by 1024
ADVICE = {"MADV_FREE": memory.MADV_FREE, "MADV_DONTNEED": memory.MADV_DONTNEED}
clock = time.perf_counter_ns


class Values:
    """Arrays of one size in a cache that holds nothing strongly."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._cache = vrange.VolatileCache[int, Any](name="released", hot_bytes=0)
        for key in range(BATCH):
            self._cache[key] = np.ones(size, np.uint8)
        self._cache[SMALL] = np.ones(SIZES[0], np.uint8)

    def release(self) -> float:
        """Return nanoseconds per release."""
        held = [self._cache[key] for key in range(BATCH)]
        for _ in range(3):
            for key in range(BATCH):
                self._cache[key]
            self._cache[SMALL]
        start = clock()
        held.clear()
        return (clock() - start) / BATCH

    def settled(self) -> float:
        """Return the median of some releases in a row, so that a turn doesn't begin cold."""
        return median(self.release() for _ in range(9))

    def check(self) -> None:
        self.release()
        for key in range(BATCH):
            value = self._cache[key]
            share = memory.resident_share(value.ctypes.data & -memory.PAGE_BYTES, self.size)
            assert share == 1, f"{share:.0%} of a released value is resident"
        del value
        until = time.monotonic() + 5
        while pinned := self._cache.info().pinned_bytes:
            # What is just being offered counts as pinned for a moment.
            assert time.monotonic() < until, f"{pinned} bytes are pinned after the release"
            time.sleep(0.001)

    def close(self) -> None:
        self._cache.close()


class Mapping:
    """A mapping that one of the system calls releases."""

    def __init__(self, size: int, how: str) -> None:
        self.size, self.how = size, how
        self.address = memory.map_private(size)
        self.touch()

    def touch(self) -> None:
        """Write one word of each page."""
        touch((ctypes.c_char * self.size).from_address(self.address))

    def give_back(self) -> None:
        if self.how == "munmap":
            memory.munmap(self.address, self.size)
        else:
            memory.madvise(self.address, self.size, ADVICE[self.how])

    def release(self) -> float:
        start = clock()
        self.give_back()
        taken = clock() - start
        if self.how == "munmap":
            self.address = memory.map_private(self.size)
        self.touch()
        return taken

    def use_again(self) -> float:
        start = clock()
        self.give_back()
        if self.how == "munmap":
            self.address = memory.map_private(self.size)
        self.touch()
        return clock() - start

    def check(self) -> None:
        """Check that the call does what it is named for."""
        if self.how == "munmap":
            return
        self.give_back()
        if self.how == "MADV_FREE":
            # Without swap the kernel can drop a written page only if it was freed.
            # What is on its way to another processor's list it keeps at first: asked again.
            for _ in range(5):
                memory.advise(self.address, self.size, memory.MADV_PAGEOUT)
                self.give_back()
        share = memory.resident_share(self.address, self.size)
        assert share == 0, f"{share:.0%} stayed resident after {self.how}"
        self.touch()

    def close(self) -> None:
        memory.unmap(self.address, self.size)


def touch(buffer: Any) -> None:
    np.frombuffer(buffer, np.uint8)[:: memory.PAGE_BYTES] = 1


class Rewritten:
    """A Range that is released and used again at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._arena = vrange.Arena(size, name="rewritten")
        self._range = self._arena.allocate(size)
        touch(self._range.buffer)

    def use_again(self) -> float:
        start = clock()
        self._range.mark_volatile()
        purged = self._range.pin()
        touch(self._range.buffer)
        taken = clock() - start
        assert not purged, "taken without pressure"
        return taken

    def floor(self) -> float:
        start = clock()
        touch(self._range.buffer)
        return clock() - start

    def close(self) -> None:
        self._arena.close()


def one_system_call() -> float:
    start = clock()
    for _ in range(100):
        memory.getppid()
    return (clock() - start) / 100


def measure(size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the peers' releases at one size, and all contenders' second uses, in ns."""
    rewritten = Rewritten(size)
    mappings = {how: Mapping(size, how) for how in (*ADVICE, "munmap")}
    for mapping in mappings.values():
        mapping.check()
    released: dict[str, Callable[[], float]] = {}
    again: dict[str, Callable[[], float]] = {
        "vrange": rewritten.use_again,
        "floor: touching": rewritten.floor,
    }
    for how, mapping in mappings.items():
        released[how] = mapping.release
        again[how] = mapping.use_again
    released["floor: a system call"] = one_system_call
    found = {
        "release": _medians(released, rounds),
        "release and use again": _medians(again, rounds),
    }
    opened: list[Rewritten | Mapping] = [rewritten, *mappings.values()]
    for one in opened:
        one.close()
    return found


def constancy(sizes: list[int], rounds: int) -> dict[int, float]:
    """Return the cost of vrange's release at each size, in ns."""
    values = {size: Values(size) for size in sizes}
    for one in values.values():
        one.check()
    found = interleaved({str(size): one.settled for size, one in values.items()}, rounds)
    for one in values.values():
        one.close()
    return {size: median(found[str(size)]) for size in sizes}


def _medians(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    return {name: median(times) for name, times in interleaved(contenders, rounds).items()}


def draw(figures: dict[int, dict[str, dict[str, float]]], results: Any) -> None:
    colours = {
        "vrange": plot.OURS,
        "MADV_FREE": plot.GREEN,
        "MADV_DONTNEED": plot.VERMILION,
        "munmap": plot.PURPLE,
        "floor: a system call": plot.GREY,
        "floor: touching": plot.GREY,
    }
    drawn, panels = plot.figure(1, 2)
    drawn.subplots_adjust(left=0.065, right=0.86, top=0.83, bottom=0.08, wspace=0.56)
    drawn.text(
        0.065, 0.93, "Releasing 64 MiB costs what releasing 64 KiB does", fontsize=23, weight="bold"
    )
    sizes = list(figures)
    for axes, figure in zip(panels, ("release", "release and use again"), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(f"{figure}, µs", fontsize=17, pad=14)
        axes.set_xticks(sizes, [human(size) for size in sizes])
        axes.minorticks_off()
        axes.grid(axis="y", color=plot.PALE, lw=0.8)
        axes.tick_params(length=0)
        ends = {}
        for name in figures[sizes[0]][figure]:
            times = [figures[size][figure][name] / 1e3 for size in sizes]
            axes.plot(
                sizes,
                times,
                color=colours[name],
                lw=3.4 if name == "vrange" else 2,
                ls="--" if name.startswith("floor") else "-",
                marker="o" if name == "vrange" else None,
            )
            ends[name] = times[-1]
        plot.label_ends(axes, ends, colours, sizes[-1], times=1.5)
    plot.save(drawn, results, "release")


def human(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


def main() -> int:
    parser = report.arguments(__doc__)
    args = parser.parse_args()
    sizes = SIZES[:3] if args.quick else SIZES
    rounds = 9 if args.quick else 101
    ours = constancy(sizes, rounds // 9)
    figures = {size: measure(size, rounds if size < 16 * MIB else rounds // 3) for size in sizes}
    for size, found in figures.items():
        found["release"] = {"vrange": ours[size], **found["release"]}
    for figure in ("release", "release and use again"):
        print(f"\n{figure}, µs")
        print(
            report.table(
                [
                    {"size": human(size)}
                    | {name: time_ns / 1e3 for name, time_ns in found[figure].items()}
                    for size, found in figures.items()
                ]
            )
        )
    proof = {name: silent_release.made_no_system_call(name) for name in silent_release.CASES}
    print(f"\nreleases without a system call: {proof}")
    assert not proof["MADV_FREE"], "the proof can't see a system call"
    targets = [Target("releasing thread makes no system call", proof["vrange"], "at least", True)]
    if not args.quick:
        spread = max(ours.values()) / min(ours.values())
        targets.append(Target("release, dearest size to cheapest", spread, "at most", CONSTANT))
        draw(figures, args.results)
    measured = {
        "unit": "ns",
        "figures": {human(size): found for size, found in figures.items()},
        "silent": proof,
    }
    return report.write("release", args.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
