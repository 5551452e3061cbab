"""What public reports complain of: memory that stays, under each allocator, and who can have it.

Method. Ten small programs (programs/) have the shapes of public reports. Each does its work under
each contender in turn, in a memory cgroup of its own with room for all of it, then waits as a
service does. After at least a minute's quiet, its resident bytes are read, without those that the
kernel may take at any moment (LazyFree). Then a second process in the same cgroup takes memory
until it is killed: what it had is what the first one really gave up.

Rounds alternate. Times are medians of the processor time of the work, and only the last of the
rounds is measured for memory. What a contender keeps is the limit without what the second process
had. The least that any contender kept is taken for what the program itself needs.

Check: under each contender a program computes the same.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.complaints.measuring import LIMIT, PYTHON, VRANGE, Held, begin, contenders, look
from benchmarks.report import Target
from vrange.cli.memory_cgroup import MemoryCgroup

PROGRAMS = sorted(one.name for one in iter_modules([str(Path(__file__).with_name("programs"))]))
NEEDS = {"polars_group_by": "polars"}
QUIET_SECONDS = 60.0
GIVEN_UP, KEPT_MOST, LATEST, HIGHEST = 0.95, 1.05, 1.02, 1.1
RETAINED_LEAST = 16 << 20


@dataclass
class Worked:
    """A program that waits under each contender, since its work was done there."""

    program: str
    times: dict[str, list[float]]
    held: dict[str, Held]
    since: float

    def measure(self, quiet_seconds: float) -> dict[str, dict[str, Any]]:
        """Return the figures by contender, once it has been quiet for so long."""
        time.sleep(max(0.0, self.since + quiet_seconds - time.monotonic()))
        for one in self.held.values():
            look(one)
        found = {one.end() for one in self.held.values()}
        assert len(found) == 1, f"{self.program} computed different things"
        return {
            name: {
                "cpu_seconds": median(self.times[name]),
                "peak": one.peak,
                "kept": LIMIT - one.left["second_process"],
                **one.left,
            }
            for name, one in ((name, self.held[name]) for name in self.times)
        }


def work(program: str, rounds: int, only: Collection[str]) -> Worked:
    chosen = {name: way for name, way in contenders().items() if not only or name in only}
    times: dict[str, list[float]] = {name: [] for name in chosen}
    held: dict[str, Held] = {}
    for turn in range(rounds):
        for name in list(chosen) if turn % 2 == 0 else reversed(chosen):
            one = begin(program, chosen[name])
            times[name].append(one.cpu_seconds)
            if turn == rounds - 1:
                held[name] = one
            else:
                one.end()
    return Worked(program, times, held, time.monotonic())


def measured(
    names: list[str], rounds: int, quiet_seconds: float, only: Collection[str]
) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Yield each program's figures. While one is quiet, the next one works."""
    waiting: Worked | None = None
    for program in names:
        worked = work(program, rounds, only)
        if waiting is not None:
            yield waiting.program, waiting.measure(quiet_seconds)
        waiting = worked
    if waiting is not None:
        yield waiting.program, waiting.measure(quiet_seconds)


def targets_of(program: str, found: dict[str, dict[str, Any]]) -> list[Target]:
    ours, plain = found[VRANGE], found[PYTHON]
    least = min(one["kept"] for one in found.values())
    retained = plain["kept"] - least
    fastest = min(one["cpu_seconds"] for name, one in found.items() if name != VRANGE)
    if retained >= RETAINED_LEAST:
        share = (plain["kept"] - ours["kept"]) / retained
        kept = Target(f"{program}: share had of what python keeps", share, "at least", GIVEN_UP)
    else:  # python itself gives it up
        times = ours["kept"] / least
        kept = Target(f"{program}: kept, × the least", times, "at most", KEPT_MOST)
    return [
        kept,
        Target(f"{program}: time, × fastest", ours["cpu_seconds"] / fastest, "at most", LATEST),
        Target(f"{program}: peak, × python", ours["peak"] / plain["peak"], "at most", HIGHEST),
    ]


def draw(programs: dict[str, dict[str, dict[str, Any]]], results: Path) -> None:
    from benchmarks import plot

    drawn, axes = plot.figure()
    names = list(next(iter(programs.values())))
    wide = 0.8 / len(names)
    inks = (plot.GREY, plot.VERMILION, plot.PURPLE, plot.GREEN, plot.PALE, plot.OURS)
    colours = dict(zip(names, inks, strict=False))
    for at, name in enumerate(names):
        places = [row + at * wide for row in range(len(programs))]
        kept = [found[name]["kept"] / 2**20 for found in programs.values()]
        axes.barh(places, kept, wide, label=name, color=colours[name])
    middle = 0.4 - wide / 2
    labels = [program.replace("_", " ") for program in programs]
    axes.set_yticks([row + middle for row in range(len(programs))], labels)
    axes.invert_yaxis()
    axes.set_xlabel("MiB that a second process could not have, a minute after the work")
    axes.legend(frameon=False, fontsize=13)
    drawn.tight_layout()
    plot.save(drawn, results, "complaints")


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument(
        "--program",
        action="append",
        choices=PROGRAMS,
        help="measure only this one, and keep the figures of the others; may be repeated",
    )
    options = parser.parse_args()
    if refusal := MemoryCgroup.unavailable():
        print(f"skipped: {refusal}", file=sys.stderr)
        return 77
    programs: dict[str, dict[str, dict[str, Any]]] = {}
    targets: list[Target] = []
    chosen = []
    for program in ["list_of_dicts"] if options.quick else options.program or PROGRAMS:
        if find_spec(NEEDS.get(program, "sys")) is None:
            print(f"without {program}: {NEEDS[program]} is not installed")
        else:
            chosen.append(program)
    rounds, quiet, only = (1, 4.0, {PYTHON, VRANGE}) if options.quick else (2, QUIET_SECONDS, set())
    for program, found in measured(chosen, rounds, quiet, only):
        programs[program] = found
        shown = ("peak", "rss", "not_reclaimable", "kept")
        rows = [
            {program: name, "cpu s": f"{one['cpu_seconds']:.2f}"}
            | {key: f"{one[key] / 2**20:.0f}" for key in shown}
            for name, one in found.items()
        ]
        print(report.table(rows), flush=True)
        print()
    if options.quick:
        found = programs["list_of_dicts"]
        kept = found[VRANGE]["kept"] / found[PYTHON]["kept"]
        targets = [Target("list_of_dicts: kept, × python", kept, "at most", 0.6)]
    else:
        before = options.results / "complaints.json"
        if options.program and before.exists():
            programs = json.loads(before.read_text())["programs"] | programs
        programs = {program: programs[program] for program in PROGRAMS if program in programs}
        targets = [one for program, found in programs.items() for one in targets_of(program, found)]
        draw(programs, options.results)
    return report.write("complaints", options.results, {"programs": programs}, targets)


if __name__ == "__main__":
    sys.exit(main())
