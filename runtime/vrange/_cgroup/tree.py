"""The place of this process among the cgroups, and the names of their files.

The kernel reports the cgroup of a process as a path. The mount table says which part of which
hierarchy is visible where: a container sees its own cgroup as the root, a hybrid machine has v1's
memory controller beside a v2 without one, and a process may have been moved to where its mounts
don't reach. If a path can't be located, the mount's root is used: its limits, if any, apply as
well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = [
    "NO_LIMIT",
    "V1",
    "V2",
    "Files",
    "Hierarchy",
    "Version",
    "find_hierarchies",
    "read_limit",
    "read_words",
]

Version = Literal["cgroup v1", "cgroup v2"]

NO_LIMIT = 1 << 62  # v1 writes "none" as the largest signed long, rounded down to a page


@dataclass(frozen=True)
class Files:
    """The file names of one version. A limit is the least of `limits`."""

    version: Version
    limits: tuple[str, ...]
    usage: str
    peak: str
    swap_limit: str
    events: str


V1 = Files(
    "cgroup v1",
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.oom_control",
)
# At memory.high no process is killed, but a process above it is slowed until it is below again, and
# the kernel reclaims what was offered. So that is where a cache must give way.
V2 = Files(
    "cgroup v2",
    ("memory.max", "memory.high"),
    "memory.current",
    "memory.peak",
    "memory.swap.max",
    "memory.events",
)


@dataclass(frozen=True)
class Hierarchy:
    """The process's place in one mounted hierarchy: `directory`, at or below `mount_point`."""

    files: Files
    mount_point: Path
    directory: Path

    @property
    def depth(self) -> int:
        """How many cgroups above this process's own are visible."""
        return len(self.directory.relative_to(self.mount_point).parts)

    def ancestors(self) -> Iterator[Path]:
        """Yield the directories from this process's cgroup up to the mount point."""
        directory = self.directory
        while True:
            yield directory
            if directory == self.mount_point:
                return
            directory = directory.parent


def find_hierarchies(proc_self: Path) -> list[Hierarchy]:
    """Find this process in each mounted hierarchy that may have a memory controller."""
    try:
        mounts = _read_lines(proc_self / "mountinfo")
        cgroups = _read_lines(proc_self / "cgroup")
    except OSError:
        return []  # not Linux, or /proc isn't mounted
    paths: dict[Version, str] = {}
    for line in cgroups:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            paths["cgroup v2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup v1"] = path

    found: dict[Version, Hierarchy] = {}
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = [*after.split(" ", 2), "", ""][:3]
        if kind == "cgroup2":
            files = V2
        elif kind == "cgroup" and "memory" in options.split(","):
            files = V1
        else:
            continue
        if files.version not in paths:
            continue
        root, mount_point = map(_unescape, before.split(" ")[3:5])
        directory = _below(Path(mount_point), root, paths[files.version])
        here = Hierarchy(files, Path(mount_point), directory or Path(mount_point))
        before_it = found.get(files.version)
        # The same hierarchy may be mounted a second time with a smaller part visible.
        if before_it is None or here.depth > before_it.depth:
            found[files.version] = here
    return list(found.values())


def _read_lines(file: Path) -> list[str]:
    """Return the lines of a file that has paths in it, which may be any bytes but a line feed.

    A path that is not in the encoding of file names is decoded as os.fsdecode does it, so that
    os.fsencode gives the same bytes back. str.splitlines() would also split at a carriage return
    and at some characters beyond ASCII; the kernel writes those as they are.
    """
    return os.fsdecode(file.read_bytes()).rstrip("\n").split("\n")


def _below(mount_point: Path, root: str, path: str) -> Path | None:
    """Return the directory of the cgroup `path`, if the cgroup `root` is mounted at `mount_point`.

    Return None if the mount doesn't show it: the process was moved, or its namespace begins
    elsewhere.
    """
    if ".." in Path(path).parts or ".." in Path(root).parts:
        return None
    try:
        directory = mount_point / Path(path).relative_to(root)
    except ValueError:
        return None
    return directory if directory.is_dir() else None


def _unescape(field: str) -> str:
    """Decode a path of the mount table, in which blanks are written in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def read_limit(file: Path) -> int:
    """Return a limit in bytes; NO_LIMIT if the file says so or doesn't exist."""
    try:
        text = file.read_text().strip()
    except OSError:
        return NO_LIMIT
    return NO_LIMIT if text == "max" else min(int(text), NO_LIMIT)


def read_words(file: Path) -> dict[str, int]:
    """Read a file of lines `name number`; return an empty dict if it can't be read."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
