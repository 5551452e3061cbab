"""Limits, read from trees laid out as kernels and containers lay them out, and the real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from support import succeeds

from vrange._cgroup.limits import memory_limit, memory_usage
from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
V1_NONE = 9223372036854771712
MACHINE = psutil.virtual_memory().total


@dataclass
class Tree:
    """A /proc/self and the hierarchies it tells of."""

    tmp: Path
    cgroup: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)

    def mount(self, kind: str, path: str, *, root: str = "/", at: str = "mnt") -> Path:
        """Mounts a hierarchy, and says that the process is in `path` of it."""
        point = self.tmp / at
        point.mkdir(exist_ok=True)
        options = "rw" if kind == "cgroup2" else "rw,memory"
        escaped = str(point)
        for character in "\\ \n\t":
            escaped = escaped.replace(character, f"\\{ord(character):03o}")
        self.mounts.append(f"35 31 0:32 {root} {escaped} rw,relatime - {kind} cgroup {options}")
        self.cgroup.append(f"0::{path}" if kind == "cgroup2" else f"4:memory:{path}")
        return point

    @property
    def proc_self(self) -> Path:
        proc = self.tmp / "proc"
        proc.mkdir(exist_ok=True)
        root = ["22 27 0:21 / /proc rw,relatime - proc proc rw"]
        for name, lines in (
            ("mountinfo", [*root, *self.mounts]),
            ("cgroup", ["9:name=systemd:/", *self.cgroup]),
        ):
            (proc / name).write_bytes(os.fsencode("\n".join(lines) + "\n"))
        return proc


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def v1(directory: Path, limit: int, *, above: int | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (directory / "memory.usage_in_bytes").write_text("4096\n")
    above = limit if above is None else above
    (directory / "memory.stat").write_text(f"cache 0\nhierarchical_memory_limit {above}\n")
    return directory


def v2(directory: Path, limit: int | str, *, high: int | str = "max") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.max").write_text(f"{limit}\n")
    (directory / "memory.high").write_text(f"{high}\n")
    (directory / "memory.current").write_text("8192\n")
    return directory


def test_v1_limit_of_the_own_cgroup(tree: Tree) -> None:
    point = tree.mount("cgroup", "/job")
    v1(point, V1_NONE)
    own = v1(point / "job", 300 * MIB)
    limit = memory_limit(proc_self=tree.proc_self)
    assert limit.limit_bytes == 300 * MIB
    assert limit.source == "cgroup v1"
    assert limit.path == str(own)
    assert limit.usage_path == str(own / "memory.usage_in_bytes")


def test_nothing_is_above_the_root_of_all(tree: Tree) -> None:
    point = tree.mount("cgroup", "/job")
    v1(point, V1_NONE, above=200 * MIB)
    v1(point / "job", 300 * MIB, above=200 * MIB)
    assert memory_limit(proc_self=tree.proc_self).limit_bytes == 200 * MIB
    (point / "cgroup.sane_behavior").write_text("0\n")
    assert memory_limit(proc_self=tree.proc_self).limit_bytes == 300 * MIB


def test_v2_limit_of_the_own_cgroup(tree: Tree) -> None:
    point = tree.mount("cgroup2", "/a.slice/b.scope")
    v2(point / "a.slice", "max")
    own = v2(point / "a.slice" / "b.scope", 300 * MIB)
    limit = memory_limit(proc_self=tree.proc_self)
    assert limit.limit_bytes == 300 * MIB
    assert limit.source == "cgroup v2"
    assert limit.usage_path == str(own / "memory.current")


@pytest.mark.parametrize(("kind", "make"), [("cgroup", v1), ("cgroup2", v2)])
def test_an_ancestor_may_be_tighter(tree: Tree, kind: str, make: object) -> None:
    assert callable(make)
    point = tree.mount(kind, "/outer/middle/inner")
    outer = make(point / "outer", 200 * MIB)
    make(point / "outer" / "middle", 250 * MIB)
    make(point / "outer" / "middle" / "inner", 300 * MIB)
    limit = memory_limit(proc_self=tree.proc_self)
    assert (limit.limit_bytes, limit.path) == (200 * MIB, str(outer))


def test_of_equal_limits_the_outer_one_counts(tree: Tree) -> None:
    point = tree.mount("cgroup2", "/outer/inner")
    outer = v2(point / "outer", 200 * MIB)
    v2(point / "outer" / "inner", 200 * MIB)
    assert memory_limit(proc_self=tree.proc_self).path == str(outer)


def test_memory_high_is_a_limit(tree: Tree) -> None:
    point = tree.mount("cgroup2", "/job")
    v2(point / "job", 300 * MIB, high=100 * MIB)
    assert memory_limit(proc_self=tree.proc_self).limit_bytes == 100 * MIB


@pytest.mark.parametrize("text", [V1_NONE, (1 << 63) - 1, MACHINE, MACHINE + 4096])
def test_v1_no_limit_is_the_machine(tree: Tree, text: int) -> None:
    point = tree.mount("cgroup", "/job")
    v1(point / "job", text)
    limit = memory_limit(proc_self=tree.proc_self)
    assert (limit.limit_bytes, limit.source) == (MACHINE, "machine")
    assert limit.usage_path is None
    assert limit.path is None


def test_v2_no_limit_is_the_machine(tree: Tree) -> None:
    point = tree.mount("cgroup2", "/job")
    v2(point / "job", "max")
    assert memory_limit(proc_self=tree.proc_self).source == "machine"


def test_hybrid_with_the_controller_in_v1(tree: Tree) -> None:
    """As systemd mounts it: v2 for its own book-keeping, the memory controller in v1."""
    unified = tree.mount("cgroup2", "/session", at="unified")
    (unified / "session").mkdir()
    v1(tree.mount("cgroup", "/job", at="memory") / "job", 100 * MIB)
    limit = memory_limit(proc_self=tree.proc_self)
    assert (limit.limit_bytes, limit.source) == (100 * MIB, "cgroup v1")


def test_container_that_sees_its_own_cgroup_as_the_mount_root(tree: Tree) -> None:
    point = tree.mount("cgroup", "/docker/0123", root="/docker/0123")
    v1(point, 100 * MIB)
    limit = memory_limit(proc_self=tree.proc_self)
    assert (limit.limit_bytes, limit.path) == (100 * MIB, str(point))


def test_container_with_a_cgroup_namespace(tree: Tree) -> None:
    point = tree.mount("cgroup2", "/")
    v2(point, 100 * MIB)
    assert memory_limit(proc_self=tree.proc_self).path == str(point)


@pytest.mark.parametrize("path", ["/../elsewhere", "/gone", "/docker/0123"])
def test_process_outside_of_what_is_mounted(tree: Tree, path: str) -> None:
    point = tree.mount("cgroup2", path, root="/docker/4567" if "docker" in path else "/")
    v2(point, 100 * MIB)
    v2(tree.tmp / "elsewhere", 1 * MIB)
    assert memory_limit(proc_self=tree.proc_self).path == str(point)


def test_v1_limit_above_what_is_mounted(tree: Tree) -> None:
    """A pod's limit over a container's: out of sight, but v1 tells it all the same."""
    point = tree.mount("cgroup", "/pod/container", root="/pod/container")
    v1(point, V1_NONE, above=100 * MIB)
    limit = memory_limit(proc_self=tree.proc_self)
    assert (limit.limit_bytes, limit.path) == (100 * MIB, str(point))


def test_of_two_mounts_the_one_that_shows_more_counts(tree: Tree) -> None:
    wide = tree.mount("cgroup2", "/outer/inner", at="wide")
    narrow = tree.mount("cgroup2", "/outer/inner", root="/outer/inner", at="narrow")
    v2(wide / "outer", 100 * MIB)
    v2(wide / "outer" / "inner", 200 * MIB)
    v2(narrow, 200 * MIB)
    assert memory_limit(proc_self=tree.proc_self).limit_bytes == 100 * MIB


def test_mount_point_with_a_blank(tree: Tree) -> None:
    v1(tree.mount("cgroup", "/job", at="a b") / "job", 100 * MIB)
    assert memory_limit(proc_self=tree.proc_self).limit_bytes == 100 * MIB


@pytest.mark.parametrize("name", [b"caf\xe9", b"Icon\r", "line\u2028end".encode(), b"\xc2\x85"])
def test_mount_point_and_cgroup_of_any_bytes(tree: Tree, name: bytes) -> None:
    odd = os.fsdecode(name)
    tree.mounts.append(f"36 31 0:33 / /media/{odd} rw,relatime - tmpfs none rw")
    v1(tree.mount("cgroup", f"/{odd}", at=f"at {odd}") / odd, 100 * MIB)
    assert memory_limit(proc_self=tree.proc_self).limit_bytes == 100 * MIB


def test_an_inner_limit_does_not_limit_the_cgroup_around_it(tree: Tree) -> None:
    """v1 reports the tightest of all limits in each cgroup: the inner one's is not the outer's."""
    point = tree.mount("cgroup", "/pod/container", root="/pod")
    v1(point, V1_NONE, above=V1_NONE)
    own = v1(point / "container", 100 * MIB, above=100 * MIB)
    assert memory_limit(proc_self=tree.proc_self).path == str(own)


@pytest.mark.parametrize("kind", ["cgroup", "cgroup2"])
def test_paths_that_are_not_text(tree: Tree, kind: str) -> None:
    name = os.fsdecode(b"caf\xe9 \\ \n")
    (v1 if kind == "cgroup" else v2)(tree.mount(kind, "/job", at=name) / "job", 100 * MIB)
    limit = memory_limit(proc_self=tree.proc_self)
    assert limit.limit_bytes == 100 * MIB
    assert limit.path == str(tree.tmp / name / "job")


def test_a_cgroup_path_that_is_not_text(tree: Tree) -> None:
    name = os.fsdecode(b"caf\xe9")
    v2(tree.mount("cgroup2", f"/{name}") / name, 100 * MIB)
    limit = memory_limit(proc_self=tree.proc_self)
    assert limit.path is not None
    assert limit.path.endswith(name)


def test_a_long_mount_table(tree: Tree) -> None:
    other = "36 31 0:33 / /var/lib/containers/{:05}/rootfs rw - overlay overlay rw,lowerdir=/x"
    tree.mounts += [other.format(n) for n in range(3000)]
    v2(tree.mount("cgroup2", "/job") / "job", 100 * MIB)
    assert memory_limit(proc_self=tree.proc_self).limit_bytes == 100 * MIB


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_process(name: str) -> None:
    code = f"""
    import resource
    from vrange._cgroup.limits import memory_limit, memory_usage
    resource.setrlimit(resource.{name}, (4 << 30, 4 << 30))
    limit = memory_limit()
    print(limit.source, limit.limit_bytes >> 20, 0 < memory_usage() < 4 << 30)
    """
    assert succeeds(code) == f"{name} 4096 True\n"


def test_no_proc_is_the_machine(tmp_path: Path) -> None:
    assert memory_limit(proc_self=tmp_path / "none").source == "machine"


def test_this_process() -> None:
    limit = memory_limit()
    assert 0 < limit.limit_bytes <= MACHINE
    assert 0 < memory_usage() <= MACHINE


# ---- cgroups made -----------------------------------------------------------------------------


def controllers(directory: Path, *, handed_down: str = "", has: str = "memory pids") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "cgroup.controllers").write_text(f"{has}\n")
    (directory / "cgroup.subtree_control").write_text(f"{handed_down}\n")
    (directory / "cgroup.procs").write_text("")
    return directory


def test_refused_without_a_memory_controller(tree: Tree) -> None:
    controllers(tree.mount("cgroup2", "/"), has="cpu pids")
    with pytest.raises(OSError, match="has no memory controller"):
        MemoryCgroup(MIB, proc_self=tree.proc_self)


def test_refused_without_a_hierarchy(tree: Tree) -> None:
    with pytest.raises(OSError, match="no hierarchy with a memory controller is mounted"):
        MemoryCgroup(MIB, proc_self=tree.proc_self)


def test_refusal_leaves_nothing_behind(tree: Tree) -> None:
    """The fake kernel puts no files into a new directory, so no limit can be set."""
    point = controllers(tree.mount("cgroup2", "/"), handed_down="memory")
    with pytest.raises(OSError, match="No such file"):
        MemoryCgroup(MIB, proc_self=tree.proc_self)
    assert not [entry for entry in point.iterdir() if entry.is_dir()]


def test_v2_hands_the_controller_down_where_it_can(tree: Tree) -> None:
    point = controllers(tree.mount("cgroup2", "/"))
    with pytest.raises(OSError, match="No such file"):
        MemoryCgroup(MIB, proc_self=tree.proc_self)
    assert (point / "cgroup.subtree_control").read_text().startswith("+memory")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_more_than_nothing(limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit_bytes is {limit}"):
        MemoryCgroup(limit)


@pytest.fixture
def needs_cgroup() -> None:
    reason = MemoryCgroup.unavailable()
    if reason is not None:
        pytest.skip(reason)


def child_in(cgroup: MemoryCgroup, code: str) -> subprocess.Popen[str]:
    """A Python process that runs `code` once it is in the cgroup."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.readline()\n" + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    cgroup.add(child.pid)
    child.stdin.write("go\n")
    child.stdin.flush()
    return child


@pytest.mark.memory_cgroup
@pytest.mark.usefixtures("needs_cgroup")
class TestRealCgroup:
    def test_who_is_over_the_limit_is_killed_and_counted(self) -> None:
        with MemoryCgroup(32 * MIB) as cgroup:
            with child_in(cgroup, "b'x' * (64 << 20)") as child:
                assert child.wait() == -signal.SIGKILL
            assert cgroup.oom_kills == 1
            peak = cgroup.peak_bytes
            assert peak is None or 16 * MIB < peak <= 32 * MIB
        assert not Path(cgroup.path).exists()

    def test_who_stays_below_is_not(self) -> None:
        with MemoryCgroup(64 * MIB) as cgroup:
            with child_in(cgroup, "b'x' * (16 << 20)") as child:
                assert child.wait() == 0
            assert cgroup.oom_kills == 0

    def test_usage_and_limit_are_seen_from_inside(self) -> None:
        code = (
            "from vrange._cgroup.limits import *\n"
            "print(memory_limit().limit_bytes, memory_limit().path, memory_usage())"
        )
        with MemoryCgroup(128 * MIB) as cgroup:
            with child_in(cgroup, code) as child:
                out, _ = child.communicate()
            limit, path, usage = out.split()
            assert (int(limit), path) == (128 * MIB, cgroup.path)
            assert 0 < int(usage) <= 128 * MIB

    def test_the_limit_can_be_raised_and_lowered(self) -> None:
        with MemoryCgroup(64 * MIB) as cgroup:
            for mebibytes in (128, 32, 33):
                cgroup.limit_bytes = mebibytes * MIB
                assert cgroup.limit_bytes == mebibytes * MIB

    def test_closing_kills_and_moves_nobody(self) -> None:
        cgroup = MemoryCgroup(64 * MIB)
        with child_in(cgroup, "sys.stdin.read()") as child:
            assert cgroup.pids == [child.pid]
            with pytest.raises(OSError, match=f"still holds {child.pid}"):
                cgroup.close()
            assert child.poll() is None
            assert cgroup.pids == [child.pid]
            child.kill()
        cgroup.close()
        cgroup.close()
        assert "closed" in repr(cgroup)
        assert not Path(cgroup.path).exists()

    def test_adding_nobody_is_an_error(self) -> None:
        with (
            subprocess.Popen([sys.executable, "-c", ""]) as ended,
            MemoryCgroup(64 * MIB) as cgroup,
        ):
            ended.wait()
            with pytest.raises(ProcessLookupError):
                cgroup.add(ended.pid)

    def test_repr_tells_usage_and_limit(self) -> None:
        with MemoryCgroup(64 * MIB, name="vrange-test") as cgroup:
            assert f"vrange-test-{os.getpid()}-" in repr(cgroup)
            assert f"of {64 * MIB} bytes" in repr(cgroup)
