"""The report after the program has ended: as text for people, as JSON for programs."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrange.cli.printable import printable
from vrange.cli.run.supervise import Ending
from vrange.sizes import format_bytes

__all__ = ["Report", "as_json", "as_text"]


@dataclass(frozen=True)
class Report:
    """How the program ended, and the last record of each process that had vrange in it."""

    command: Sequence[str]
    ending: Ending
    records: Sequence[dict[str, Any]]

    @classmethod
    def gather(cls, command: Sequence[str], ending: Ending, directory: Path) -> Report:
        """Read the records that the processes left in `directory`, the program's own first."""
        records = []
        for file in directory.glob("*.json"):
            try:
                records.append(json.loads(file.read_text()))
            except (OSError, ValueError):
                continue  # the disk may be full; the figures from outside are still available
        records.sort(key=lambda one: (one["pid"] != ending.pid, one["pid"]))
        return cls(command, ending, records)

    @property
    def final_rss_bytes(self) -> int:
        """Resident bytes at the end of the program, before its interpreter ended."""
        own = self.records[0] if self.records else {}
        if own.get("pid") == self.ending.pid and "rss_bytes" in own:
            return int(own["rss_bytes"])
        samples = self.ending.sampler.samples
        return samples[-1].rss_bytes if samples else 0

    @property
    def peak_rss_bytes(self) -> int:
        """The largest resident size at one time; for a single process, the kernel's own figure."""
        return max(self.ending.sampler.peak_rss_bytes, self.ending.largest_rss_bytes)

    @property
    def without_vrange(self) -> int:
        """How many Pythons that the program started ran without vrange, as far as they were seen.

        One that ends within a fifth of a second may be missed.
        """
        inside = {record["pid"] for record in self.records}
        return len(self.ending.sampler.interpreters - inside)

    def parts(self) -> dict[str, str]:
        """Return what became of each part, in how many of the processes if they differ.

        What merely waits for an import that one process never made says nothing about the others.
        """
        told: dict[str, str] = {}
        names = dict.fromkeys(name for one in self.records for name in one.get("parts", {}))
        for name in names:
            states = Counter(one["parts"][name] for one in self.records if name in one["parts"])
            done = {state: n for state, n in states.items() if not state.startswith("ready")}
            shown = [
                state if len(states) == 1 else f"{state} (in {n} of {states.total()} processes)"
                for state, n in (done or states).items()
            ]
            told[name] = "; ".join(shown)
        return told

    def summed(self, *path: str) -> Counter[str]:
        """Return one part of the records, summed over the processes."""
        total: Counter[str] = Counter()
        for record in self.records:
            part: Any = record
            for name in path:
                part = part.get(name, {})
            if isinstance(part, dict):
                for name, value in part.items():
                    if isinstance(value, (int, float)) and not isinstance(value, bool):
                        total[name] += value  # type: ignore[assignment]
        return total


def as_json(report: Report) -> str:
    """Return everything as JSON, sizes in bytes and times in seconds."""
    ending, sampler = report.ending, report.ending.sampler
    own = report.records[0] if report.records else {}
    told = {
        "command": list(report.command),
        "pid": ending.pid,
        "exit_status": ending.status if ending.signal is None else None,
        "signal": None if ending.signal is None else _signal_name(ending.signal),
        "out_of_memory": ending.out_of_memory,
        "seconds": ending.seconds,
        "cpu_seconds": ending.cpu_seconds,
        "rss_bytes": {
            "peak": report.peak_rss_bytes,
            "average": sampler.average_rss_bytes,
            "final": report.final_rss_bytes,
        },
        "final_lazyfree_bytes": own.get("lazyfree_bytes"),
        "cgroup": None
        if sampler.limit is None
        else {
            "limit_bytes": sampler.limit.limit_bytes,
            "peak_bytes": sampler.peak_cgroup_bytes,
            "path": sampler.limit.path,
        },
        "trims": sum(record.get("trims", 0) for record in report.records),
        "trim_seconds": sum(record.get("trim_seconds", 0.0) for record in report.records),
        "returned_bytes": dict(report.summed("returned_bytes")),
        "caches": dict(report.summed("caches")),
        "stacks": dict(report.summed("stacks")),
        "processes": report.records,
        "sampling": {"samples": sampler.taken, "cpu_seconds": sampler.cpu_seconds},
        "pythons_without_vrange": report.without_vrange,
        "samples": [
            [one.seconds, one.rss_bytes, one.cgroup_bytes, one.processes, one.lazyfree_bytes]
            for one in sampler.samples
        ],
    }
    return json.dumps(told, indent=1) + "\n"


def as_text(report: Report) -> str:
    """Return a summary of about a dozen lines."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    ending, sampler = report.ending, report.ending.sampler
    yield (
        f"vrange run: {_how(ending)} after {ending.seconds:.2f} s "
        f"({ending.cpu_seconds:.2f} s of processor time)"
    )
    most = max((one.processes for one in sampler.samples), default=1)
    of = "" if most == 1 else f" of up to {most} processes; shared memory counts in each"
    yield _line(
        "memory",
        f"peak {format_bytes(report.peak_rss_bytes)}, average "
        f"{format_bytes(sampler.average_rss_bytes)}, at the end "
        f"{format_bytes(report.final_rss_bytes)} (RSS{of})",
    )
    if sampler.limit is not None and sampler.peak_cgroup_bytes is not None:
        yield _line(
            "cgroup",
            f"peak {format_bytes(sampler.peak_cgroup_bytes)} of "
            f"{format_bytes(sampler.limit.limit_bytes)}",
        )
    if not report.records:
        yield _line("inside", "nothing was switched on: no interpreter with vrange was started")
        return
    own = report.records[0]
    if own.get("lazyfree_bytes"):
        yield _line("offered", f"{format_bytes(own['lazyfree_bytes'])} of that, reclaimable now")
    trims = sum(record.get("trims", 0) for record in report.records)
    took = sum(record.get("trim_seconds", 0.0) for record in report.records)
    returned = +report.summed("returned_bytes")
    yield _line(
        "trims",
        f"{trims} in {took:.3f} s"
        + (f", the longest {own['longest_trim_seconds'] * 1e3:.1f} ms" if trims else ""),
    )
    for source, nbytes in returned.most_common():
        yield _line("", f"{source:<12} {format_bytes(nbytes)} returned")
    for source, why in own.get("refused", {}).items():
        yield _line("", f"{source:<12} refused: {why}")
    pressure = own.get("pressure") or {}
    if pressure:
        yield _line("pressure", _pressure(pressure))
    caches = report.summed("caches")
    if any(caches.values()):
        yield _line("caches", ", ".join(f"{count} {name}" for name, count in caches.items()))
    stacks = report.summed("stacks")
    if stacks["trims"]:
        yield _line(
            "stacks",
            f"{format_bytes(stacks['returned_bytes'])} returned in {stacks['trims']} trims",
        )
    for name, state in report.parts().items():
        yield _line(name, state)
    if report.without_vrange:
        yield _line(
            "children",
            f"started {report.without_vrange} Python without vrange; --children has it on there",
        )
    if not own.get("ended"):
        yield _line("", "it did not reach its exit, so its last actions are missing above")


def _line(head: str, text: str) -> str:
    # The program and its libraries chose some of the names.
    return f"  {printable(head):<12} {printable(text)}"


def _how(ending: Ending) -> str:
    if ending.signal is None:
        return f"ended with exit status {ending.status}"
    why = ", because its cgroup was out of memory" if ending.out_of_memory else ""
    return f"killed by {_signal_name(ending.signal)}{why}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _pressure(told: dict[str, Any]) -> str:
    if "level" not in told:
        return ", ".join(f"{name} {value}" for name, value in told.items())
    done = ", ".join(f"{name} {count}" for name, count in told.get("done", {}).items() if count)
    return (
        f"{told['level'] or 'closed'} at the end, {told.get('changes', 0)} changes of level; "
        f"done: {done or 'nothing'}; the watcher took {told.get('busy_seconds', 0.0):.4f} s"
    )
