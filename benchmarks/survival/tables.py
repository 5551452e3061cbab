"""Counts of bursts and kills, as tables for a terminal and for docs/survival.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.survival import matrix

MIB = 1 << 20
BEGIN = "<!-- made by benchmarks.survival: begin -->"
END = "<!-- made by benchmarks.survival: end -->"

Run = dict[str, Any]


def counted(runs: Iterable[Run]) -> tuple[int, int]:
    """Return the bursts, and those that were not survived. All of them were possible."""
    tried = [burst for run in runs for burst in run["bursts"]]
    return len(tried), sum(not burst["survived"] for burst in tried)


def contenders_of(runs: list[Run]) -> list[str]:
    found = {run["contender"] for run in runs}
    known = [name for name in matrix.CONTENDERS if name in found]
    return known + sorted(found - set(known))


def rows(runs: list[Run], what: str, values: Iterable[Any]) -> list[dict[str, Any]]:
    """Return a row for each value of `what` ("shape" or "limit_mib"), and one for all."""
    found = []
    for value in [*values, None]:
        these = [run for run in runs if value is None or run[what] == value]
        if not these:
            continue
        name = "all" if value is None else f"{value} MiB" if what == "limit_mib" else value
        row: dict[str, Any] = {"killed, of bursts": name}
        for contender in contenders_of(runs):
            tried, lost = counted(run for run in these if run["contender"] == contender)
            row[contender] = f"{lost} of {tried}" if tried else "–"
        found.append(row)
    return found


def tables(runs: list[Run]) -> list[list[dict[str, Any]]]:
    return [rows(runs, "shape", matrix.SHAPES), rows(runs, "limit_mib", matrix.LIMITS_MIB)]


def losses(runs: list[Run]) -> list[Run]:
    """Return the runs that went wrong: killed, ended for another reason, or with a wrong value."""
    return [
        run
        for run in runs
        if counted([run])[1] or run.get("wrong") or run.get("error") or run["exit_status"]
    ]


def description(run: Run) -> str:
    """Return what is known about one loss, in a few lines."""
    last = run["bursts"][-1] if run["bursts"] else {"bytes": 0, "possible": 0}
    size, possible = last["bytes"] // MIB, last["possible"] // MIB
    when = f"burst of {size} MiB, {possible} possible" if size else "while its cache was in use"
    lines = [f"{run['contender']}: {run['case']}: {when}"]
    if run.get("wrong"):
        lines.append(f"  {run['wrong']} wrong values")
    if run.get("error"):
        lines.append(f"  status {run['exit_status']}: {run['error'].strip().splitlines()[-1:]}")
    for counts in run.get("reserve", []):
        lines.append("  had " + ", ".join(f"{n / MIB:.1f} MiB {s}" for s, n in counts.items()))
    return "\n".join(lines + [f"  kernel: {line[:160]}" for line in run.get("kernel", [])])


def markdown(runs: list[Run]) -> str:
    """Return the part of docs/survival.md that the command makes."""
    parts = []
    for each in tables(runs):
        names = list(each[0])
        parts.append(
            "\n".join(
                "| " + " | ".join(cells) + " |"
                for cells in [names, ["---"] * len(names), *(list(row.values()) for row in each)]
            )
        )
    return "\n\n".join(parts)


def write_into(page: Path, runs: list[Run]) -> None:
    """Replace the part of a page between the two marks."""
    head, _, rest = page.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n{markdown(runs)}\n{END}{tail}")


def targets(runs: list[Run]) -> list[report.Target]:
    """Return the promise for each rung: no kill, and no wrong value."""
    found = []
    for contender in contenders_of(runs):
        if contender not in matrix.RUNGS:
            continue
        own = [run for run in runs if run["contender"] == contender]
        tried, lost = counted(own)
        found.append(report.Target(f"kills in {tried} bursts, {contender}", lost, "at most", 0))
        wrong = sum(run.get("wrong", 0) for run in own)
        found.append(report.Target(f"wrong values, {contender}", wrong, "at most", 0))
    return found
