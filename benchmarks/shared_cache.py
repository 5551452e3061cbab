"""Hits on values that another process stored: a shared cache beside servers and shared memory.

One process stores values; this one reads them, and never holds one for longer than the next. Each
peer answers with `bytes`. The floor is the kernel's own copy of as many bytes out of the other
process (`process_vm_readv`) into memory that is allocated for it.

Then workers call a cheap function whose results are in one cache, or in a cache of each.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.interleave import interleaved, paired_ratio
from benchmarks.report import Target, arguments, table, write
from benchmarks.shared_cache_peers import PEERS, SIZES, Peer, value_of
from benchmarks.shared_cache_workers import CACHES, WORKERS, requests_per_cpu_second

SOURCE = Path(__file__).with_name("peer_copy.c")
KEYS = 16
MOST_OVERHEAD_MICROSECONDS = 3.0
LEAST_TIMES_REDIS = 5.0
LEAST_OF_PRIVATE = 1.0  # requests per CPU-second, as a part of those with one cache each
SECONDS = 0.3
REQUESTS = 100_000  # of each worker
clock = time.perf_counter
# Beside others' processes, waiting for a processor would count as overhead of the longer call.
OURS, FLOOR = "vrange, processor time", "process_vm_readv, processor time"


class Floor:
    """The kernel's copy out of a child, without anything around it."""

    def __init__(self, program: Path, nbytes: int, seconds: float) -> None:
        self._command = [str(program), str(nbytes), str(seconds), str(KEYS)]

    def microseconds(self, which: int = 0) -> float:
        """Return the time of a copy into fresh memory, or with 1 the processor time."""
        done = subprocess.run(self._command, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[which]) / 1e3


def microseconds(
    get: Callable[[int], Any], nbytes: int, seconds: float, clock: Callable[[], float] = clock
) -> float:
    """Return the time per hit; each value is checked by its length."""
    hits, start = 0, clock()
    while (taken := clock() - start) < seconds:
        for key in range(KEYS):
            assert len(get(key)) == nbytes
        hits += KEYS
    return taken / hits * 1e6


def measure(
    nbytes: int, rounds: int, seconds: float, program: Path, stack: ExitStack
) -> dict[str, list[float]]:
    """Return the times in µs of each peer, by round."""
    contenders: dict[str, Callable[[], float]] = {}
    for name, make in PEERS.items():
        peer: Peer | None = make(nbytes, KEYS)
        if peer is None:
            print(f"{name} is not installed", file=sys.stderr)
            continue
        stack.callback(peer.close)
        assert all(bytes(peer.get(key)) == value_of(key, nbytes) for key in range(KEYS)), name
        contenders[name] = lambda peer=peer: microseconds(peer.get, nbytes, seconds)  # type: ignore[misc]
        if name == "vrange":
            contenders[OURS] = lambda peer=peer: microseconds(  # type: ignore[misc]
                peer.get, nbytes, seconds, time.process_time
            )
    floor = Floor(program, nbytes, seconds)
    contenders["process_vm_readv"] = floor.microseconds
    contenders[FLOOR] = lambda: floor.microseconds(1)
    return interleaved(contenders, rounds)


def draw(times: dict[str, list[float]], results: Path) -> None:
    """Draw the time of a hit by the value's size, both on logarithmic axes."""
    from benchmarks import plot

    drawn, axes = plot.figure()
    sizes = list(SIZES.values())
    inks = {"vrange": plot.OURS, "Redis": plot.VERMILION, "memcached": plot.PURPLE}
    colours = {name: inks.get(name, plot.GREY) for name in times}
    for name, hits in times.items():
        width = 4 if name == "vrange" else 2
        style = "--" if name == "process_vm_readv" else "-"
        axes.loglog(sizes, hits, style, color=colours[name], linewidth=width, marker="o")
    plot.label_ends(
        axes, {name: hits[-1] for name, hits in times.items()}, colours, sizes[-1], times=1.6
    )
    axes.set_xticks(sizes, list(SIZES))
    axes.minorticks_off()
    axes.set_ylabel("µs a hit")
    axes.set_title("A hit on a value that another process stored", fontsize=20, pad=18)
    drawn.subplots_adjust(left=0.07, right=0.7, top=0.9, bottom=0.08)
    plot.save(drawn, results, "shared_cache")


def main() -> int:
    parser = arguments(__doc__)
    given = parser.parse_args()
    rounds, seconds = (2, 0.02) if given.quick else (7, SECONDS)
    measured: dict[str, dict[str, list[float]]] = {}
    targets = []
    program = Path(tempfile.mkdtemp(prefix="vrange-bench-"), "peer_copy")
    subprocess.run([os.environ.get("CC", "cc"), "-O2", SOURCE, "-o", program], check=True)
    for label, nbytes in SIZES.items():
        with ExitStack() as stack:
            times = measure(nbytes, rounds, seconds, program, stack)
        measured[label] = times
        over = median(ours - floor for ours, floor in zip(times[OURS], times[FLOOR], strict=True))
        targets.append(
            Target(
                f"{label}: µs of processor time beyond the kernel's copy",
                over,
                "at most",
                MOST_OVERHEAD_MICROSECONDS,
            )
        )
        if "Redis" in times:
            ratio = paired_ratio(times["Redis"], times["vrange"])
            targets.append(
                Target(f"{label}: times as fast as Redis", ratio, "at least", LEAST_TIMES_REDIS)
            )
    requests = REQUESTS // 50 if given.quick else REQUESTS
    worked = interleaved(
        {cache: functools.partial(requests_per_cpu_second, cache, requests) for cache in CACHES},
        min(rounds, 5),
    )
    ratio = paired_ratio(worked[CACHES[0]], worked[CACHES[1]])
    targets.append(
        Target(
            f"{WORKERS} workers, a cheap function: requests per CPU-second, of those with one "
            "cache each",
            ratio,
            "at least",
            LEAST_OF_PRIVATE,
        )
    )
    names = list(dict.fromkeys(name for times in measured.values() for name in times))
    rows = [
        {"µs a hit": name, **{label: median(times[name]) for label, times in measured.items()}}
        for name in names
        if all(name in times for times in measured.values())
    ]
    print(table(rows))
    print(table([{"requests per CPU-second": name, "": median(worked[name])} for name in CACHES]))
    document = {
        "load_average": os.getloadavg(),
        "microseconds": measured,
        "requests_per_cpu_second": worked,
    }
    status = write("shared_cache", given.results, document, targets)
    if not given.quick:
        shown = [name for name in names if name not in (OURS, FLOOR)]
        times = {name: [median(measured[size][name]) for size in SIZES] for name in shown}
        draw(times, given.results)
    return 0 if given.quick else status


if __name__ == "__main__":
    sys.exit(main())
