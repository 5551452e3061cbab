"""A process among cgroups that are plain files, so that a test says how much is in use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from support import wait_until

from vrange.pressure import Watcher

# What other tests left idle is little beside it; a limit of all the machine has would be none.
LIMIT = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
V1_NONE = 9223372036854771712


def put(file: Path, text: object) -> None:
    """As the kernel does it: the open file has another content at the next look, never none."""
    padded = str(text) if "\n" in str(text) else f"{text:<24}\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(descriptor, padded.encode(), 0)
    os.close(descriptor)


class FakeCgroup:
    """One directory with the files of its version."""

    def __init__(self, directory: Path, version: int, limit: int | None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.version = directory, version
        self.limit_bytes = limit
        if version == 1:
            put(self.directory / "memory.stat", "total_inactive_file 0\n")
        else:
            put(self.directory / "memory.high", "max")
        self.set_limit(limit)
        self.use(0)

    def set_limit(self, limit: int | None) -> None:
        self.limit_bytes = limit
        if self.version == 1:
            put(self.directory / "memory.limit_in_bytes", V1_NONE if limit is None else limit)
        else:
            put(self.directory / "memory.max", "max" if limit is None else limit)

    def use(self, share: float, *, of: int = LIMIT, inactive: float = 0) -> None:
        """So much of the limit is in use, of which a part is clean pages of files."""
        prefix = "total_" if self.version == 1 else ""
        stat = f"anon 1\n{prefix}inactive_file {int(of * inactive):<20}\n"
        put(self.directory / "memory.stat", stat)
        usage = "memory.usage_in_bytes" if self.version == 1 else "memory.current"
        put(self.directory / usage, int(of * share))

    def stall(self, microseconds: int) -> None:
        text = f"some avg10=0.00 avg60=0.00 avg300=0.00 total={microseconds:<12}\n"
        put(self.directory / "memory.pressure", text)


class FakeProcess:
    """Its /proc/self, and the hierarchy it is in."""

    def __init__(self, tmp: Path, version: int) -> None:
        self.version, self.root = version, tmp / "mnt"
        self.proc = tmp / "proc"
        self.root.mkdir()
        self.proc.mkdir()
        kind, options = ("cgroup", "rw,memory") if version == 1 else ("cgroup2", "rw")
        mount = f"35 31 0:32 / {self.root} rw - {kind} cgroup {options}\n"
        (self.proc / "mountinfo").write_text(mount)
        self.move("/job")

    def move(self, path: str) -> None:
        line = f"4:memory:{path}" if self.version == 1 else f"0::{path}"
        put(self.proc / "cgroup", f"{line}\n")

    def cgroup(self, path: str, limit: int | None = LIMIT) -> FakeCgroup:
        return FakeCgroup(self.root / path, self.version, limit)


def reaches(watcher: Watcher, level: str) -> None:
    wait_until(lambda: watcher.level == level, f"the level is {watcher.level}, not {level}")


def looks_again(watcher: Watcher, times: int = 3) -> None:
    """Some looks later: whatever was to be seen has been."""
    polls = watcher.info().polls
    wait_until(lambda: watcher.info().polls >= polls + times, "it does not look")


def stays(watcher: Watcher, level: str) -> None:
    looks_again(watcher)
    assert watcher.level == level


def acts(done: Callable[[], object], what: str) -> None:
    wait_until(done, what)
