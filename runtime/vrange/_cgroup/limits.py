"""The memory that this process may use, from its cgroups; and cgroups to test limits with.

The limit that ends a process is rarely the machine's: it is that of its cgroup, or of any cgroup
around it. So the limit here is the tightest on the way up, and the usage is that of the cgroup
which has this limit, because that is the figure which reaches the limit. If no cgroup has a limit,
both are the machine's.

Both versions of cgroups are read, and both at once: a hybrid machine mounts v2 without its memory
controller, and v1 beside it. Containers show a part of the hierarchy: the mount table says which
part, and v1 reports the limits above it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vrange._cgroup.tree import V1, Files, find_hierarchies, read_limit, read_words

__all__ = ["MemoryLimit", "memory_limit", "memory_usage", "usage_of"]

_PROC_SELF = Path("/proc/self")


@dataclass(frozen=True)
class MemoryLimit:
    """The tightest memory limit that applies to this process.

    Attributes
    ----------
    limit_bytes : int
        The limit.
    usage_path : str or None
        The file with the usage in bytes of the cgroup that has the limit; None for the machine.
    source : {"cgroup v2", "cgroup v1", "machine"}
        What has the limit.
    path : str or None
        The directory of the cgroup that has the limit; None for the machine.

    """

    limit_bytes: int
    usage_path: str | None
    source: Literal["cgroup v2", "cgroup v1", "machine"]
    path: str | None = None


def memory_limit(*, proc_self: str | os.PathLike[str] = _PROC_SELF) -> MemoryLimit:
    """Return the tightest memory limit of this process's cgroup and all its ancestors.

    If none is below the machine's memory, it is the machine's memory. Nothing is cached between
    calls, because limits change while processes run.

    Parameters
    ----------
    proc_self : path
        The directory with `cgroup` and `mountinfo`; for tests.

    Returns
    -------
    MemoryLimit
        The limit, and which cgroup has it.

    Examples
    --------
    >>> limit = memory_limit()
    >>> limit.limit_bytes > 0 and limit.source in ("cgroup v2", "cgroup v1", "machine")
    True

    """
    tightest = MemoryLimit(machine_bytes(), None, "machine")
    for place in memory_places(proc_self=proc_self):
        files = place.files
        limit = min(read_limit(place.directory / name) for name in files.limits)
        # Of two equal limits, the outer one is reached first: its usage includes the inner one's.
        if limit < tightest.limit_bytes or (
            limit == tightest.limit_bytes and tightest.source == files.version
        ):
            tightest = _limit_of(place.directory, files, limit)
        if place.limits_above is not None:
            above = read_words(place.limits_above).get("hierarchical_memory_limit")
            if above is not None and above < tightest.limit_bytes:
                tightest = _limit_of(place.directory, files, above)
    return tightest


def machine_bytes() -> int:
    """Return the bytes of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class MemoryPlace:
    """A cgroup around this process whose memory is counted.

    `limits_above` is the file that reports limits above everything that is visible; only the
    highest place may have one (v1).
    """

    directory: Path
    files: Files
    limits_above: Path | None = None


def memory_places(*, proc_self: str | os.PathLike[str] = _PROC_SELF) -> list[MemoryPlace]:
    """Return the cgroups whose limits apply to this process, from its own upwards."""
    places: list[MemoryPlace] = []
    for hierarchy in find_hierarchies(Path(proc_self)):
        files = hierarchy.files
        # v2's root has no usage file, nor has a v2 without the memory controller.
        found = [d for d in hierarchy.ancestors() if (d / files.usage).exists()]
        places += [MemoryPlace(directory, files) for directory in found]
        # Only the root of all has that file. Nothing is above it, and its statistics are expensive.
        if files is V1 and found and not (found[-1] / "cgroup.sane_behavior").exists():
            places[-1] = MemoryPlace(found[-1], files, hierarchy.directory / "memory.stat")
    return places


def memory_usage() -> int:
    """Return the bytes in use, of the memory that `memory_limit()` limits.

    Volatile bytes count until the kernel has reclaimed them, and so does the page cache of a
    cgroup.

    Raises
    ------
    OSError
        If the cgroup was removed while it was read.

    """
    return usage_of(memory_limit())


def usage_of(limit: MemoryLimit) -> int:
    """Return the bytes in use under a limit. Raise OSError as memory_usage() does."""
    if limit.usage_path is None:
        import psutil  # 3 MB, which programs under a cgroup's limit need not pay

        machine = psutil.virtual_memory()
        return machine.total - machine.available
    return int(Path(limit.usage_path).read_text())


def _limit_of(directory: Path, files: Files, limit_bytes: int) -> MemoryLimit:
    return MemoryLimit(limit_bytes, str(directory / files.usage), files.version, str(directory))
