"""Hits on values that another process stored: a shared cache beside servers and shared memory.

One process stores values; this one reads them, and never holds one for longer than the next. Each
peer answers with `bytes`. The floor is the kernel's own copy of as many bytes out of the other
process (`process_vm_readv`) into memory that is allocated for it.
"""

from __future__ import annotations

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

SOURCE = Path(__file__).with_name("peer_copy.c")
KEYS = 16
MOST_OVERHEAD_MICROSECONDS = 3.0
LEAST_TIMES_REDIS = 5.0
SECONDS = 0.3
clock = time.perf_counter


class Floor:
    """The kernel's copy out of a child, without anything around it."""

    def __init__(self, program: Path, nbytes: int, seconds: float) -> None:
        self._command = [str(program), str(nbytes), str(seconds)]

    def microseconds(self) -> float:
        """Return the time of a copy into fresh memory."""
        done = subprocess.run(self._command, capture_output=True, text=True, check=True)
        return float(done.stdout) / 1e3


def microseconds(get: Callable[[int], Any], nbytes: int, seconds: float) -> float:
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
    contenders["process_vm_readv"] = Floor(program, nbytes, seconds).microseconds
    return interleaved(contenders, rounds)


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
        over = median(
            ours - floor
            for ours, floor in zip(times["vrange"], times["process_vm_readv"], strict=True)
        )
        targets.append(
            Target(
                f"{label}: µs beyond the kernel's copy", over, "at most", MOST_OVERHEAD_MICROSECONDS
            )
        )
        if "Redis" in times:
            ratio = paired_ratio(times["Redis"], times["vrange"])
            targets.append(
                Target(f"{label}: times as fast as Redis", ratio, "at least", LEAST_TIMES_REDIS)
            )
    names = list(dict.fromkeys(name for times in measured.values() for name in times))
    rows = [
        {"µs a hit": name, **{label: median(times[name]) for label, times in measured.items()}}
        for name in names
        if all(name in times for times in measured.values())
    ]
    print(table(rows))
    status = write("shared_cache", given.results, {"microseconds": measured}, targets)
    return 0 if given.quick else status


if __name__ == "__main__":
    sys.exit(main())
