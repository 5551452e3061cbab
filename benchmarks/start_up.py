"""What a program pays before it begins: the start of Python with `import numpy, pandas`.

Method. Each contender starts Python, imports both, reads its own processor time and resident set
(Rss, and LazyFree of it), rests for 2.5 seconds, and reads the resident set again. Contenders run
one after another, round after round, in alternating order. Compared are medians of the differences,
or of the ratios, of each round to plain Python. "python again" is plain Python once more: what it
differs by is the noise.

Contenders: vrange's malloc, preloaded; and `vrange run`, with all that it does by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from statistics import median

import vrange.malloc
from benchmarks import report
from benchmarks.interleave import interleaved, paired_ratio
from benchmarks.report import Target

PLAIN, AGAIN, PRELOADED, RUN = "python", "python again", "vrange's malloc", "vrange run"
LONGEST, MOST_MIB = 1.05, 2.0
CHILD = """
import json, os, resource, time
import numpy, pandas
def read():
    with open("/proc/self/smaps_rollup") as file:
        lines = dict(line.split(":") for line in file.read().splitlines()[1:])
    return [int(lines[name].split()[0]) / 1024 for name in ("Rss", "LazyFree")]
used = resource.getrusage(resource.RUSAGE_SELF)
began = used.ru_utime + used.ru_stime
at_once = read()
threads = len(os.listdir("/proc/self/task"))
time.sleep({rest})
print(json.dumps([began, *at_once, read()[0], threads]))
"""

Figures = tuple[float, float, float, float, float]


def start(command: list[str], environment: dict[str, str], rest: float) -> Figures:
    done = subprocess.run(
        [*command, "-c", CHILD.replace("{rest}", str(rest))],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(json.loads(done.stdout))


def main() -> int:
    """Measure, print the table, write the JSON."""
    options = report.arguments(__doc__).parse_args()
    rounds, rest = (1, 0.1) if options.quick else (15, 2.5)
    python = [sys.executable]
    runs: dict[str, Callable[[], Figures]] = {
        PLAIN: partial(start, python, {}, rest),
        AGAIN: partial(start, python, {}, rest),
        PRELOADED: partial(start, python, {"LD_PRELOAD": vrange.malloc.library()}, rest),
        RUN: partial(start, [*python, "-m", "vrange.cli", "run", *python], {}, rest),
    }
    found = interleaved(runs, rounds)
    seconds = {name: [one[0] for one in rows] for name, rows in found.items()}

    def more(name: str, column: int) -> float:
        """Return by how many MiB a contender exceeds plain Python."""
        pairs = zip(found[name], found[PLAIN], strict=True)
        return median(ours[column] - plain[column] for ours, plain in pairs)

    figures = {
        name: {
            "processor time, times python": paired_ratio(seconds[name], seconds[PLAIN]),
            "seconds": median(seconds[name]),
            "RSS at once, MiB more": more(name, 1),
            "of which LazyFree, MiB": more(name, 2),
            "RSS after a rest, MiB more": more(name, 3),
            "threads": max(one[4] for one in rows),
        }
        for name, rows in found.items()
    }
    rows = [
        {"import numpy, pandas": name} | {what: f"{value:.2f}" for what, value in one.items()}
        for name, one in figures.items()
    ]
    print(report.table(rows))
    ours = figures[PRELOADED]
    targets = [
        Target(
            "processor time, times python", ours["processor time, times python"], "at most", LONGEST
        ),
        Target("RSS at once, MiB more", ours["RSS at once, MiB more"], "at most", MOST_MIB),
    ]
    shown = [] if options.quick else targets  # one round says nothing
    return report.write("start_up", options.results, {"contenders": figures}, shown)


if __name__ == "__main__":
    sys.exit(main())
