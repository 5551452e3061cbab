"""An allocator's work, as the vrange proposal of 2013 measured it, in an unchanged C program.

Method. Threads copy a chunk into new memory, search the copy, and free it (ebizzy.c). Contenders
run one after another, round after round, in alternating order. Compared are records per second of
processor time, and of these the medians of each round's ratio to the limit: the same without any
allocation.

vrange, jemalloc, mimalloc and tcmalloc are preloaded under the same program; all are at their
default settings. Three more return memory at each free, by MADV_FREE, by MADV_DONTNEED and by
munmap. smaps_rollup reports how much is resident at the end, and how much of that the kernel may
take.

Beside a hog: each run shares a memory cgroup with a process (hog.c) that takes all that the program
itself does not need, returns a part, and takes it again, all the time.
"""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import vrange.malloc
from benchmarks import report
from benchmarks.interleave import interleaved, paired_ratio
from benchmarks.report import Target
from vrange.cli.memory_cgroup import MemoryCgroup

SOURCE = Path(__file__).with_suffix(".c")
KIB = 1 << 10
CHUNKS = 10  # as in ebizzy.c
CASES = {
    "64 KiB": (64 * KIB, False),
    "512 KiB": (512 * KIB, False),
    "4 MiB": (4096 * KIB, False),
    "64 to 128 KiB": (128 * KIB, True),
    "256 to 512 KiB": (512 * KIB, True),
    "512 KiB to 1 MiB": (1024 * KIB, True),
    "1 to 2 MiB": (2048 * KIB, True),
    "2 to 4 MiB": (4096 * KIB, True),
}
THREADS = (1, 4, 16)
HOG = Path(__file__).with_name("hog.c")
HOG_CASES = ("512 KiB", "4 MiB")
HOG_THREADS = 4
HOG_LIMIT = 512 << 20
HOG_MORE = 96 << 20  # what it takes and returns
HOG_ROOM = 48 << 20  # left for the program's own code, and for the kernel
RETURNING = ("MADV_FREE", "MADV_DONTNEED", "munmap")
LEAST_OF_LIMIT = 0.95
LEAST_OF_RETURNING = 4.0
LEAST_OF_DONTNEED = 25.0
KEEPING = ("glibc", "jemalloc", "mimalloc", "tcmalloc")


@dataclass(frozen=True)
class Run:
    """The figures of one run."""

    records: int
    seconds: float
    resident_kib: int
    lazyfree_kib: int

    @property
    def rate(self) -> float:
        return self.records / self.seconds


@dataclass(frozen=True)
class Contender:
    mode: str
    preloaded: str | None = None

    def run(
        self,
        program: Path,
        threads: int,
        case: str,
        seconds: float,
        enter: Callable[[], None] | None = None,
    ) -> Run:
        size, is_random = CASES[case]
        words = [self.mode, threads, size, int(is_random), seconds]
        environment = dict(os.environ)
        if self.preloaded:
            environment["LD_PRELOAD"] = self.preloaded
        done = subprocess.run(
            [program, *map(str, words)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=enter,
        )
        records, nanoseconds, resident, lazyfree = map(int, done.stdout.split())
        return Run(records, nanoseconds / 1e9, resident, lazyfree)


def contenders() -> dict[str, Contender]:
    found = {
        "limit": Contender("limit"),
        "vrange": Contender("malloc", vrange.malloc.library()),
        "glibc": Contender("malloc"),
    }
    for name in ("jemalloc", "mimalloc", "tcmalloc_minimal"):
        path = ctypes.util.find_library(name)
        if path is None:
            print(f"without {name}: lib{name} is not installed")
        else:
            found[name.removesuffix("_minimal")] = Contender("malloc", path)
    for name, mode in {"MADV_FREE": "free", "MADV_DONTNEED": "dontneed", "munmap": "mmap"}.items():
        found[name] = Contender(mode)
    return found


def run_beside_hog(
    contender: Contender, program: Path, hog: Path, case: str, seconds: float
) -> Run:
    """Run it in a cgroup that another process keeps full."""
    size = CASES[case][0]
    need = size * (HOG_THREADS + CHUNKS) * 3 // 2 + HOG_ROOM
    with MemoryCgroup(HOG_LIMIT) as group:

        def enter() -> None:
            group.add(os.getpid())

        words = [str(HOG_LIMIT - HOG_MORE - need), str(HOG_MORE)]
        with subprocess.Popen(
            [hog, *words], stdout=subprocess.PIPE, text=True, preexec_fn=enter
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "full\n"
            try:
                found = contender.run(program, HOG_THREADS, case, seconds, enter)
                assert other.poll() is None, "the hog was killed"
            finally:
                other.kill()
    return found


def measure_beside_hog(
    directory: Path, program: Path, chosen: dict[str, Contender], quick: bool
) -> tuple[dict[str, dict[str, float]], list[Target]]:
    """Return the ratios to the limit by contender and case, and the targets."""
    hog = directory / "hog"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", HOG, "-o", hog], check=True)
    rounds, seconds = (1, 0.1) if quick else (7, 0.7)
    ratios: dict[str, dict[str, float]] = {name: {} for name in chosen if name != "limit"}
    targets = []

    def runner(contender: Contender, case: str) -> Callable[[], Run]:
        return lambda: run_beside_hog(contender, program, hog, case, seconds)

    for case in HOG_CASES[:1] if quick else HOG_CASES:
        runs = interleaved({name: runner(one, case) for name, one in chosen.items()}, rounds)
        rates = {name: [one.rate for one in found] for name, found in runs.items()}
        for name in ratios:
            ratios[name][case] = paired_ratio(rates[name], rates["limit"])
        if not quick:
            best = max(RETURNING, key=lambda name, case=case: ratios[name][case])  # type: ignore[misc]
            beside = paired_ratio(rates["vrange"], rates[best])
            what = f"{case} beside a hog, times {best}"
            targets.append(Target(what, beside, "at least", LEAST_OF_RETURNING))
    return ratios, targets


def draw(ratios: dict[str, dict[str, float]], path: Path) -> None:
    from matplotlib import pyplot

    from benchmarks import plot

    figure, axes = pyplot.subplots(figsize=(10, 4.5), layout="constrained")
    cases = plot.ratio_lines(axes, ratios)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(len(cases)), cases, rotation=40, ha="right", fontsize=8)
    axes.set_ylabel("records per processor second, times no allocation")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def measure(
    program: Path, chosen: dict[str, Contender], threads: int, case: str, quick: bool
) -> dict[str, list[Run]]:
    rounds, seconds = (2, 0.1) if quick else (7, 0.7)

    def runner(contender: Contender) -> Callable[[], Run]:
        return lambda: contender.run(program, threads, case, seconds)

    return interleaved({name: runner(one) for name, one in chosen.items()}, rounds)


def main() -> int:
    args = report.arguments(__doc__).parse_args()
    chosen = contenders()
    ratios: dict[str, dict[str, float]] = {name: {} for name in chosen if name != "limit"}
    left: dict[str, dict[str, list[int]]] = {name: {} for name in ratios}
    targets = []
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "ebizzy"
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", SOURCE, "-o", program, "-pthread"], check=True)
        for threads in THREADS[:2] if args.quick else THREADS:
            for case in list(CASES)[:1] if args.quick else CASES:
                runs = measure(program, chosen, threads, case, args.quick)
                rates = {name: [one.rate for one in found] for name, found in runs.items()}
                label = f"{case}, {threads} threads" if threads > 1 else f"{case}, 1 thread"
                for name in ratios:
                    ratios[name][label] = paired_ratio(rates[name], rates["limit"])
                    left[name][label] = [
                        round(median(one.resident_kib for one in runs[name])),
                        round(median(one.lazyfree_kib for one in runs[name])),
                    ]
                if args.quick:
                    continue
                ours = ratios["vrange"][label]
                targets.append(Target(f"{label}, of the limit", ours, "at least", LEAST_OF_LIMIT))
                for name in KEEPING:
                    if name in rates:
                        beside = paired_ratio(rates["vrange"], rates[name])
                        targets.append(Target(f"{label}, times {name}", beside, "at least", 1.0))
                if case == "512 KiB":
                    beside = paired_ratio(rates["vrange"], rates["MADV_DONTNEED"])
                    what = f"{label}, times MADV_DONTNEED"
                    targets.append(Target(what, beside, "at least", LEAST_OF_DONTNEED))
        beside_hog: dict[str, dict[str, float]] = {}
        refusal = MemoryCgroup.unavailable()
        if refusal:
            print(f"without a hog: {refusal}")
        else:
            beside_hog, more = measure_beside_hog(Path(directory), program, chosen, args.quick)
            targets += more
    print(
        report.table(
            [
                {"contender": name, **{case: f"{ratio:.2f}" for case, ratio in found.items()}}
                for name, found in ratios.items()
            ]
        )
    )
    for name, found in beside_hog.items():
        print(f"beside a hog, {name}: {', '.join(f'{one:.2f}' for one in found.values())}")
    if not args.quick:
        args.results.mkdir(parents=True, exist_ok=True)
        draw(ratios, args.results / "ebizzy.png")
    measured = {
        "times_limit": ratios,
        "times_limit_beside_a_hog": beside_hog,
        "resident_and_lazyfree_kib_at_the_end": left,
    }
    return report.write("ebizzy", args.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
