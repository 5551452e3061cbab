"""Programs of small blocks, which vrange's malloc leaves to glibc: what the comparison costs.

Method. Four well-known patterns (small_blocks.c) run under each allocator, preloaded at its default
settings, one after another, round after round, in alternating order. Compared is processor time per
block, as the median of each round's ratio to plain glibc. "glibc again" is glibc once more: how far
it is from 1 is the noise. "jumps only" is a preload that passes each call on to glibc and does
nothing else (jumps_only.c): less is not possible for a library that stands before glibc's malloc.
"""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import vrange.malloc
from benchmarks import report
from benchmarks.interleave import interleaved, paired_ratio
from benchmarks.report import Target

SOURCE = Path(__file__).with_suffix(".c")
JUMPS = Path(__file__).with_name("jumps_only.c")
PATTERNS = ("larson", "xmalloc", "scratch", "mix")
THREADS = (1, 4, 16)
MOST = 1.02


def contenders(jumps: Path) -> dict[str, str | None]:
    """Return what each contender preloads."""
    found: dict[str, str | None] = {"glibc": None, "glibc again": None, "jumps only": str(jumps)}
    found["vrange"] = vrange.malloc.library()
    for name in ("jemalloc", "mimalloc", "tcmalloc_minimal"):
        path = ctypes.util.find_library(name)
        if path is None:
            print(f"without {name}: lib{name} is not installed")
        else:
            found[name.removesuffix("_minimal")] = path
    return found


def run(program: Path, pattern: str, threads: int, seconds: float, preloaded: str | None) -> float:
    """Return the nanoseconds of processor time that a block takes."""
    environment = {**os.environ, **({"LD_PRELOAD": preloaded} if preloaded else {})}
    command = [str(program), pattern, str(threads), str(seconds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    blocks, nanoseconds = map(int, done.stdout.split())
    return nanoseconds / blocks


def main() -> int:
    """Measure, print the table, write the JSON."""
    args = report.arguments(__doc__).parse_args()
    rounds, seconds = (2, 0.05) if args.quick else (9, 0.4)
    ratios: dict[str, dict[str, float]] = {}
    nanoseconds: dict[str, float] = {}
    targets = []
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "small_blocks"
        compiler = os.environ.get("CC", "cc")
        options = ["-O2", "-fno-builtin-malloc", "-pthread"]
        subprocess.run([compiler, *options, SOURCE, "-o", program], check=True)
        jumps = Path(directory) / "jumps_only.so"
        options = ["-O2", "-fno-builtin", "-fno-plt", "-fPIC", "-shared"]
        subprocess.run([compiler, *options, JUMPS, "-o", jumps], check=True)
        chosen = contenders(jumps)

        def runner(pattern: str, threads: int, preloaded: str | None) -> Callable[[], float]:
            return lambda: run(program, pattern, threads, seconds, preloaded)

        for pattern in PATTERNS:
            for threads in THREADS[1:2] if args.quick else THREADS:
                found = interleaved(
                    {name: runner(pattern, threads, path) for name, path in chosen.items()}, rounds
                )
                label = f"{pattern}, {threads} threads" if threads > 1 else f"{pattern}, 1 thread"
                nanoseconds[label] = sorted(found["glibc"])[rounds // 2]
                for name in [one for one in chosen if one != "glibc"]:
                    of_glibc = ratios.setdefault(name, {})
                    of_glibc[label] = paired_ratio(found[name], found["glibc"])
                if not args.quick:
                    what = f"{label}, times glibc"
                    targets.append(Target(what, ratios["vrange"][label], "at most", MOST))
                    what = f"{label}, times a preload that only passes calls on"
                    beside = paired_ratio(found["vrange"], found["jumps only"])
                    targets.append(Target(what, beside, "at most", MOST))
    print(
        report.table(
            [
                {"contender": name, **{case: f"{ratio:.3f}" for case, ratio in found.items()}}
                for name, found in ratios.items()
            ]
        )
    )
    measured = {"times_glibc": ratios, "glibc_nanoseconds_a_block": nanoseconds}
    return report.write("small_blocks", args.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
