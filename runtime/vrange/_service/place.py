"""Where the index of a shared cache is: a file beside the counters, named by service and cache."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vrange._core import lib
from vrange._counters.service import own_path, own_snapshot

__all__ = ["ENDING", "is_unused", "orphans", "path_of", "remove"]

ENDING = ".index"
_NAME = re.compile(r"[0-9a-f]{32}\.index")


def path_of(cache: str) -> Path | None:
    """Return the path of a cache's index; None if this process has no directory for files.

    Processes find the same file if they are one service, as in the metrics, and in one PID
    namespace and one time namespace: the index names processes by their ids and by when they
    began, and a process in another namespace reads other numbers.
    """
    counters = own_path()
    if counters is None:
        return None
    namespaces = f"{os.stat('/proc/self/ns/pid').st_ino}\0{_time_namespace()}"
    identity = f"{namespaces}\0{own_snapshot().service_key}\0{cache}"
    name = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
    return counters.parent / f"{name}{ENDING}"


def _time_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/time").st_ino
    except OSError:  # a kernel without them
        return 0


def orphans(directory: Path) -> Iterator[Path]:
    """Yield the indexes that no process has mapped. The caller holds the directory's lock."""
    with suppress(OSError):
        for path in directory.glob(f"*{ENDING}"):
            if _NAME.fullmatch(path.name) and is_unused(path):
                yield path


def is_unused(path: Path) -> bool:
    """Return whether certainly no process has the file mapped."""
    return bool(lib.vrange_segment_is_in_use(os.fsencode(path)) == 0)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with suppress(OSError):
        path.unlink()
