"""Measure what a service of several processes needs and survives: `python -m benchmarks.service`.

Without an option it takes half an hour. Runs are kept in a file as they end: the same command goes
on where it was interrupted. docs/services.md shows the result.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks import report
from benchmarks.report import Target
from benchmarks.service import kills, memory
from benchmarks.service.record import Record, Run
from benchmarks.service.workers import EACH, SHARED
from vrange.cli.memory_cgroup import MemoryCgroup

MOST_MEMORY = 1.2  # of one process's
LEAST_HITS = 0.99  # of one process's
LEAST_REQUESTS = 1.5  # of those with one cache each, per CPU-second
LEAST_KEPT = 0.95  # of what a fresh index keeps
MOST_RESIDENT_MORE = 16 << 20
QUICK_MINUTES = 0.04
SHOWN = ("used_bytes", "hit_ratio", "requests_per_cpu_second")


def _medians(record: Record) -> dict[str, Run]:
    """Return the median figures of each contender. One that was killed has none."""
    found = {}
    for name in memory.CONTENDERS:
        runs = record.of(f"served {name}")
        figures: Run = {"killed": sum(run["killed"] for run in runs)}
        for figure in SHOWN:
            values = [run[figure] for run in runs if figure in run]
            figures[figure] = median(values) if values else None
        found[name] = figures
    return found


def _memory_targets(served: dict[str, Run], bursts: list[Run], all_runs: list[Run]) -> list[Target]:
    ours, one, each = served[SHARED], served[memory.ONE], served[EACH]

    def ratio(figure: str, to: Run) -> float:
        return float(ours[figure] / to[figure])

    survived = sum(run["survived"] for run in bursts)
    tried = sum(run["bursts"] for run in bursts)
    wrong = sum(run["wrong"] for run in all_runs)
    return [
        Target("memory of all, of one process's", ratio("used_bytes", one), "at most", MOST_MEMORY),
        Target("hit ratio, of one process's", ratio("hit_ratio", one), "at least", LEAST_HITS),
        Target(
            "requests per CPU-second, of those with one cache each",
            ratio("requests_per_cpu_second", each),
            "at least",
            LEAST_REQUESTS,
        ),
        Target(f"bursts that killed, of {tried}", tried - survived, "at most", 0),
        Target("wrong values", wrong, "at most", 0),
    ]


def _kill_targets(runs: list[Run]) -> list[Target]:
    def total(name: str) -> float:
        return float(sum(run[name] for run in runs))

    killed, minutes = total("kills"), total("seconds") / 60
    after = f"after {killed:.0f} kills in {minutes:.3g} minutes"
    wrong = total("stale") + total("mixed")
    kept = min(run["kept_after"] / run["kept_of"] for run in runs)
    more = mean(run["descriptors_more"] for run in runs)
    resident = mean(run["resident_more"] for run in runs)
    return [
        Target(f"wrong values, {after}", wrong, "at most", 0),
        Target(f"requests that hung, {after}", total("hangs"), "at most", 0),
        Target(f"workers that failed, {after}", total("failed"), "at most", 0),
        Target("index files that are left", total("indexes_left"), "at most", 0),
        Target("of an index's room, what is left", kept, "at least", LEAST_KEPT),
        Target("descriptors more in the worker that lives on", more, "at most", 1),
        Target("bytes more in that worker", resident, "at most", MOST_RESIDENT_MORE),
    ]


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--only", choices=("memory", "kills"), help="measure the other one later")
    parser.add_argument("--minutes", type=float, default=kills.MINUTES, help="of killing")
    parser.add_argument("--record", type=Path, help="the file of the runs; default: in --results")
    options = parser.parse_args()
    if refusal := MemoryCgroup.unavailable():
        print(f"no memory cgroup can be made here: {refusal}", file=sys.stderr)
        return 77
    record = Record(options.record or options.results / "service" / "runs.jsonl")
    try:
        if options.only != "kills":
            memory.measure(record, options.quick)
        if options.only != "memory":
            kills.measure(record, QUICK_MINUTES if options.quick else options.minutes)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 1
    return _show(record, options.results, options.quick)


def _show(record: Record, results: Path, quick: bool) -> int:
    served, bursts, killed = record.of("served"), record.of("bursts"), record.of("kills")
    if not (served and bursts and killed):
        print("not all parts are measured yet", file=sys.stderr)
        return 1
    medians = _medians(record)
    rows: list[dict[str, Any]] = [
        {
            "": name,
            "processes": memory.CONTENDERS[name],
            "MiB": found["used_bytes"] and found["used_bytes"] / 2**20,
            "hits": found["hit_ratio"],
            "requests per CPU-second": found["requests_per_cpu_second"],
            "killed by the kernel": found["killed"],
        }
        for name, found in medians.items()
    ]
    print(report.table(rows))
    targets = _memory_targets(medians, bursts, served + bursts) + _kill_targets(killed)
    measured = {
        "load_average": os.getloadavg(),
        "served": medians,
        "bursts": bursts,
        "kills": killed,
    }
    status = report.write("service", results, measured, targets)
    return 0 if quick else status


if __name__ == "__main__":
    sys.exit(main())
