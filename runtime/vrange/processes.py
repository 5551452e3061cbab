"""The processes of this user that use vrange, by the stats segments they have.

A segment tells which process made it, by id and by when it began; so one that a killed process left
is known for what it is even after its id was given again. Whoever looks removes it.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from vrange.segment import Header, SegmentRefusedError, Snapshot, mapped, parse

__all__ = ["directories", "is_alive", "living", "process_fields", "segment_files"]

_FILE = re.compile(r"(\d+)-(\d+)\.stats")


def directories() -> list[Path]:
    """Where segments of this user may be: a service and a shell need not agree on
    $XDG_RUNTIME_DIR.
    """
    told = os.environ.get("VRANGE_RUNTIME_DIR")
    if told:
        return [Path(told)]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime, "vrange")] if runtime.startswith("/") else []
    places += [Path(f"/run/user/{os.geteuid()}/vrange"), Path(f"/dev/shm/vrange-{os.geteuid()}")]
    return list(dict.fromkeys(places))


def _is_private(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def process_fields(pid: int) -> list[str] | None:
    """/proc/PID/stat from its third field on; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _lives(head: Header) -> bool:
    fields = process_fields(head.pid)
    if fields is None or fields[0] in "ZX" or int(fields[19]) != head.start_ticks:
        return False
    stack_start = int(fields[25])  # 0 where we may not see it; another one after an exec
    return stack_start in (0, head.stack_start)


def is_alive(path: Path) -> bool | None:
    """Whether the segment's process is still the one that made it; None where that can't be told,
    because its ids are of another PID namespace.
    """
    with mapped(path) as data:
        head = Header(data, str(path))
        if head.pid_namespace != os.stat("/proc/self/ns/pid").st_ino:
            return None
        return _lives(head)


def segment_files(directory: Path) -> list[Path]:
    """The files in it that are named as segments are."""
    if not _is_private(directory):
        return []
    with suppress(OSError):
        return sorted(path for path in directory.iterdir() if _FILE.fullmatch(path.name))
    return []


def living(places: list[Path] | None = None) -> list[Snapshot]:
    """A snapshot of every process of this user that uses vrange and lives.

    Segments that a dead process left are removed, unless somebody is to add them to a sum first.
    What is no segment is passed over.
    """
    found = []
    for directory in directories() if places is None else places:
        for path in segment_files(directory):
            with suppress(SegmentRefusedError, OSError):
                alive = is_alive(path)
                with mapped(path) as data:
                    snapshot = parse(data, str(path))
                if alive:
                    found.append(snapshot)
                elif alive is False and not snapshot.kept:
                    path.unlink()
    return found
