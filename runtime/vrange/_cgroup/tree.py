"""The place of this process among the cgroups, and the names of their files.

The native side finds both (cgroups.c). The names here are only of files that nothing but Python
reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vrange._core import ffi, lib, names

__all__ = [
    "NO_LIMIT",
    "V1",
    "V2",
    "Cgroup",
    "Cgroups",
    "Files",
    "Hierarchy",
    "Version",
    "cgroups_of",
    "find_cgroups",
    "find_hierarchies",
    "read_limit",
    "read_words",
]

Version = Literal["cgroup v1", "cgroup v2"]
_NAMES: Any = names(lib.VRANGE_NAMES_LIMITS)

NO_LIMIT = (1 << 64) - 1


def _file(version: int, which: int) -> str:
    name: bytes = ffi.string(lib.vrange_cgroup_file(version, which))
    return name.decode()


@dataclass(frozen=True)
class Files:
    """The file names of one version; `limit` is the file of the limit that ends processes."""

    version: Version
    limit: str
    usage: str
    peak: str
    swap_limit: str
    events: str


V1 = Files(
    _NAMES[lib.VRANGE_LIMIT_CGROUP_V1],
    limit=_file(1, lib.VRANGE_CGROUP_LIMIT),
    usage=_file(1, lib.VRANGE_CGROUP_USAGE),
    peak="memory.max_usage_in_bytes",
    swap_limit="memory.memsw.limit_in_bytes",
    events="memory.oom_control",
)
V2 = Files(
    _NAMES[lib.VRANGE_LIMIT_CGROUP_V2],
    limit=_file(2, lib.VRANGE_CGROUP_LIMIT),
    usage=_file(2, lib.VRANGE_CGROUP_USAGE),
    peak="memory.peak",
    swap_limit="memory.swap.max",
    events="memory.events",
)
_FILES = {1: V1, 2: V2}


@dataclass(frozen=True)
class Hierarchy:
    """The process's place in one mounted hierarchy: `directory`, at or below `mount_point`."""

    files: Files
    mount_point: Path
    directory: Path

    def ancestors(self) -> Iterator[Path]:
        """Yield the directories from this process's cgroup up to the mount point."""
        directory = self.directory
        while True:
            yield directory
            if directory == self.mount_point:
                return
            directory = directory.parent


@dataclass(frozen=True)
class Cgroup:
    """A cgroup around this process whose memory is counted.

    `refused` says why its figures can't be read; None if they can.
    """

    files: Files
    directory: Path
    limit_bytes: int
    usage_bytes: int
    refused: str | None = None


@dataclass(frozen=True)
class Cgroups:
    """The hierarchies that this process is in, and the cgroups around it, as the core found them.

    The cgroups of a hierarchy go from the process's own outwards.
    """

    native: Any
    hierarchies: list[Hierarchy]
    cgroups: list[Cgroup]


def _path(raw: Any) -> Path:
    return Path(os.fsdecode(ffi.string(raw)))


def cgroups_of(native: Any) -> Cgroups:
    """Return what a native `vrange_cgroups` holds."""
    hierarchies = [
        Hierarchy(_FILES[h.version], _path(h.mount_point), _path(h.directory))
        for h in native.hierarchies[0 : native.hierarchy_count]
    ]
    cgroups = []
    for c in native.cgroups[0 : native.count]:
        hierarchy = native.hierarchies[c.hierarchy]
        directory = os.fsdecode(ffi.string(hierarchy.directory, c.directory_bytes)) or "/"
        why = f"{ffi.string(c.failed).decode()}: {os.strerror(c.error)}" if c.error else None
        cgroups.append(
            Cgroup(_FILES[hierarchy.version], Path(directory), c.limit, c.usage, refused=why)
        )
    return Cgroups(native, hierarchies, cgroups)


def find_cgroups(proc_self: str | os.PathLike[str]) -> Cgroups:
    """Return the cgroups whose limits apply to this process; none if nothing is known of them."""
    native = ffi.new("vrange_cgroups *")
    lib.vrange_cgroups_read(os.fsencode(proc_self), native)
    return cgroups_of(native)


def find_hierarchies(proc_self: str | os.PathLike[str]) -> list[Hierarchy]:
    """Find this process in each mounted hierarchy that may have a memory controller."""
    return find_cgroups(proc_self).hierarchies


def read_limit(file: Path) -> int:
    """Return a limit in bytes; NO_LIMIT if the file says so or doesn't exist."""
    try:
        text = file.read_text().strip()
    except OSError:
        return NO_LIMIT
    return NO_LIMIT if text == "max" else int(text)


def read_words(file: Path) -> dict[str, int]:
    """Read a file of lines `name number`; return an empty dict if it can't be read."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
