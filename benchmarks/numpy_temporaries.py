"""The cost of NumPy's temporaries, and how much of their memory other processes can get afterwards.

Method. `a*b+a` and `a+b*2-a/3` over float64 arrays of 1, 8, 64 and 256 MiB. Each contender is a
process that persists; they are asked in turn, round after round. A turn's figure is the least
processor time of some evaluations. Medians of each round's ratio to the floor are compared; the
floor is the same with `out=` into existing arrays. A result is dropped before the next is made: a
process that holds two of them has twice the memory in the processor's caches, which says nothing
about allocators. Results are checked.

Then everything is dropped, and a second process in the contender's memory cgroup takes memory until
it is killed. The memory that the contender freed and still has, seen from outside before and after
that, gives the share that other processes could get.

Peers: glibc; glibc with settings that keep everything (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD,
M_TOP_PAD); jemalloc, mimalloc and tcmalloc by LD_PRELOAD, as packaged by Debian.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.contender import ROOT
from benchmarks.interleave import paired_ratio
from benchmarks.report import Target
from vrange.cli.memory_cgroup import MemoryCgroup

EXPRESSIONS = ("a*b+a", "a+b*2-a/3")
SIZES_MIB = (1, 8, 64, 256)
MOST_OF_FLOOR, LEAST_SHARE = 1.05, 0.95
FREED_MIB = 4 * 256  # at the largest size: both arrays, a temporary, and the result
LIMIT_BYTES = 3 << 30
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
GREEDY = """
import os
open("/proc/self/oom_score_adj", "w").write("1000")
held = []
while True:
    held.append(bytearray(b"x") * (16 << 20))
"""


def contenders() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {
        "floor": {},
        "vrange": {},
        "glibc": {},
        "glibc, tuned": TUNED,
    }
    for name, library in {
        "jemalloc": "jemalloc",
        "mimalloc": "mimalloc",
        "tcmalloc": "tcmalloc_minimal",
    }.items():
        path = ctypes.util.find_library(library)
        if path is None:
            print(f"without {name}: lib{library} is not installed")
        else:
            found[name] = {"LD_PRELOAD": path}
    return found


class Contender:
    """A process that evaluates on request."""

    def __init__(self, name: str, environment: dict[str, str], group: MemoryCgroup | None) -> None:
        self.group = group
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.numpy_temporaries_child", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **environment},
            preexec_fn=(lambda: group.add(os.getpid())) if group else None,
        )
        self._answer()
        self.base_mib = self.anonymous_mib()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "a contender ended"
        return dict(json.loads(line))

    def _tell(self, **task: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()

    def seconds(self, expression: str, mib: int, times: int) -> float:
        self._tell(expression=expression, mib=mib, times=times)
        told = self._answer()
        assert told["right"], f"{expression} of {mib} MiB came out wrong"
        return float(told["seconds"])

    def anonymous_mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        for line in text.splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("the kernel reports no such figure")

    def end(self) -> None:
        self._tell(end=True)
        self.process.wait()


def held_mib(contender: Contender, needed: bool) -> tuple[float, float]:
    """Return the freed MiB that remain, before and after another process needed memory."""
    before = contender.anonymous_mib() - contender.base_mib
    if not needed or contender.group is None:
        return before, before
    group = contender.group
    greedy = subprocess.Popen(
        [sys.executable, "-c", GREEDY],
        preexec_fn=lambda: group.add(os.getpid()),
        stderr=subprocess.DEVNULL,
    )
    assert greedy.wait() == -9, "the limit was not reached"
    assert contender.process.poll() is None, "the wrong one was killed"
    return before, contender.anonymous_mib() - contender.base_mib


def draw(ratios: dict[str, dict[str, float]], shares: dict[str, float], path: Path) -> None:
    from matplotlib import pyplot

    from benchmarks import plot

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, 4), layout="constrained", width_ratios=(3, 2)
    )
    cases = plot.ratio_lines(left, ratios)
    left.set_xticks(range(len(cases)), cases, rotation=40, ha="right", fontsize=8)
    left.set_ylabel("processor time, times out=")
    left.legend(frameon=False, fontsize=8)
    right.barh(list(shares), list(shares.values()), color="#2a7f62")
    right.set_xlabel("share of what was freed that another process could have")
    right.set_xlim(0, 1)
    figure.savefig(path, dpi=120)


def main() -> int:
    args = report.arguments(__doc__).parse_args()
    sizes = SIZES_MIB[:2] if args.quick else SIZES_MIB
    rounds, times = (2, 2) if args.quick else (7, 5)
    chosen = contenders()
    if args.quick:
        chosen = {name: chosen[name] for name in ("floor", "vrange", "glibc")}
    has_cgroup = MemoryCgroup.unavailable() is None
    groups = {name: MemoryCgroup(LIMIT_BYTES) if has_cgroup else None for name in chosen}
    try:
        running = {name: Contender(name, chosen[name], groups[name]) for name in chosen}
        seconds: dict[str, dict[str, list[float]]] = {name: {} for name in chosen}
        for _ in range(rounds):
            for mib in sizes:
                for expression in EXPRESSIONS:
                    case = f"{expression}, {mib} MiB"
                    repeats = times * max(1, 8 // mib)
                    for name, contender in running.items():
                        taken = contender.seconds(expression, mib, repeats)
                        seconds[name].setdefault(case, []).append(taken)
        time.sleep(0.5)  # more than vrange lets a block lie idle
        held = {
            name: held_mib(contender, has_cgroup and not args.quick)
            for name, contender in running.items()
        }
        for contender in running.values():
            contender.end()
    finally:
        for group in groups.values():
            if group is not None:
                group.close()
    ratios = {
        name: {case: paired_ratio(found, seconds["floor"][case]) for case, found in cases.items()}
        for name, cases in seconds.items()
        if name != "floor"
    }
    shares = {
        name: round(1 - max(0.0, after) / FREED_MIB, 3)
        for name, (_, after) in held.items()
        if name != "floor"
    }
    print(
        report.table(
            [
                {"contender": name, **{case: f"{ratio:.2f}" for case, ratio in found.items()}}
                for name, found in ratios.items()
            ]
        )
    )
    print("MiB held of what was freed, before and after another process needed it:", held)
    targets = []
    if not args.quick:
        for case, ratio in ratios["vrange"].items():
            targets.append(Target(f"{case}, times out=", ratio, "at most", MOST_OF_FLOOR))
            beside = paired_ratio(seconds["vrange"][case], seconds["glibc"][case])
            targets.append(Target(f"{case}, times glibc", beside, "at most", 1.0))
        if has_cgroup:
            targets.append(
                Target("share of what was freed", shares["vrange"], "at least", LEAST_SHARE)
            )
    args.results.mkdir(parents=True, exist_ok=True)
    draw(ratios, shares, args.results / "numpy_temporaries.png")
    measured = {
        "rounds": rounds,
        "times_floor": ratios,
        "milliseconds": {
            name: {case: median(found) * 1e3 for case, found in cases.items()}
            for name, cases in seconds.items()
        },
        "held_mib_before_and_after": held,
        "share_another_process_could_have": shares,
    }
    return report.write("numpy_temporaries", args.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
