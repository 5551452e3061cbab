"""A data job that knows nothing of vrange, plain and under `vrange run`: memory and time.

Method. examples/data_job (336,776 flights from a PyPI package; pandas and NumPy) is run by python,
by `vrange run` and by `vrange run --heap=libc`, alternately. Each runs in a memory cgroup of its
own with room for all of it, and the charge of that cgroup is read from outside every 20 ms. When
its work is done, the job waits as a service does between requests; after some seconds of that, its
memory is what stays. Peak, average and final bytes, and seconds of work, are medians of the rounds.

Check: all find the same result in each round.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from examples.data_job.measuring import WAYS, measure

from benchmarks import report
from benchmarks.interleave import interleaved
from benchmarks.report import Target
from vrange.cli.memory_cgroup import MemoryCgroup

LIMIT = 2 << 30
FIGURES = ("peak", "average", "final", "final_rss", "seconds")
PLOTTED = 400  # samples per contender in the JSON
MOST_LEFT = 0.5  # of what plain Python has left


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians of the rounds, and memory over time in the round with the median average."""
    typical = sorted(rounds, key=lambda one: float(one["average"]))[len(rounds) // 2]
    samples = typical["samples"]
    return {
        **{name: median(one[name] for one in rounds) for name in FIGURES},
        "phases": {name: median(one["took"][name] for one in rounds) for name in typical["took"]},
        "samples": samples[:: max(1, len(samples) // PLOTTED)],
    }


def draw(ways: dict[str, dict[str, Any]], results: Path) -> None:
    from benchmarks import plot

    drawn, axes = plot.figure()
    colours = dict(zip(WAYS, (plot.GREY, plot.OURS, plot.GREEN), strict=True))
    ends, right = {}, 0.0
    for name, way in ways.items():
        seconds = [at for at, _ in way["samples"]]
        mib = [nbytes / 2**20 for _, nbytes in way["samples"]]
        axes.plot(seconds, mib, color=colours[name])
        ends[name] = mib[-1]
        right = max(right, seconds[-1])
    plot.label_ends(axes, ends, colours, right, plus=30)
    axes.set_xlim(0, right)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds; after its work the job waits")
    axes.set_ylabel("MiB that its cgroup is charged")
    axes.set_title("A data job, unchanged, of pandas and NumPy")
    drawn.tight_layout()
    plot.save(drawn, results, "data_job")


def main() -> int:
    options = report.arguments(__doc__).parse_args()
    if refusal := MemoryCgroup.unavailable():
        print(f"skipped: {refusal}", file=sys.stderr)
        return 77
    quiet_seconds, rounds = (5.0, 1) if options.quick else (12.0, 3)
    found = interleaved(
        {name: partial(measure, command, LIMIT, quiet_seconds) for name, command in WAYS.items()},
        rounds,
    )
    results = [one["found"] for runs in found.values() for one in runs]
    assert all(one == results[0] for one in results), "they found different things"
    ways = {name: summary(runs) for name, runs in found.items()}
    print(
        report.table(
            [
                {
                    "": name,
                    "peak MiB": way["peak"] / 2**20,
                    "average MiB": way["average"] / 2**20,
                    "final MiB": way["final"] / 2**20,
                    "RSS then": way["final_rss"] / 2**20,
                    "seconds": way["seconds"],
                }
                for name, way in ways.items()
            ]
        )
    )
    targets = []
    if not options.quick:  # in a quick run, no trim may have run yet
        targets = [
            Target(
                f"left, {name}, times plain",
                way["final"] / ways["python"]["final"],
                "at most",
                MOST_LEFT,
            )
            for name, way in ways.items()
            if name != "python"
        ]
    draw(ways, options.results)
    measured = {"rounds": rounds, "quiet_seconds": quiet_seconds, "ways": ways}
    return report.write("data_job", options.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
