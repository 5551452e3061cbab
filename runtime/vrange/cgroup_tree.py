"""Where this process is among the cgroups, and what their files are called.

The kernel says which cgroup a process is in as a path, and the mount table says which part of which
hierarchy is to be seen where: a container sees its own cgroup as the root, a hybrid machine has
v1's memory controller beside a v2 without one, and a process may have been moved to where its
mounts don't reach. What can't be placed is taken for the mount's root, whose limits hold for it too
or are none.
"""

from __future__ import annotations

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
    """The files of one version. A limit is the least of `limits`."""

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
# Nobody is killed at memory.high, but whoever is over it is slowed until he is under it again, and
# the kernel takes what was offered: it is where a cache has to give way.
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
    """Where this process is in one mounted hierarchy: `directory`, at or below `mount_point`."""

    files: Files
    mount_point: Path
    directory: Path

    @property
    def depth(self) -> int:
        """How many cgroups of the way up are in sight above this process's own."""
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
        mounts = (proc_self / "mountinfo").read_text().splitlines()
        cgroups = (proc_self / "cgroup").read_text().splitlines()
    except OSError:
        return []  # not Linux, or /proc isn't mounted
    paths: dict[Version, str] = {}
    for line in cgroups:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            paths["cgroup v2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup v1"] = path

    found: dict[Version, Hierarchy] = {}
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
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
        # The same hierarchy may be mounted again, with less of it in sight.
        if before_it is None or here.depth > before_it.depth:
            found[files.version] = here
    return list(found.values())


def _below(mount_point: Path, root: str, path: str) -> Path | None:
    """Find the directory of the cgroup `path`, the cgroup `root` being mounted at `mount_point`.

    None where the mount doesn't show it: the process was moved, or its namespace begins elsewhere.
    """
    if ".." in Path(path).parts or ".." in Path(root).parts:
        return None
    try:
        directory = mount_point / Path(path).relative_to(root)
    except ValueError:
        return None
    return directory if directory.is_dir() else None


def _unescape(field: str) -> str:
    """Read a path of the mount table, where blanks are written in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def read_limit(file: Path) -> int:
    """Read a limit in bytes; NO_LIMIT where the file says so or isn't there."""
    try:
        text = file.read_text().strip()
    except OSError:
        return NO_LIMIT
    return NO_LIMIT if text == "max" else min(int(text), NO_LIMIT)


def read_words(file: Path) -> dict[str, int]:
    """Read a file of lines `name number`; empty where it can't be read."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
