"""Count who is killed in the bursts of the matrix: `python -m benchmarks.survival`.

Without an option it tries a random sample, which takes minutes; `--all` tries the whole matrix,
which takes hours. Runs are kept in a file as they end: the same command goes on where it stopped.
docs/survival.md explains the method and shows the result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks import report
from benchmarks.survival import matrix, runner, tables
from benchmarks.survival.matrix import Case
from benchmarks.survival.record import Record
from vrange._ranges.capabilities import capabilities
from vrange.cli.memory_cgroup import MemoryCgroup

SAMPLE = 25
QUICK_CASES = 1
QUICK_LIMITS, QUICK_SHAPES = (128,), ("one step",)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "survival.md"


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--sample", type=int, default=SAMPLE, metavar="CASES")
    parser.add_argument("--all", action="store_true", help="the whole matrix: 10,000 bursts, hours")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn")
    parser.add_argument("--limits", type=int, nargs="+", default=matrix.LIMITS_MIB, metavar="MIB")
    parser.add_argument("--shapes", nargs="+", default=tuple(matrix.SHAPES), metavar="SHAPE")
    parser.add_argument("--contenders", nargs="+", default=matrix.CONTENDERS, metavar="NAME")
    parser.add_argument("--before", metavar="RUNTIME", help="another built tree to compare with")
    parser.add_argument("--record", type=Path, help="the file of the runs; default: in --results")
    parser.add_argument("--docs", action="store_true", help="write the tables into the docs")
    parser.add_argument("--only-show", action="store_true", help="run nothing")
    options = parser.parse_args()
    if refusal := MemoryCgroup.unavailable():
        print(f"no memory cgroup can be made here: {refusal}", file=sys.stderr)
        return 77
    limits, shapes = tuple(options.limits), tuple(options.shapes)
    contenders = tuple(options.contenders)
    for unknown in set(shapes) - set(matrix.SHAPES):
        parser.error(f"{unknown!r} is no shape; the shapes are {', '.join(matrix.SHAPES)}")
    if options.quick:
        limits, shapes = QUICK_LIMITS, QUICK_SHAPES
        contenders = (capabilities().rung, matrix.DICT)
        options.sample = QUICK_CASES
    if options.before:
        contenders += tuple(f"{name}, before" for name in contenders if name in matrix.RUNGS)
    runs: Iterable[tuple[Case, str]]
    if options.all:
        runs = matrix.whole(options.seed, limits, shapes, contenders)
    else:
        runs = matrix.sample(options.sample, options.seed, limits, shapes, contenders)
    kept = options.record or options.results / "survival" / f"{options.seed}.jsonl"
    record = Record(kept)
    if not options.only_show:
        try:
            _run(runs, record, options.before)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on", file=sys.stderr)
    return _show(record, options.results, options.docs)


def _run(runs: Iterable[tuple[Case, str]], record: Record, before: str | None) -> None:
    for case, contender in runs:
        if record.has(case, contender):
            continue
        found = runner.run(case, contender, before)
        record.add(case, contender, found)
        tried, lost = tables.counted([found])
        verdict = f"{lost} of {tried} killed" if lost else f"{tried} survived"
        if found["error"]:
            verdict += ": " + found["error"].strip().splitlines()[-1]
        seconds = found.get("seconds", 0)
        print(f"{seconds:6.1f} s  {contender:18} {case.key:28} {verdict}", flush=True)


def _show(record: Record, results: Path, docs: bool) -> int:
    runs = record.runs
    for lost in tables.losses(runs):
        if lost["contender"] not in matrix.PEERS:
            print(tables.description(lost))
    for each in tables.tables(runs):
        print("\n" + report.table(each))
    if docs:
        tables.write_into(PAGE, runs)
    measured = {
        "tables": tables.tables(runs),
        "losses": [run for run in tables.losses(runs) if run["contender"] not in matrix.PEERS],
    }
    return report.write("survival", results, measured, tables.targets(runs))


if __name__ == "__main__":
    sys.exit(main())
