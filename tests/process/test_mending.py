"""What a rung needs is taken away at run time: it is had again, or a lower rung is taken.

tests/native/test_mend.c closes the userfaultfd while threads pin, fill and touch.
"""

from __future__ import annotations

import textwrap

import pytest
from ranges.test_capabilities import (
    FORBID,
    MACHINE,
    MADVISE,
    PROCESS_MADVISE,
    USERFAULTFD,
    knows_syscalls,
)
from support import EAGER, RUNG, python, succeeds

CLONE = {"x86_64": 56, "aarch64": 220}.get(MACHINE)
MINCORE = {"x86_64": 27, "aarch64": 232}.get(MACHINE)
MREMAP = {"x86_64": 25, "aarch64": 216}.get(MACHINE)

on_refault = pytest.mark.skipif(RUNG != "refault", reason="there is no userfaultfd on this rung")

PRELUDE = (
    """
import os, time
import numpy as np, vrange

vrange.set_reserve("64MiB")
N = 100
cache = vrange.VolatileCache(hot_bytes=0)
value = lambda n: np.full(20_000, n + 1)   # never zero: lost content reads as zeros
def use(first=0):
    for n in range(first, first + N):
        assert (cache.get_or_compute(n, lambda: value(n)) == n + 1).all(), n
    time.sleep(0.05)
"""
    + FORBID
)


def code(text: str) -> str:
    return PRELUDE + textwrap.dedent(text)


@on_refault
@knows_syscalls
def test_a_raw_clone_still_has_the_closed_userfaultfd() -> None:
    """What is registered stays so, and can't be registered anew: missing pages fault for ever."""
    text = f"""
    use()
    libc = ctypes.CDLL(None)
    pid = libc.syscall({CLONE}, 17, 0, 0, 0, 0)
    if pid == 0:
        libc.sleep(60)
        libc._exit(0)
    os.closerange(3, 4096)
    for turn in range(3):
        use(); use(turn * N)
        cache.discard()
    kept = [cache.get_or_compute(n, lambda: value(n)) for n in range(20)]
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    for turn in range(3):
        use(); use(turn * N)
        cache.discard()
    assert all((v == n + 1).all() for n, v in enumerate(kept))
    """
    done = python(code(text))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("vrange: ") <= 1, done.stderr


@on_refault
@knows_syscalls
def test_a_sandbox_without_userfaultfd_and_then_it_is_closed() -> None:
    text = f"""
    use()
    kept = [cache.get_or_compute(n, lambda: value(n)) for n in range(20)]
    forbid([{USERFAULTFD}])
    os.closerange(3, 4096)
    for turn in range(3):
        use(); use(turn * N)
    assert all((v == n + 1).all() for n, v in enumerate(kept))
    del kept
    before = cache.info().hits
    use()
    assert cache.info().hits - before == N, "nothing was taken by anybody"
    print(vrange.capabilities().rung)
    """
    done = python(code(text), environment={"VRANGE_RUNG": ""})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "sentinel"
    assert done.stderr.count("vrange: ") == 1, done.stderr
    assert 'continues on the rung "sentinel"' in done.stderr


@on_refault
@knows_syscalls
def test_arrays_without_a_descriptor_end_nobody_who_leaves_them_alone() -> None:
    text = f"""
    array = vrange.VolatileArray(1 << 20, "u1", fill=vrange.fills.pattern([1, 2]))
    held = array.pin(slice(0, 1 << 16)).__enter__()
    use()
    forbid([{USERFAULTFD}])
    os.closerange(3, 4096)
    use()
    assert (held[::2] == 1).all() and (held[1::2] == 2).all()
    try:
        array.pin().__enter__()
        print("pinned")
    except (vrange.VrangeError, OSError) as error:
        print("refused")
    """
    done = python(code(text), environment={"VRANGE_RUNG": ""})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "refused"
    assert "volatile arrays can't be read any more" in done.stderr


@pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered")
@knows_syscalls
def test_a_sandbox_without_mincore_loses_nothing() -> None:
    text = f"""
    forbid([{MINCORE}])
    for turn in range(5):
        use()
    info = cache.info()
    assert info.hits >= 3 * N and not info.purged, info
    """
    succeeds(code(text))


@knows_syscalls
@pytest.mark.parametrize("late", [False, True])
def test_a_sandbox_without_madvise(late: bool) -> None:
    text = f"""
    if {late}: use()
    forbid([{MADVISE}, {PROCESS_MADVISE}])
    for turn in range(3):
        use(); use(turn * N)
        cache.discard()
        with vrange.Arena("1MiB") as arena:
            r = arena.allocate(8192)
            r.buffer[:] = b"x" * 8192
            r.mark_volatile()
            assert r.pin() or bytes(r.buffer) == b"x" * 8192
    resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
    cache.discard()
    low = resident()
    use()
    assert resident() - low > 10 << 20
    cache.discard()
    assert resident() - low < 8 << 20, "what is discarded goes without madvise, too"
    print(vrange.capabilities().rung)
    """
    done = python(code(text), environment=None if late else {"VRANGE_RUNG": ""})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("eager", RUNG)  # a sandbox is the thread's that made it
    assert done.stderr.count("vrange: ") <= 1, done.stderr


@knows_syscalls
@pytest.mark.parametrize("segment", ["a file", "memory"])
def test_a_child_in_a_sandbox_without_mremap(segment: str) -> None:
    text = f"""
    use()
    forbid([{MREMAP}])
    mine = cache.info().misses
    pid = os.fork()
    if pid == 0:
        try:
            use(1000)
            assert cache.info().misses >= N
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert cache.info().misses == mine, "a child counts for itself"
    """
    environment = {"PYTHONWARNINGS": "ignore"}
    if segment == "memory":
        environment["VRANGE_RUNTIME_DIR"] = "/proc/none"
    succeeds(code(text), environment=environment)
