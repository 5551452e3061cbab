"""Arrays that refill: the cost of a refault, and the cost of reading without one.

Method. Each contender has a process of its own (refault_child.py); they measure one at a time, in
turn. A refault is a touch of a lost 64 KiB block, from the last block to the first so that nothing
is read ahead; its floor is a loop in C that does the least possible (bare_refault.c). Sequential
access reads one byte of each page of an array whose blocks are all lost; it is compared with making
an ordinary array and filling it with the same content. NumPy asks for huge pages for arrays of 4
MiB and more; the effect of that is shown separately (NUMPY_MADVISE_HUGEPAGE=0). Then an array is
read that is larger than its memory cgroup, compared with np.memmap of the same file. The file's
pages count against the limit, too, and are dropped before each run. Every measurement checks
residency before and after.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np

from benchmarks import contender, plot, report
from benchmarks.interleave import interleaved, paired_ratio
from benchmarks.refault_child import Bare, Child, Ordinary, Volatile
from benchmarks.report import Target
from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
FILLS = ("pattern", "file", "compressed")
SMALL_PAGES = "NumPy, small pages"
HUGE_PAGES = "NumPy, huge pages"
READERS = ("vrange, file", "vrange, compressed", "np.memmap")
WORKS = ("scan", "random blocks")


def in_turn(children: dict[str, Child], method: str, rounds: int) -> dict[str, list[float]]:
    def asking(child: Child) -> Any:
        return lambda: child.ask(method)

    return interleaved({name: asking(child) for name, child in children.items()}, rounds)


@contextmanager
def closing(children: dict[str, Child]) -> Iterator[dict[str, Child]]:
    try:
        yield children
    finally:
        for child in children.values():
            child.close()


def write_content(path: str, nbytes: int) -> None:
    """Write content of which an eighth is noise, so that it fits into the cgroup if compressed."""
    rng = np.random.default_rng(0)
    part = np.zeros((256, 4096), np.uint8)
    with open(path, "wb") as file:
        for _ in range(nbytes // MIB):
            part[:, :512] = rng.integers(0, 256, (256, 512), dtype=np.uint8)
            file.write(part.data)
        file.flush()
        os.fsync(file.fileno())


def one_refault(path: str, nbytes: int, rounds: int) -> dict[str, Any]:
    children = {
        "bare loop": Child(Bare, nbytes, True),
        "bare loop, content ready": Child(Bare, nbytes, False),
        "vrange": Child(Volatile, nbytes, "pattern", path),
    }
    with closing(children):
        found = in_turn(children, "refaults", rounds)
    return {
        "ns": {name: median(times) for name, times in found.items()},
        "ratio": paired_ratio(found["vrange"], found["bare loop"]),
    }


def sequential(path: str, nbytes: int, rounds: int, fill: str) -> dict[str, Any]:
    children = {
        "vrange": Child(Volatile, nbytes, fill, path),
        HUGE_PAGES: Child(Ordinary, nbytes, fill, path),
        SMALL_PAGES: Child(Ordinary, nbytes, fill, path, huge_pages=False),
    }
    with closing(children):
        found = in_turn(children, "sequential", rounds)
    return {
        "ms": {name: median(times) / 1e6 for name, times in found.items()},
        "ratio": {
            name: paired_ratio(found["vrange"], found[name]) for name in (HUGE_PAGES, SMALL_PAGES)
        },
    }


def resident(path: str, nbytes: int, rounds: int) -> dict[str, float]:
    children = {
        HUGE_PAGES: Child(Volatile, nbytes, "pattern", path),
        SMALL_PAGES: Child(Volatile, nbytes, "pattern", path, huge_pages=False),
    }
    with closing(children):
        found = in_turn(children, "resident", rounds)
    return {name: median(ratios) for name, ratios in found.items()}


def drop_cache(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def beside_memmap(path: str, nbytes: int, limit: int, rounds: int) -> dict[str, Any]:
    def reading(what: str, work: str) -> Any:
        def run() -> dict[str, Any]:
            drop_cache(path)
            task = {
                "what": what,
                "work": work,
                "path": path,
                "nbytes": nbytes,
                "picks": nbytes // MIB * 8,
                "rounds": 2,
            }
            outcome = contender.run("benchmarks.refault_workload", task, limit)
            assert outcome.survived, f"{what} was killed: {outcome}"
            return outcome.told("measured")[0]

        return run

    found: dict[str, Any] = {}
    for work in WORKS:
        runs = interleaved({what: reading(what, work) for what in READERS}, rounds)
        assert len({run["total"] for told in runs.values() for run in told}) == 1, "wrong content"
        found[work] = {
            what: {key: median(run[key] for run in told) for key in told[0] if key != "total"}
            for what, told in runs.items()
        }
    return found


def draw(measured: dict[str, Any], results: Any) -> None:
    drawn, panels = plot.figure(1, 3, gridspec_kw={"width_ratios": [1, 1.25, 1.25]})
    drawn.subplots_adjust(left=0.06, right=0.985, top=0.8, bottom=0.17, wspace=0.28)
    drawn.text(
        0.06, 0.93, "A lost block grows back where it is touched", fontsize=23, weight="bold"
    )

    def bars(axes: Any, groups: dict[str, dict[str, float]], colours: dict[str, str]) -> None:
        width = 0.8 / len(colours)
        for i, (name, colour) in enumerate(colours.items()):
            places = [at - 0.4 + (i + 0.5) * width for at in range(len(groups))]
            heights = [group.get(name, 0) for group in groups.values()]
            axes.bar(places, heights, width * 0.9, color=colour, label=name)
            for x, height in zip(places, heights, strict=True):
                axes.annotate(
                    f"{height:.3g}", (x, height), ha="center", va="bottom", fontsize=12,
                    xytext=(0, 2), textcoords="offset points",
                )  # fmt: skip
        axes.set_xticks(range(len(groups)), list(groups))
        axes.tick_params(length=0, labelsize=14)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.legend(frameon=False, fontsize=12.5, loc="upper left", bbox_to_anchor=(-0.02, -0.07))

    one = {name: ns / 1e3 for name, ns in measured["one refault"]["ns"].items()}
    panels[0].set_title("a refault of 64 KiB, µs", fontsize=16, pad=14)
    bars(
        panels[0],
        {"": one},
        {"vrange": plot.OURS, "bare loop": plot.GREY, "bare loop, content ready": "#BBBBBB"},
    )
    panels[1].set_title(f"all {measured['nbytes'] // MIB} MiB in sequence, ms", fontsize=16, pad=14)
    bars(
        panels[1],
        {fill: measured["sequential"][fill]["ms"] for fill in FILLS},
        {"vrange": plot.OURS, HUGE_PAGES: plot.GREEN, SMALL_PAGES: plot.GREY},
    )
    if "beside np.memmap" in measured:
        panels[2].set_title(
            f"{measured['limit'] // MIB} MiB of memory: seconds, and (×100) what\n"
            "1 in 100 pieces of other work waits at least",
            fontsize=15,
            pad=14,
        )
        groups = {}
        for work, found in measured["beside np.memmap"].items():
            groups[work] = {what: told["seconds"] for what, told in found.items()}
            groups[f"beside\n{work}"] = {
                what: told["beside_p99"] * 100 for what, told in found.items()
            }
        colours = dict(zip(READERS, (plot.OURS, plot.PURPLE, plot.VERMILION), strict=True))
        bars(panels[2], groups, colours)
    else:
        panels[2].set_visible(False)
    plot.save(drawn, results, "refault")


def main() -> int:
    parser = report.arguments(__doc__)
    args = parser.parse_args()
    nbytes = 32 * MIB if args.quick else 256 * MIB
    rounds = 3 if args.quick else 9
    measured: dict[str, Any] = {"nbytes": nbytes, "limit": nbytes * 3 // 8}
    # Not in /tmp, which may be memory.
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as directory:
        path = os.path.join(directory, "content")
        write_content(path, nbytes)
        measured["one refault"] = one_refault(path, nbytes // 4, rounds)
        measured["sequential"] = {fill: sequential(path, nbytes, rounds, fill) for fill in FILLS}
        measured["resident"] = resident(path, nbytes // 4, rounds)
        refusal = MemoryCgroup.unavailable()
        if refusal:
            print(f"not beside np.memmap: {refusal}", file=sys.stderr)
        else:
            limit = max(measured["limit"], 96 * MIB)
            measured["limit"] = limit
            measured["beside np.memmap"] = beside_memmap(path, nbytes, limit, max(1, rounds // 3))
    print(report.table([{"a refault of 64 KiB, ns": "", **measured["one refault"]["ns"]}]))
    print()
    print(report.table([{"in sequence, ms": f, **measured["sequential"][f]["ms"]} for f in FILLS]))
    for work, found in measured.get("beside np.memmap", {}).items():
        print()
        print(report.table([{work: what, **told} for what, told in found.items()]))
    targets = [
        Target("a refault, to the bare loop", measured["one refault"]["ratio"], "at most", 1.25)
    ]
    for fill in FILLS:
        for name, ratio in measured["sequential"][fill]["ratio"].items():
            targets.append(Target(f"in sequence, {fill}, to {name}", ratio, "at most", 1.5))
    for name, ratio in measured["resident"].items():
        targets.append(Target(f"resident, to {name}", ratio, "at most", 1.02))
    if args.quick:
        targets = targets[:0]  # too small to stand out from noise
    draw(measured, args.results)
    return report.write("refault", args.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
