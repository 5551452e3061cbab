"""The results of the runs side by side, as lines of text.

Nothing here assumes a result: a contender that survived is shown as such, and one that was killed
is shown with the signal and the kernel's count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vrange.cli.demo.child import Ending
from vrange.cli.demo.messages import PHASES, Contender, Latency, Sample, Sizing
from vrange.cli.durations import duration

__all__ = ["MIB", "Run", "align", "duration", "mib", "summary"]

MIB = 1 << 20


@dataclass
class Run:
    """What is known of one contender's run: the last sample of each phase, and the ending."""

    contender: Contender
    sizing: Sizing | None = None
    phases: dict[str, Sample] = field(default_factory=dict)
    latencies: list[Latency] = field(default_factory=list)
    lru_bytes: int = 0
    most_bytes: int = 0
    ending: Ending | None = None


def summary(runs: list[Run]) -> str:
    """Return the runs side by side: hit ratios, speed, memory, and how each ended."""
    rows = [["", *(_title(run) for run in runs)]]
    for phase in PHASES[1:]:
        rows.append([f"hit ratio {phase}", *(_ratio(run, phase) for run in runs)])
    for phase in PHASES[1:]:
        rows.append([f"waited for values {phase}", *(_waited(run, phase) for run in runs)])
    rows.append(["median hit before", *(_median(run, "before") for run in runs)])
    rows.append(["values recomputed", *(_recomputed(run) for run in runs)])
    rows.append(["most memory used", *(_most(run) for run in runs)])
    rows.append(["wrong values", *(str(_wrong(run)) for run in runs)])
    rows.append(["end", *("?" if run.ending is None else run.ending.word for run in runs)])
    lines = align(rows)
    for run in runs:
        lines += _told(run)
    latencies = [latency for run in runs for latency in run.latencies]
    if latencies:
        head = [["", "count", "p50", "p99"]]
        body = [
            [one.what, str(one.count), duration(one.p50_seconds), duration(one.p99_seconds)]
            for one in latencies
        ]
        lines += ["", *align(head + body)]
    return "\n".join(lines)


def _title(run: Run) -> str:
    if run.contender == "LRU" and run.lru_bytes:
        return f"LRU of {mib(run.lru_bytes)}"
    return {"vrange": "VolatileCache", "dict": "dict"}.get(run.contender, run.contender)


def _ratio(run: Run, phase: str) -> str:
    sample = run.phases.get(phase)
    if sample is None or sample.hit_ratio is None:
        return "-"
    return f"{sample.hit_ratio:.3f}" + ("" if sample.last else f" (of {sample.requests})")


def _waited(run: Run, phase: str) -> str:
    sample = run.phases.get(phase)
    if sample is None or not sample.last:
        return "-"
    return f"{sample.waited_seconds:.2f} s"


def _median(run: Run, phase: str) -> str:
    sample = run.phases.get(phase)
    median = None if sample is None else sample.hit_median_seconds
    return "-" if median is None else duration(median)


def _recomputed(run: Run) -> str:
    return str(sum(sample.recomputed for phase, sample in run.phases.items() if phase != "fill"))


def _most(run: Run) -> str:
    peak = run.ending.peak_bytes if run.ending is not None else None
    return mib(run.most_bytes if peak is None else peak)


def _wrong(run: Run) -> int:
    return sum(sample.wrong for sample in run.phases.values())


def _told(run: Run) -> list[str]:
    """Return the lines that describe a run that did not finish."""
    if run.ending is None or run.ending.finished:
        return []
    lines = [f"{run.contender}: {run.ending}"]
    if run.phases:
        phase, sample = list(run.phases.items())[-1]
        lines[0] += (
            f" {sample.seconds:.1f} s into {phase!r}, last seen at {mib(sample.usage_bytes)}, "
            f"{mib(sample.app_bytes)} of them the application's"
        )
    return lines + [f"    {line}" for line in run.ending.error.splitlines()]


def mib(count: float) -> str:
    """Return bytes in MiB, so that figures can be compared.

    >>> mib(3 << 19)
    '1.5 MiB'
    """
    return f"{count / MIB:.1f} MiB"


def align(rows: list[list[str]]) -> list[str]:
    """Set rows of cells in columns: the first column left-aligned, the others right-aligned.

    >>> align([["a", "1"], ["bc", "23"]])
    ['a    1', 'bc  23']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
