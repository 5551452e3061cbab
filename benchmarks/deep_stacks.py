"""Deep calls: the cost of a shallow one, and of returning the stack of a deep one.

Three claims, each beside its peers:

overhead
    ``deep_call(f)`` over ``f()`` for a trivial ``f``, on a pooled stack: at most 150 ns. Peers: a
    fresh ``threading.Thread`` with a big ``threading.stack_size`` (today's usual way), and a pooled
    worker thread with one. Floor: ``f()`` itself.
release
    After a call that used 16 and 256 MiB of stack: the bytes returned (at least 99 % of the
    high-water mark), the time to free them, and the time to use as much again, for each policy.
    Peer: MADV_DONTNEED, which is the policy "now". Floor: "keep", which returns nothing. If the
    kernel reclaimed nothing meanwhile, re-use with the default is to be at least 8 times cheaper
    than with DONTNEED, on the machine's usual pages and in a process that has only those of 4 KiB.
    The use is a C function that touches every page of its frames, so the times are those of the
    memory.
flat
    1000 deep calls on 8 threads: resident memory without what is offered to the kernel.

Every round measures all variants in turn, so that disturbances of the machine affect all of them.
Figures are medians over rounds, and ratios are medians of each round's ratio. Residency is read
from smaps and mincore in every round: a policy that did nothing would fail here, and not look fast.

    python -m benchmarks.deep_stacks [--quick] [--rounds 15]

writes results/deep_stacks.json and results/deep_stacks.png.
"""

from __future__ import annotations

import ctypes
import functools
import json
import operator
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vrange
from benchmarks import report
from vrange._stacks.deep import Release

MIB = 1 << 20
MOST_NS, LEAST_RATIO = 150, 8
PR_SET_THP_DISABLE = 41
SMALL_PAGES = "--small-pages"
POLICIES: tuple[Release, ...] = ("volatile", "now", "keep")

TOUCHER = """
/* Goes down `pages` frames of a page and a bit, touching all of them, and comes back. */
long touch(long pages) {
    volatile char frame[4096];
    frame[0] = frame[4095] = (char)pages;
    return pages <= 1 ? frame[0] : touch(pages - 1) + frame[0];
}
/* Nanoseconds that took. */
#include <time.h>
long timed_touch(long pages) {
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    touch(pages);
    clock_gettime(CLOCK_MONOTONIC, &b);
    return (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec;
}
"""


def build_toucher(folder: str) -> Callable[[int], int]:
    source, built = Path(folder, "touch.c"), Path(folder, "touch.so")
    source.write_text(TOUCHER)
    options = ["-O1", "-fno-optimize-sibling-calls", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, "-o", str(built), str(source)], check=True)
    timed_touch = ctypes.PyDLL(str(built)).timed_touch
    timed_touch.argtypes, timed_touch.restype = [ctypes.c_long], ctypes.c_long
    return timed_touch


def smaps() -> dict[str, int]:
    sizes = {}
    with open("/proc/self/smaps_rollup") as lines:
        for line in lines:
            name, *rest = line.split()
            if rest and rest[-1] == "kB":
                sizes[name.rstrip(":")] = int(rest[0]) * 1024
    return sizes


def nanoseconds_each(call: Callable[[], Any], count: int) -> float:
    begun = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - begun) / count


# ---- overhead ------------------------------------------------------------------------------------


def pooled_worker() -> tuple[Callable[[Callable[[], Any]], Any], Callable[[], None]]:
    jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        while (job := jobs.get()) is not None:
            results.put(job())

    old = threading.stack_size(64 * MIB)
    thread = threading.Thread(target=work)
    thread.start()
    threading.stack_size(old)

    def call(f: Callable[[], Any]) -> Any:
        jobs.put(f)
        return results.get()

    def stop() -> None:
        jobs.put(None)
        thread.join()

    return call, stop


def fresh_thread(f: Callable[[], Any]) -> None:
    thread = threading.Thread(target=f)
    thread.start()
    thread.join()


def measure_overhead(rounds: int) -> dict[str, Any]:
    def f() -> None:
        return None

    through_worker, stop = pooled_worker()
    deep_call = vrange.deep_call
    decorated = vrange.deep_recursion(f)
    variants: dict[str, tuple[Callable[[], Any], int]] = {
        "f()": (lambda: f(), 50_000),
        "deep_call(f)": (lambda: deep_call(f), 50_000),
        "deep_call(f, stack=...)": (lambda: deep_call(f, stack="64MiB"), 20_000),
        "@deep_recursion f()": (lambda: decorated(), 50_000),
        "pooled worker thread": (lambda: through_worker(f), 500),
        "fresh thread, 64 MiB": (lambda: fresh_thread(f), 200),
    }
    old = threading.stack_size(64 * MIB)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, (call, count) in variants.items():
            times[name].append(nanoseconds_each(call, count))
    threading.stack_size(old)
    stop()
    over = {
        name: statistics.median(t - base for t, base in zip(times[name], times["f()"], strict=True))
        for name in variants
    }
    return {"ns": {name: statistics.median(t) for name, t in times.items()}, "over_f_ns": over}


# ---- release -------------------------------------------------------------------------------------


class Released:
    """The results of all rounds of one policy and depth."""

    def __init__(self, timed_touch: Callable[[int], int], policy: Release, megabytes: int) -> None:
        self.timed_touch, self.policy, self.pages = timed_touch, policy, megabytes * MIB // 4096
        # a size of its own, and so a stack of its own
        size = (1 << 30) + (POLICIES.index(policy) + 1) * 65536 + megabytes * MIB
        self.stack = vrange.DeepStack(size, release=policy)
        self.free_ns: list[float] = []
        self.again_ns: list[float] = []
        self.returned: list[float] = []

    def use(self) -> vrange.StackUse:
        uses = vrange.stack_info().stacks
        (use,) = [use for use in uses if use.reserved_bytes == self.stack.bytes]
        return use

    def round(self) -> None:
        # the call before left the stack as its policy prescribes; this use is the re-use
        before = vrange.stack_info().returned_bytes
        lazy = smaps()["LazyFree"]
        begun = time.perf_counter_ns()
        touched = self.stack.call(self.timed_touch, self.pages)
        everything = time.perf_counter_ns() - begun
        mark = self.use().high_water_bytes
        assert mark >= self.pages * 4096
        self.again_ns.append(touched)
        self.free_ns.append(everything - touched)
        self.returned.append((vrange.stack_info().returned_bytes - before) / (mark - 65536))
        resident = self.use().resident_bytes
        if self.policy == "now":
            assert resident <= 65536, resident
        else:
            assert resident >= 0.99 * self.pages * 4096, resident
        if self.policy == "volatile":
            assert smaps()["LazyFree"] >= max(lazy, 0.99 * (mark - 2 * 65536)) - MIB

    def summary(self, megabytes: int) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "megabytes": megabytes,
            "returned_share": min(self.returned),
            "free_us_per_mib": statistics.median(self.free_ns) / 1e3 / megabytes,
            "again_us_per_mib": statistics.median(self.again_ns) / 1e3 / megabytes,
        }


def measure_release(timed_touch: Callable[[int], int], rounds: int) -> dict[str, Any]:
    table, ratios, above_keep = [], {}, {}
    for megabytes in (16, 256):
        variants = {policy: Released(timed_touch, policy, megabytes) for policy in POLICIES}
        for variant in variants.values():
            variant.stack.call(timed_touch, variant.pages)  # the first use of a stack is no re-use
        for _ in range(rounds):
            for variant in variants.values():
                variant.round()
        table += [variant.summary(megabytes) for variant in variants.values()]
        by_round = zip(variants["now"].again_ns, variants["volatile"].again_ns, strict=True)
        ratios[megabytes] = statistics.median(now / lazy for now, lazy in by_round)
        # without the cost that touching this much memory has in any case
        now, lazy, keep = (
            statistics.median(variants[policy].again_ns) for policy in ("now", "volatile", "keep")
        )
        above_keep[megabytes] = (now - keep) / (lazy - keep) if lazy > keep else None
        for policy in ("volatile", "now"):
            assert min(variants[policy].returned) >= 0.99, (policy, min(variants[policy].returned))
        stack_bytes = variants["volatile"].stack.bytes
        assert stack_bytes is not None
        vrange.DeepStack(stack_bytes, release="now").call(len, [])
    return {
        "table": table,
        "dontneed_over_volatile": ratios,
        "dontneed_over_volatile_above_keep": above_keep,
    }


# ---- flat ----------------------------------------------------------------------------------------


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def measure_flat() -> dict[str, Any]:
    a, b = nested(50_000), nested(50_000)
    samples: list[dict[str, float]] = []

    def work() -> None:
        for _ in range(25):
            vrange.deep_call(operator.eq, a, b, stack="64MiB")

    for done in range(0, 1001, 200):
        sizes = smaps()
        samples.append(
            {"calls": done, "rss_mib": sizes["Rss"] / MIB, "lazyfree_mib": sizes["LazyFree"] / MIB}
        )
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {"samples": samples}


# ---- before, during, after -----------------------------------------------------------------------


def measure_picture() -> list[dict[str, Any]]:
    """Return resident memory around one deep call: memoised, 200,000 deep, policy "now"."""
    begun = time.perf_counter()
    samples: list[dict[str, Any]] = []

    def sample(phase: str) -> None:
        sizes, uses = smaps(), vrange.stack_info().stacks
        own = sum(use.resident_bytes for use in uses if use.reserved_bytes == 2 << 30)
        samples.append(
            {
                "phase": phase,
                "ms": (time.perf_counter() - begun) * 1e3,
                "stack_mib": own / MIB,
                "rss_mib": (sizes["Rss"] - sizes["LazyFree"]) / MIB,
            }
        )

    @functools.cache
    def steps(n: int) -> int:
        if n % 20_000 == 0:
            sample("during")
        return 0 if n == 0 else 1 + steps(n - 1)

    sample("before")
    vrange.DeepStack("2GiB", release="now").call(steps, 200_000)
    sample("after")
    steps.cache_clear()
    sample("after")
    return samples


# ---- told ----------------------------------------------------------------------------------------


def plot(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.4))
    over = {n: max(ns, 1.0) for n, ns in results["overhead"]["over_f_ns"].items() if n != "f()"}
    left.barh(list(over), list(over.values()), color="#4477aa")
    left.set_xscale("log")
    left.axvline(MOST_NS, color="#cc3311", linestyle="--", label=f"{MOST_NS} ns")
    left.set_xlabel("ns over f(), logarithmic")
    left.set_title("A shallow call")
    left.legend()

    table = results["release"]["usual"]["table"]
    width = 0.38
    for offset, (field, label, colour) in enumerate(
        (
            ("free_us_per_mib", "time to free", "#4477aa"),
            ("again_us_per_mib", "to use again", "#ee7733"),
        )
    ):
        places = [i + (offset - 0.5) * width for i in range(len(table))]
        middle.bar(places, [row[field] for row in table], width, label=label, color=colour)
    middle.set_xticks(range(len(table)))
    middle.set_xticklabels([f"{row['policy']}\n{row['megabytes']} MiB" for row in table])
    middle.set_ylabel("µs a MiB")
    middle.set_title("Giving a stack back, and using it again")
    middle.legend()

    picture = results["picture"]
    right.plot(
        [p["ms"] for p in picture], [p["stack_mib"] for p in picture], "o-", label="deep stack"
    )
    right.plot([p["ms"] for p in picture], [p["rss_mib"] for p in picture], "s-", label="process")
    right.set_xlabel("ms")
    right.set_ylabel("resident MiB")
    right.set_title("Before, during and after 200,000 levels (now)")
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def told(results: dict[str, Any]) -> str:
    lines = ["over f(), ns:"]
    lines += [f"  {n:26} {ns:12,.0f}" for n, ns in results["overhead"]["over_f_ns"].items()]
    for pages, found in results["release"].items():
        lines.append(f"{pages} pages")
        lines.append("release     used     returned   free µs/MiB   again µs/MiB")
        lines += [
            f"  {row['policy']:9} {row['megabytes']:4} MiB  {row['returned_share']:8.2%}"
            f" {row['free_us_per_mib']:12.1f} {row['again_us_per_mib']:12.1f}"
            for row in found["table"]
        ]
        for field, what in (
            ("dontneed_over_volatile", "re-use after DONTNEED over volatile"),
            ("dontneed_over_volatile_above_keep", "the same above keep"),
        ):
            lines += [f"  {what}, {mb} MiB: {r:.1f}" for mb, r in found[field].items() if r]
    lines.append("1000 calls on 8 threads, MiB resident without what is offered:")
    for s in results["flat"]["samples"]:
        lines.append(
            f"  {s['calls']:5} {s['rss_mib'] - s['lazyfree_mib']:8.1f}  all {s['rss_mib']:8.1f}"
        )
    return "\n".join(lines)


def small_pages(rounds: int) -> dict[str, Any]:
    """Return what measure_release does in a process that has no huge pages."""
    command = [sys.executable, "-m", "benchmarks.deep_stacks", "--rounds", str(rounds), SMALL_PAGES]
    found: dict[str, Any] = json.loads(subprocess.check_output(command, text=True))
    return found


def without_huge_pages() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_THP_DISABLE")


def targets(results: dict[str, Any]) -> list[report.Target]:
    over = results["overhead"]["over_f_ns"]["deep_call(f)"]
    made = [report.Target("a shallow deep_call, ns over f()", over, "at most", MOST_NS)]
    for pages, found in results["release"].items():
        for megabytes, ratio in found["dontneed_over_volatile"].items():
            what = f"re-use of {megabytes} MiB, {pages} pages: DONTNEED over volatile"
            made.append(report.Target(what, ratio, "at least", LEAST_RATIO))
        for row in found["table"]:
            if row["policy"] != "keep":
                what = f"{row['policy']}, {row['megabytes']} MiB, {pages} pages: returned"
                made.append(report.Target(what, row["returned_share"], "at least", 0.99))
    return made


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(SMALL_PAGES, action="store_true", help="print what is measured on them")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        timed_touch = build_toucher(folder)
        if options.small_pages:
            without_huge_pages()
            print(json.dumps(measure_release(timed_touch, rounds)))
            return 0
        results = {
            "rounds": rounds,
            "overhead": measure_overhead(rounds),
            "picture": measure_picture(),
            "flat": measure_flat(),
            "release": {
                "usual": measure_release(timed_touch, rounds),
                "4 KiB": small_pages(rounds),
            },
        }
    options.results.mkdir(parents=True, exist_ok=True)
    plot(results, options.results / "deep_stacks.png")
    print(told(results))
    return report.write("deep_stacks", options.results, results, targets(results))


if __name__ == "__main__":
    sys.exit(main())
