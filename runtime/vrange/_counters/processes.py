"""The processes of this user that use vrange, found by their stats segments.

A segment names the process that made it, by its id and its start time. So the segment of a killed
process is recognised as such even after its id was given to another process. The next reader
removes it.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from vrange._core import lib
from vrange._counters.segment import Header, SegmentRefusedError, Snapshot, mapped, parse

__all__ = ["directories", "is_alive", "living", "process_fields", "segment_files"]

_FILE = re.compile(r"(\d+)-(\d+)\.stats")


def directories() -> list[Path]:
    """Return where segments of this user may be.

    There are several places, because a service and a shell may differ in $XDG_RUNTIME_DIR.
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
    """Return /proc/PID/stat from its third field on, or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _lives(head: Any) -> bool:
    fields = process_fields(head.pid)
    if fields is None or fields[0] in "ZX" or int(fields[19]) != head.start_ticks:
        return False
    stack_start = int(fields[25])  # 0 if this process may not read it; different after an exec
    return stack_start in (0, head.stack_start)


def is_alive(path: Path) -> bool | None:
    """Return whether the segment's process is still the one that made it.

    Return None if the segment's ids belong to another PID namespace, and its process lives or may
    live. Such a process can't be looked up, but the kernel knows whether any process still maps
    the file, on file systems that are this machine's own.
    """
    with mapped(path) as data:
        head = Header(data, str(path)).fields
        if head.pid_namespace == os.stat("/proc/self/ns/pid").st_ino:
            return _lives(head)
    return False if lib.vrange_segment_is_in_use(os.fsencode(path)) == 0 else None


def segment_files(directory: Path) -> list[Path]:
    """Return the files in it whose names are those of segments."""
    if not _is_private(directory):
        return []
    with suppress(OSError):
        return sorted(path for path in directory.iterdir() if _FILE.fullmatch(path.name))
    return []


def living(places: list[Path] | None = None) -> list[Snapshot]:
    """Return a snapshot of every living process of this user that uses vrange.

    Segments of dead processes are removed, unless a sum still has to include them. Files that are
    not segments are skipped.
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
