"""What the kernel says of cgroups may be any text: a limit that it states is found, or none."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vrange._cgroup.limits import memory_limit
from vrange._cgroup.tree import find_cgroups

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
PIECES = st.sampled_from(
    [
        *(b"0::/", b"4:memory:/job", b"4:cpu,memory:/a/b", b"::", b":", b"/..", b"\\040", b"\\777"),
        *(b"35 31 0:32 / ", b"35 31 0:32 /job ", b" rw,relatime - cgroup2 cgroup rw", b" - ", b" "),
        *(b" rw shared:1 - cgroup cgroup rw,memory", b"\n", b"\xff\x1b", b"/" * 300, b"a" * 5000),
    ]
)
NUMBERS = st.sampled_from(
    [
        *(b"max", b"", b"0", b"-1", b"9223372036854771712", b"18446744073709551616", b"9" * 40),
        *(b"\xff", b"4096\n", b" 4096", b"1e9", b"4096 4096", b"max\nmax"),
    ]
)


def text(mounts: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(PIECES | st.sampled_from(mounts) | st.binary(max_size=12), max_size=16).map(
        b"".join
    )


@given(chance=st.data())
def test_any_text_of_the_kernel(tmp_path: Path, chance: st.DataObject) -> None:
    point = tmp_path / "mnt"
    (point / "job").mkdir(parents=True, exist_ok=True)
    mounts = [os.fsencode(point), os.fsencode(point) + b"/", os.fsencode(point) + b"//"]
    proc = tmp_path / "proc"
    proc.mkdir(exist_ok=True)
    for name in ("cgroup", "mountinfo"):
        (proc / name).write_bytes(chance.draw(text(mounts)))
    found = find_cgroups(proc)
    assert len(found.hierarchies) <= 2
    for cgroup in found.cgroups:
        assert str(cgroup.directory).startswith("/")
    assert memory_limit(proc_self=proc).limit_bytes > 0


@given(
    version=st.sampled_from([1, 2]),
    limit=NUMBERS,
    inner=NUMBERS,
    high=NUMBERS,
    usage=NUMBERS,
    statistics=NUMBERS,
)
def test_any_figures_of_a_cgroup(
    tmp_path: Path,
    version: int,
    limit: bytes,
    inner: bytes,
    high: bytes,
    usage: bytes,
    statistics: bytes,
) -> None:
    """A number that does not fit is no limit: it must not be taken for a small one."""
    point = tmp_path / "mnt"
    proc = tmp_path / "proc"
    for directory, value in ((point, limit), (point / "job", inner)):
        directory.mkdir(parents=True, exist_ok=True)
        names = (
            {"memory.limit_in_bytes": value, "memory.usage_in_bytes": usage}
            if version == 1
            else {"memory.max": value, "memory.high": high, "memory.current": usage}
        )
        for old in directory.glob("memory.*"):
            old.unlink()
        for name, content in {**names, "memory.stat": b"inactive_file " + statistics}.items():
            (directory / name).write_bytes(content)
    proc.mkdir(exist_ok=True)
    kind = b"cgroup2 cgroup rw" if version == 2 else b"cgroup cgroup rw,memory"
    place = b"0::/job\n" if version == 2 else b"4:memory:/job\n"
    (proc / "cgroup").write_bytes(place)
    (proc / "mountinfo").write_bytes(
        b"35 31 0:32 / " + os.fsencode(point) + b" rw - " + kind + b"\n"
    )
    found = memory_limit(proc_self=proc).limit_bytes
    limits = (limit, inner, high) if version == 2 else (limit, inner)
    numbers = [int(digits[0]) for one in limits if (digits := re.match(rb"[0-9]+", one))]
    # One whose usage can't be read may be left out.
    assert found in {MACHINE, *(number for number in numbers if number < MACHINE)}
