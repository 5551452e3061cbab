"""The ledger of a service: a file with the counts of its processes that have ended.

A ledger is read like any file that may be damaged: what is not one counts for nothing, and counting
starts anew. Its keys, names and counts are checked, because all of them end up in an exposition
together with the metrics of the application.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrange._counters.own_file import FileRefusedError, read_text
from vrange._counters.processes import is_segment_name, running
from vrange._counters.segment import Snapshot
from vrange._counters.totals import Totals, checked_count, checked_text

__all__ = ["Service", "ledger_path", "load", "save"]

_VERSION = 1
_BYTES_MOST = 16 << 20  # 256 names with full histograms are 4 MiB
_LEADERS_MOST = 2


@dataclass
class Service:
    """What is known of one service.

    `ended` holds the counts of its processes that have ended, `living` the snapshots of the others.
    """

    key: str
    ended: Totals = field(default_factory=Totals)
    living: list[Snapshot] = field(default_factory=list)
    leaders: list[tuple[int, int]] = field(default_factory=list)  # process group, started before
    folded: list[str] = field(default_factory=list)  # files that are in `ended` and may still exist

    def take_totals(self) -> Totals:
        """Return all counts so far, and the bytes of living processes. Call it only once."""
        totals, self.ended = self.ended, Totals()
        for snapshot in self.living:
            totals.add(snapshot)
        return totals

    def fold(self, file: Path, snapshot: Snapshot) -> None:
        """Add the counts of a process that has ended."""
        self.ended.add(snapshot, ended=True)
        self.leaders = [(snapshot.group, snapshot.start_ticks), *self.leaders][:_LEADERS_MOST]
        self.folded.append(file.name)

    def is_over(self, ending: int | None = None) -> bool:
        """Return whether no process is left that could start a worker; `ending` is not counted."""
        leaders = [leader for leader in self.leaders if leader[0] != ending]
        return not self.living and not any(_leads(*leader) for leader in leaders)


def _leads(group: int, before_ticks: int) -> bool:
    leader = running(group)
    return leader is not None and leader.start_ticks <= before_ticks


def ledger_path(directory: Path, key: str) -> Path:
    """Return the path of a service's ledger."""
    readable = re.sub(r"[^\w.-]", "_", key, flags=re.ASCII)[:40]
    return directory / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.ledger"


def load(path: Path) -> Service | None:
    """Load a ledger; None if there is none, or it is not one: counting then starts anew."""
    try:
        data: dict[str, Any] = json.loads(read_text(path, _BYTES_MOST))
        if data["version"] != _VERSION:
            return None
        service = Service(
            key=checked_text(data["key"]),
            ended=Totals.from_json(data["ended"]),
            leaders=[
                (checked_count(group), checked_count(ticks))
                for group, ticks in data["leaders"][:_LEADERS_MOST]
            ],
            # Only files of segments in this directory: other names would lead elsewhere.
            folded=[name for name in data["folded"] if is_segment_name(name)],
        )
        return service if path == ledger_path(path.parent, service.key) else None
    except (FileRefusedError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    except RecursionError:  # brackets without end
        return None


def save(directory: Path, service: Service) -> None:
    """Write a service's ledger, as a whole or not at all. Raise OSError if it can't be written."""
    path = ledger_path(directory, service.key)
    service.folded = [name for name in service.folded if (directory / name).exists()]
    data = {
        "version": _VERSION,
        "key": service.key,
        "ended": service.ended.as_json(),
        "leaders": service.leaders,
        "folded": service.folded,
    }
    fresh = path.with_suffix(".new")
    try:
        # A file of that name is of a writer that was killed, as writers hold the lock.
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(data, file, separators=(",", ":"))
        fresh.replace(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
