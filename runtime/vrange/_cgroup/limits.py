"""The memory that this process may use: the limits of its cgroups, its own, and the machine's.

The limit that ends a process is rarely the machine's: it is that of its cgroup, or of any cgroup
around it. So the limit here is the tightest on the way up, and the usage is that of the cgroup
which has this limit, because that is the figure which reaches the limit. If no cgroup has a limit,
both are the machine's.

The native side finds the cgroups and reads them (memory_limits.c); this module shows what it found.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vrange._cgroup.tree import Cgroups, find_cgroups
from vrange._core import ffi, lib, names

__all__ = [
    "MemoryLimit",
    "Source",
    "machine_bytes",
    "memory_limit",
    "memory_usage",
    "usage_of",
]

_PROC_SELF = Path("/proc/self")

Source = Literal["cgroup v2", "cgroup v1", "machine", "RLIMIT_AS", "RLIMIT_DATA", "set_limit"]
_SOURCES = names(lib.VRANGE_NAMES_LIMITS)
_NO_CGROUPS = ffi.new("vrange_cgroups *")


@dataclass(frozen=True)
class MemoryLimit:
    """The tightest memory limit that applies to this process.

    Attributes
    ----------
    limit_bytes : int
        The limit.
    usage_path : str or None
        The file with the usage in bytes of the cgroup that has the limit; None if it is no
        cgroup's.
    source : {"cgroup v2", "cgroup v1", "machine", "RLIMIT_AS", "RLIMIT_DATA", "set_limit"}
        What has the limit.
    path : str or None
        The directory of the cgroup that has the limit; None if it is no cgroup's.

    """

    limit_bytes: int
    usage_path: str | None
    source: Source
    path: str | None = None


def memory_limit(*, proc_self: str | os.PathLike[str] = _PROC_SELF) -> MemoryLimit:
    """Return the tightest memory limit of this process.

    It is that of its cgroup or any cgroup around it, RLIMIT_AS, RLIMIT_DATA, what the program
    has set, or the machine's memory. Nothing is cached between calls, because limits change while
    processes run.

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
    >>> limit.limit_bytes > 0
    True

    """
    found, tightest = _tightest(proc_self)
    source: Source = _SOURCES[tightest.source]
    if tightest.cgroup < 0:
        return MemoryLimit(tightest.bytes, None, source)
    cgroup = found.cgroups[tightest.cgroup]
    usage = cgroup.directory / cgroup.files.usage
    return MemoryLimit(tightest.bytes, str(usage), source, str(cgroup.directory))


def _tightest(proc_self: str | os.PathLike[str]) -> tuple[Cgroups, Any]:
    found = find_cgroups(proc_self)
    tightest = ffi.new("vrange_limit *")
    lib.vrange_limit_of(found.native, tightest)
    return found, tightest


def machine_bytes() -> int:
    """Return the bytes of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_usage() -> int:
    """Return the bytes in use, of the memory that `memory_limit()` limits.

    Volatile bytes count until the kernel has reclaimed them, and so does the page cache of a
    cgroup.
    """
    usage: int = _tightest(_PROC_SELF)[1].usage
    return usage


def usage_of(limit: MemoryLimit) -> int:
    """Return the bytes in use under a limit. Raise OSError if its cgroup was removed."""
    if limit.usage_path is None:
        # Finding the cgroups takes ten times as long, and their usage is not what is asked for.
        tightest = ffi.new("vrange_limit *")
        lib.vrange_limit_of(_NO_CGROUPS, tightest)
        usage: int = tightest.usage
        return usage
    with open(limit.usage_path, "rb", buffering=0) as file:
        return int(file.read())
