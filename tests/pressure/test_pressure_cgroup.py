"""A watcher in real memory cgroups: usage that rises and falls, limits that move."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vrange.cli.memory_cgroup import MemoryCgroup

pytestmark = pytest.mark.memory_cgroup

MIB = 1 << 20
PRELUDE = """
import os, sys, queue
sys.stdin.readline()
import vrange.pressure
levels = queue.Queue()
watcher = vrange.pressure.watch(
    interval=0.005, min_interval=0, stalled=1,
    on_level=lambda change: levels.put((change.level, os.path.basename(change.source))))
def fill(mebibytes):
    block = bytearray(mebibytes << 20)
    block[::4096] = b"x" * len(block[::4096])
    return block
print(watcher.info().source, flush=True)
held = []
for line in sys.stdin:
    what, _, size = line.strip().partition(" ")
    if what == "fill":
        held.append(fill(int(size)))
    elif what == "free":
        held.clear()
    print(*levels.get(timeout=20), flush=True)
watcher.close()
"""


class Child:
    """A process with a watcher, that fills memory as it is told and tells the level it hears."""

    def __init__(self, cgroup: MemoryCgroup) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PRELUDE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        cgroup.add(self.process.pid)
        self.source = self.say("go")

    def say(self, line: str) -> str:
        self.stdin.write(line + "\n")
        self.stdin.flush()
        return self.stdout.readline().strip()


@contextmanager
def child_in(cgroup: MemoryCgroup) -> Iterator[Child]:
    child = Child(cgroup)
    try:
        yield child
        child.stdin.close()
        assert child.process.wait(20) == 0
    finally:
        child.process.kill()
        child.process.wait()
        child.stdout.close()
        child.stdin.close()


def test_the_level_follows_memory_that_is_really_filled() -> None:
    with MemoryCgroup(512 * MIB) as cgroup, child_in(cgroup) as child:
        name = Path(cgroup.path).name
        assert child.source == cgroup.path
        assert child.say("fill 445") == f"elevated {name}"
        assert child.say("fill 40") == f"critical {name}"
        assert cgroup.usage_bytes > 0.95 * 512 * MIB
        assert child.say("free") == f"normal {name}"
        assert cgroup.oom_kills == 0


def test_a_limit_that_is_lowered_and_raised() -> None:
    with MemoryCgroup(512 * MIB) as cgroup, child_in(cgroup) as child:
        name = Path(cgroup.path).name
        assert child.say("fill 430") == f"elevated {name}"
        cgroup.limit_bytes = 1024 * MIB
        assert child.say("limit") == f"normal {name}"
        cgroup.limit_bytes = 460 * MIB
        assert child.say("limit") == f"critical {name}"


def test_the_tighter_limit_of_a_cgroup_around_it() -> None:
    with MemoryCgroup(192 * MIB) as outer:
        inner = Path(outer.path) / "inner"
        inner.mkdir()
        try:
            with child_in(outer) as child:
                (inner / "cgroup.procs").write_text(str(child.process.pid))
                assert child.say("fill 166") == f"elevated {Path(outer.path).name}"
        finally:
            inner.rmdir()


def test_a_process_that_is_moved_hears_of_its_new_limit() -> None:
    with (
        MemoryCgroup(1024 * MIB) as first,
        MemoryCgroup(96 * MIB) as second,
        child_in(first) as child,
    ):
        second.add(child.process.pid)
        # What it used before stays counted where it was (v1) or not (v2): so it fills anew.
        assert child.say("fill 84") in {
            f"{level} {Path(second.path).name}" for level in ("elevated", "critical")
        }
        child.stdin.close()
        child.process.wait(20)


def test_file_pages_are_not_pressure(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as out:
        for _ in range(160):
            out.write(bytes(MIB))
        out.flush()
        os.fsync(out.fileno())
    code = """
    import os, sys, time
    sys.stdin.readline()
    import vrange.pressure
    told = []
    fd = os.open(sys.argv[1], os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with vrange.pressure.watch(interval=0.002, stalled=1, on_level=told.append) as watcher:
        while os.read(fd, 1 << 20):
            pass
        info = watcher.info()
        polls = info.polls
        while watcher.info().polls < polls + 5:
            time.sleep(0.001)
        info = watcher.info()
        print(info.usage_bytes > 0.9 * info.limit_bytes, info.level, len(told))
    """
    with MemoryCgroup(96 * MIB) as cgroup:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        cgroup.add(child.pid)
        told, _ = child.communicate("go\n", timeout=60)
        assert told == "True normal 0\n"
