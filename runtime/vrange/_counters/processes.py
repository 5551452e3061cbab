"""The processes of this user that use vrange, found by their stats segments.

A segment names the process that made it, by its id and its start time. So the segment of a killed
process is recognised as such even after its id was given to another process. The next reader
removes it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vrange._core import ffi, lib
from vrange._counters.own_file import is_private
from vrange._counters.segment import Segment, SegmentRefusedError, Snapshot, open_segment

__all__ = [
    "Running",
    "directories",
    "is_alive",
    "is_segment_name",
    "living",
    "look",
    "running",
    "segment_files",
]


def directories() -> list[Path]:
    """Return where segments of this user may be.

    There are several places, because a service and a shell may differ in $XDG_RUNTIME_DIR.
    """
    path = ffi.new("char[]", lib.VRANGE_PATH_BYTES)
    places = [
        Path(os.fsdecode(ffi.string(path)))
        for which in range(lib.VRANGE_SEGMENT_PLACES)
        if lib.vrange_segment_directory(which, path, lib.VRANGE_PATH_BYTES) == 0
    ]
    return list(dict.fromkeys(places))


class Running(NamedTuple):
    """A process that has not ended; a 0 is what this process may not read."""

    start_ticks: int  # since boot
    stack_start: int  # it changes at an exec


def running(pid: int) -> Running | None:
    """Look up a process; None if it has ended, also if only its parent has not noticed yet."""
    start, stack = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    return Running(start[0], stack[0]) if lib.vrange_process_runs(pid, start, stack) else None


def _lives(head: Any) -> bool:
    found = running(head.pid)
    return (
        found is not None
        and found.start_ticks in (0, head.start_ticks)
        and found.stack_start in (0, head.stack_start)
    )


def is_alive(segment: Segment, path: Path) -> bool | None:
    """Return whether the segment's process is still the one that made it.

    Return None if the segment's ids belong to another PID namespace, and its process lives or may
    live. Such a process can't be looked up, but the kernel knows whether any process still maps
    the file, on file systems that are this machine's own.
    """
    if segment.fields.pid_namespace == os.stat("/proc/self/ns/pid").st_ino:
        return _lives(segment.fields)
    return False if lib.vrange_segment_is_in_use(os.fsencode(path)) == 0 else None


def is_segment_name(name: str) -> bool:
    """Return whether a file of this name may be a segment."""
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return b"\0" not in encoded and bool(lib.vrange_is_segment_name(encoded))


def segment_files(directory: Path) -> list[Path]:
    """Return the files in it whose names are those of segments."""
    if not is_private(directory):
        return []
    with suppress(OSError):
        return sorted(path for path in directory.iterdir() if is_segment_name(path.name))
    return []


def look(path: Path) -> tuple[Snapshot, bool | None]:
    """Return the counts in a segment, and whether its process is alive. Raise as `open_segment`."""
    with open_segment(path) as segment:
        alive = is_alive(segment, path)  # first: the counts of a process that has ended are final
        return segment.snapshot(), alive


def living(places: list[Path] | None = None) -> list[Snapshot]:
    """Return a snapshot of every living process of this user that uses vrange.

    Segments of dead processes are removed, unless a sum still has to include them. Files that are
    not segments are skipped.
    """
    found = []
    for directory in directories() if places is None else places:
        for path in segment_files(directory):
            with suppress(SegmentRefusedError, OSError):
                snapshot, alive = look(path)
                if alive:
                    found.append(snapshot)
                elif alive is False and not snapshot.kept:
                    path.unlink()
    return found
