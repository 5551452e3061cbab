"""What is free below the limits needs nothing offered; what is near one does, whichever it is."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support import EAGER

from vrange.cli.memory_cgroup import MemoryCgroup

pytestmark = [
    pytest.mark.memory_cgroup,
    pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered"),
]

# Each line on standard input is a turn; the child tells what is offered once it does not change.
CHILD = """
import sys, time
sys.stdin.readline()
import vrange
MIB = 1 << 20
cache = vrange.VolatileCache(hot_bytes=0)
for n in range(64):
    cache[n] = bytes([n]) * MIB
held = []

def settled():
    offered = lambda: vrange.stats().reserve.offered_bytes
    before, since = offered(), time.monotonic()
    while time.monotonic() < since + 0.3:  # limits are read ten times a second
        if offered() != before:
            before, since = offered(), time.monotonic()
        time.sleep(0.01)
    return before // MIB

def take(megabytes):
    held.append(b"x" * (megabytes * MIB))

for line in sys.stdin:
    exec(line)
    print(settled(), flush=True)
"""


class Child:
    """A process in a cgroup, with 64 MiB of volatile values and the default reserve."""

    def __init__(self, directory: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.move_to(directory)
        self._say("")

    def move_to(self, directory: str | Path) -> None:
        (Path(directory) / "cgroup.procs").write_text(str(self.process.pid))

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def offered_after(self, line: str) -> int:
        """MiB that are offered some time after the child did this."""
        self._say(line)
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def left(self) -> int:
        """How many of the 64 values are there."""
        self._say("print(sum(cache.get(n) is not None for n in range(64)), flush=True)")
        assert self.process.stdout is not None
        left = int(self.process.stdout.readline())
        self.process.stdout.readline()
        return left

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.communicate()


def test_nothing_is_offered_while_enough_is_free() -> None:
    with MemoryCgroup(256 << 20) as cgroup, Child(cgroup.path) as child:
        assert child.offered_after("pass") == 0
        assert child.offered_after("take(130)") >= 30, "an eighth of the limit, or nearly"
        assert cgroup.oom_kills == 0


def test_a_reserve_that_is_asked_for_is_always_offered() -> None:
    with MemoryCgroup(512 << 20) as cgroup, Child(cgroup.path) as child:
        assert child.offered_after("pass") == 0
        assert child.offered_after("vrange.set_reserve('24MiB')") == 24


def test_a_limit_that_is_lowered_is_noticed() -> None:
    with MemoryCgroup(512 << 20) as cgroup, Child(cgroup.path) as child:
        assert child.offered_after("pass") == 0
        cgroup.limit_bytes = 168 << 20
        assert child.offered_after("pass") > 56, "an eighth of the limit that was, or nearly"
        assert cgroup.oom_kills == 0


def test_a_limit_whose_file_was_closed_is_found_again() -> None:
    close = "import os; os.closerange(3, 4096); time.sleep(0.2)"
    with MemoryCgroup(512 << 20) as cgroup, Child(cgroup.path) as child:
        assert child.offered_after("pass") == 0
        child.offered_after(close)
        assert (
            child.offered_after("[cache.__setitem__(n, bytes([n]) * MIB) for n in range(64)]") == 0
        )
        cgroup.limit_bytes = 168 << 20
        assert child.offered_after("pass") > 56, "an eighth of the limit that was, or nearly"
        assert cgroup.oom_kills == 0


def test_the_fuller_of_two_cgroups_counts() -> None:
    with MemoryCgroup(256 << 20) as outer:
        inner = Path(outer.path) / "inner"
        inner.mkdir()
        limits = [inner / name for name in ("memory.limit_in_bytes", "memory.max")]
        limit = next((file for file in limits if file.exists()), None)
        if limit is None:
            pytest.skip(reason="this cgroup can't hand the memory controller down")
        limit.write_text(str(200 << 20))
        code = "x = b'x' * (150 << 20); print(flush=True); input()"
        with (
            Child(inner) as child,
            subprocess.Popen(
                [sys.executable, "-c", f"input(); {code}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as neighbour,
        ):
            assert neighbour.stdin is not None
            assert neighbour.stdout is not None
            assert child.offered_after("pass") == 0
            outer.add(neighbour.pid)
            neighbour.stdin.write("\n")
            neighbour.stdin.flush()
            neighbour.stdout.readline()
            assert child.offered_after("pass") >= 23, "an eighth of 200 MiB, or nearly"
            neighbour.communicate("\n")
        inner.rmdir()


def test_a_process_put_elsewhere_finds_its_limit_there() -> None:
    with (
        MemoryCgroup(512 << 20) as roomy,
        MemoryCgroup(480 << 20) as other,
        MemoryCgroup(168 << 20) as narrow,
        Child(roomy.path) as child,
    ):
        assert child.offered_after("pass") == 0
        child.move_to(other.path)
        assert child.offered_after("time.sleep(1.2)") == 0
        child.offered_after("take(100)")  # what moves with the process stays counted where it was
        child.move_to(narrow.path)
        assert child.offered_after("time.sleep(1.2); take(60)") >= 56


def sparse_file(path: Path) -> Path:
    with path.open("wb") as sparse:
        sparse.truncate(400 << 20)
    return path


def forget_pages(path: Path) -> None:
    with path.open("rb") as done:
        os.posix_fadvise(done.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_files_that_are_read_do_not_take_the_cache_along(tmp_path: Path) -> None:
    file = sparse_file(tmp_path / "log")
    read = f"file = open({str(file)!r}, 'rb', 0); [0 for _ in iter(lambda: file.read(MIB), b'')]"
    with MemoryCgroup(192 << 20) as cgroup, Child(cgroup.path) as child:
        assert child.offered_after("pass") == 0
        # After a second of rest the reserve is offered, so an offer is no loss.
        child.offered_after(read)
        assert cgroup.usage_bytes > 180 << 20, "its pages are cached, up to the limit"
        assert child.left() == 64
        # Memory that is asked for comes from those pages first, and then from the cache.
        child.offered_after("take(40)")
        assert child.left() == 64
        assert child.offered_after("take(88)") > 8
        assert 16 < child.left() < 64
        assert cgroup.oom_kills == 0
    forget_pages(file)


def test_files_that_are_read_after_a_rest_do_not_take_the_cache_along(tmp_path: Path) -> None:
    file = sparse_file(tmp_path / "log")
    read = f"""
def read(pause):
    with open({str(file)!r}, "rb", 0) as file:
        while file.read(MIB): time.sleep(pause)
read(0)
for _ in range(2):
    time.sleep(1.7)  # its reserve is offered, so that the thread can sleep
    read(0.002)
"""
    with MemoryCgroup(192 << 20) as cgroup, Child(cgroup.path) as child:
        child.offered_after(f"exec({read!r})")
        assert cgroup.usage_bytes > 180 << 20, "its pages are cached, up to the limit"
        assert child.left() == 64
    forget_pages(file)
