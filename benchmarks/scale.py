"""What a large cache costs: clear, close, len, info, a sweep and fork, at 10³ to 10⁷ entries.

Method. Each figure is the median of the rounds: three, and one from ten million entries. Each round
of each size is a process of its own (`scale_child`): it fills a cache, times stores and hits, then
what looks at the cache as a whole, then `len()` after the kernel took a tenth of the entries,
`clear()`, and after a second filling `close()`. Meanwhile another thread looks at the clock every
half millisecond and touches fresh pages. Its longest gap stands beside the longest gap of as long
a time in which nothing is done, because on a busy machine both are long; a process that may do so
takes the highest priority (nice -20). A fork stands beside the
fork of a process that has as much memory in a plain dict.

Values: small ones of 100 bytes, which share slabs, and arrays of 4 KiB, each a range of its own. A
size for which the machine has too little memory is left out, and the results say so.

Check: the cache has all its entries before, fewer after the sweep, and none after clear().
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import plot, report
from benchmarks.report import Target

SIZES = {
    "small": (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    "range": (1_000, 10_000, 100_000, 1_000_000),
}
BYTES_EACH = {"small": 400, "range": 4700}  # generously, with key and entry
ROUNDS, LARGE, ROUNDS_OF_LARGE = 3, 10_000_000, 1
CLEAR_SECONDS, GAP_SECONDS = 0.2, 0.005
NAMES = {"small": "values of 100 bytes", "range": "arrays of 4 KiB"}
WATCHED = ("list", "sweep of a tenth", "clear", "close")
SHOWN = ("store", "hit", "len", "info", "contains", "gc.collect", *WATCHED, "fork")

Figures = dict[str, float]


def run(*arguments: str) -> Figures:
    """Run one child, and return what it measured."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "benchmarks.scale_child"]
    finished = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=1800)
    assert finished.returncode == 0, finished.stderr
    found: Figures = json.loads(finished.stdout)
    return found


def one_round(kind: str, entries: int) -> Figures:
    found = run(kind, str(entries))
    control = run("dict", str(int(found["resident_bytes"])))
    return found | {"fork of a dict": control["fork"]}


def available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) << 10
    return 0


def main() -> int:
    options = report.arguments(__doc__).parse_args()
    sizes = {kind: all_[:2] for kind, all_ in SIZES.items()} if options.quick else SIZES
    figures: dict[str, dict[str, Figures]] = {}
    skipped = []
    for kind, counts in sizes.items():
        for entries in counts:
            needed = entries * BYTES_EACH[kind] * 3 // 2
            if needed > available_bytes():
                skipped.append(
                    f"{entries} {NAMES[kind]}: less than {needed >> 20} MiB are available"
                )
                continue
            few = options.quick or entries >= LARGE
            rounds = [one_round(kind, entries) for _ in range(ROUNDS_OF_LARGE if few else ROUNDS)]
            figures.setdefault(kind, {})[str(entries)] = {
                what: median(turn[what] for turn in rounds) for what in rounds[0]
            }
    for kind, found in figures.items():
        print(f"\n{NAMES[kind]}, milliseconds (the gaps are those of another thread)")
        print(report.table(rows_of(found)))
    print(*skipped, sep="\n")
    draw(figures, options.results)
    document: dict[str, Any] = {
        "rounds": {"each size": ROUNDS, f"from {LARGE}": ROUNDS_OF_LARGE},
        "seconds": figures,
        "skipped": skipped,
    }
    return report.write("scale", options.results, document, targets_of(figures))


def rows_of(found: dict[str, Figures]) -> list[dict[str, Any]]:
    """Return a line of the table for each operation."""
    shown = [*SHOWN, "fork of a dict"]
    for what in WATCHED:
        shown += [f"{what}, longest gap", f"{what}, longest gap of the control"]
    return [
        {"operation": what, **{entries: each[what] * 1e3 for entries, each in found.items()}}
        for what in shown
    ]


def targets_of(figures: dict[str, dict[str, Figures]]) -> list[Target]:
    """Return the promises, which are those of a million entries and more."""
    targets = []
    for kind, found in figures.items():
        entries, last = list(found.items())[-1]
        of = f"{entries} {NAMES[kind]}"
        gap = last["clear, longest gap"] - last["clear, longest gap of the control"]
        if int(entries) < 1_000_000:
            continue
        beside = f"s of the longest gap beyond the control's, clear(), {of}"
        targets.append(Target(f"s of clear(), {of}", last["clear"], "at most", CLEAR_SECONDS))
        targets.append(Target(beside, gap, "at most", GAP_SECONDS))
    return targets


def draw(figures: dict[str, dict[str, Figures]], results: Path) -> None:
    drawn, pair = plot.figure(1, 2, sharey=True)
    inks = {"store": plot.GREY, "hit": plot.GREY, "len": plot.GREEN, "info": plot.GREEN}
    inks |= {"list": plot.PURPLE, "sweep of a tenth": plot.PURPLE, "clear": plot.OURS}
    inks |= {"close": plot.INK, "fork": plot.VERMILION, "fork of a dict": plot.VERMILION}
    for axes, (kind, found) in zip(pair, figures.items(), strict=True):
        entries = [int(count) for count in found]
        for what in inks:
            style = "--" if what == "fork of a dict" else "-"
            axes.loglog(entries, [each[what] for each in found.values()], style, color=inks[what])
        ends = {what: list(found.values())[-1][what] for what in inks}
        plot.label_ends(axes, ends, inks, entries[-1], times=1.7)
        axes.set_xlabel("entries")
        axes.set_title(NAMES[kind])
    pair[0].set_ylabel("seconds, as the caller sees them")
    drawn.suptitle("What a large cache costs", x=0.01, ha="left")
    drawn.tight_layout()
    drawn.subplots_adjust(right=0.87, wspace=0.45)
    plot.save(drawn, results, "scale")


if __name__ == "__main__":
    sys.exit(main())
