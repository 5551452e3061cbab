"""Dask's workers in too little memory, and in plenty: plain, and with vrange.dask.

Method. Four workloads run on a new cluster of two workers each (one thread, a nanny, a limit of
400 MiB), by turns: with Dask as it is, whose nannies set MALLOC_TRIM_THRESHOLD_=65536; with Dask
without that; and with VolatileBuffer and Plugin. The results exceed the memory of both workers, so
Dask writes some to disk. The contender without MALLOC_TRIM_THRESHOLD_ differs only in what freed
memory is kept, so it runs where the most small blocks are: with the tables. Bytes read and written
are those of the workers' own counters, which Dask's dashboard shows. A read that the page cache
serves counts, too. Restarts are workers that are others at the end. A small run comes first, so
that imports count for nobody. After the work, the results are released; after some seconds of
quiet, unmanaged is what counts as the workers' memory above what it was at the start, and resident
is the same by RSS. Two workloads are repeated where memory is plenty (4 GiB), where nothing is
spilled.

Seconds are of the wall, processor seconds those of both workers. Medians of the rounds.

Check: all contenders find the same number.
"""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.dask.measure import CONTENDERS, measure
from benchmarks.dask.workloads import WORKLOADS
from benchmarks.interleave import interleaved
from benchmarks.report import Target

LIMIT, PLENTY = "400MiB", "4GiB"
IN_PLENTY = ("hot inputs", "rechunk")
FEWER_READ = 0.1  # of the bytes that Dask reads
FASTER, NO_SLOWER, LESS_UNMANAGED = 0.8, 1.02, 0.2
WITH_ALL = ("shuffle join",)
FIGURES = ("seconds", "cpu", "read", "written", "restarts", "unmanaged", "resident")


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians, and how many runs lost their work."""
    return {
        **{name: median(one[name] for one in runs) for name in FIGURES},
        "failed": sum(one["found"] is None for one in runs),
        "rounds": [{name: one[name] for name in FIGURES} for one in runs],
    }


def compare(
    workload: str, limit: str, scale: float, quiet: float, rounds: int
) -> dict[str, dict[str, Any]]:
    """Measure one workload with its contenders."""
    names = CONTENDERS if workload in WITH_ALL else ("Dask", "vrange")
    runs = interleaved(
        {name: partial(measure, name, workload, limit, scale, quiet) for name in names}, rounds
    )
    found = [one["found"] for each in runs.values() for one in each if one["found"] is not None]
    assert all(math.isclose(one, found[0], rel_tol=1e-9) for one in found), found
    return {name: summary(each) for name, each in runs.items()}


def shown(workload: str, limit: str, found: dict[str, dict[str, Any]]) -> str:
    """Return the figures as a table."""
    rows = [
        {
            f"{workload}, {limit}": name,
            "s": one["seconds"],
            "processor s": one["cpu"],
            "read MB": one["read"] / 1e6,
            "written MB": one["written"] / 1e6,
            "restarts": one["restarts"],
            "failed": one["failed"],
            "unmanaged MB": one["unmanaged"] / 1e6,
            "resident MB": one["resident"] / 1e6,
        }
        for name, one in found.items()
    ]
    return report.table(rows) + "\n"


def targets_of(tight: dict[str, Any], plenty: dict[str, Any]) -> list[Target]:
    """Return what the issue promises, for each workload."""
    targets = []
    for workload, found in tight.items():
        plain, ours = found["Dask"], found["vrange"]
        if plain["read"]:
            share = ours["read"] / plain["read"]
            targets.append(Target(f"{workload}: read, times Dask", share, "at most", FEWER_READ))
        targets.append(
            Target(
                f"{workload}: seconds, times Dask",
                ours["seconds"] / plain["seconds"],
                "at most",
                FASTER,
            )
        )
        targets.append(Target(f"{workload}: restarts", ours["restarts"], "at most", 0))
        if plain["unmanaged"] > 0:
            share = max(0.0, ours["unmanaged"]) / plain["unmanaged"]
            targets.append(
                Target(f"{workload}: unmanaged, times Dask", share, "at most", LESS_UNMANAGED)
            )
    for workload, found in plenty.items():
        share = found["vrange"]["seconds"] / found["Dask"]["seconds"]
        targets.append(
            Target(f"{workload}, plenty: seconds, times Dask", share, "at most", NO_SLOWER)
        )
    return targets


def draw(tight: dict[str, Any], results: Path) -> None:
    from benchmarks import plot

    drawn, all_axes = plot.figure(1, 2)
    colours = dict(zip(CONTENDERS, (plot.GREY, plot.PURPLE, plot.OURS), strict=True))
    for axes, figure, unit in zip(all_axes, ("read", "seconds"), ("MB", ""), strict=True):
        for place, (name, colour) in enumerate(colours.items()):
            here = [n for n, found in enumerate(tight.values()) if name in found]
            every = [found[name] for found in tight.values() if name in found]
            heights = [one[figure] / (1e6 if unit else 1) for one in every]
            at = [n + 0.27 * (place - 1) for n in here]
            axes.bar(at, heights, width=0.25, color=colour, label=name)
        axes.set_xticks(range(len(tight)), list(tight))
        axes.set_title(f"{unit} {figure} for spilled results" if unit else figure)
    all_axes[0].legend(frameon=False)
    drawn.suptitle(f"Two workers of {LIMIT} that can't hold the results")
    drawn.tight_layout()
    plot.save(drawn, results, "dask")


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="a round takes some minutes")
    parser.add_argument(
        "--workload", choices=list(WORKLOADS), help="measure only this, keep the others' figures"
    )
    options = parser.parse_args()
    rounds, quiet, scale = (1, 1.0, 0.5) if options.quick else (options.rounds, 2.0, 0.6)
    limit = "250MiB" if options.quick else LIMIT
    workloads = ["hot inputs"] if options.quick else list(WORKLOADS)
    kept = options.results / "dask.json"
    before = (
        json.loads(kept.read_text())
        if options.workload and kept.exists()
        else {"tight": {}, "plenty": {}}
    )
    tight, plenty = before["tight"], before["plenty"]
    for workload in [options.workload] if options.workload else workloads:
        tight[workload] = compare(workload, limit, scale, quiet, rounds)
        print(shown(workload, limit, tight[workload]), flush=True)
        if workload in IN_PLENTY and not options.quick:
            plenty[workload] = compare(workload, PLENTY, scale, quiet, rounds)
            print(shown(workload, PLENTY, plenty[workload]), flush=True)
    draw(tight, options.results)
    measured = {"limit": limit, "scale": scale, "tight": tight, "plenty": plenty}
    targets = [] if options.quick else targets_of(tight, plenty)
    return report.write("dask", options.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
