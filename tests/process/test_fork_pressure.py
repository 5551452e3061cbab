"""Children of a fork where memory is short: in a cgroup, which kills who is over its limit.

A child shares no page of what is volatile, so that the parent's stays the kernel's to take, and the
child looks after its own. What it reads of its parent's it does not keep.
"""

from __future__ import annotations

from textwrap import dedent

import pytest
from support import succeeds

pytestmark = pytest.mark.memory_cgroup

PRELUDE = """
import os, signal, sys, time, traceback, warnings
warnings.simplefilter("ignore")   # from 3.12 on, that forking with threads may end badly
import numpy as np, vrange
from vrange.cli.memory_cgroup import MemoryCgroup
MIB = 1 << 20
LIMIT = 192 * MIB
SIZE = 256 << 10
def value(n): return np.full(SIZE // 8, n, "u8")

def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid

def in_cgroup(work):
    '''What `work` does there in a process that was not one of a cache's before.'''
    with MemoryCgroup(LIMIT) as group:
        def inside():
            group.add(os.getpid())
            work()
        status = os.waitstatus_to_exitcode(os.waitpid(in_child(inside), 0)[1])
        assert (status, group.oom_kills) == (0, 0)

def fill(cache, mib):
    for n in range(mib * 4):
        cache.get_or_compute(n, lambda: value(n))

def take(mib):
    '''Memory of the program's own, as fast as it can.'''
    return np.ones(mib * MIB, "u1")
"""


@pytest.mark.parametrize("how", ["in one step", "by asking for more"])
def test_a_parent_survives_a_burst_while_a_child_sleeps(how: str) -> None:
    code = """
    def work():
        cache = vrange.VolatileCache(hot_bytes=0)
        held = [cache.get_or_compute(n, lambda: value(n)) for n in range(1000, 1010)]
        fill(cache, 250)
        child = in_child(lambda: time.sleep(60))
        time.sleep(0.2)
        if sys.argv[1] == "in one step":
            taken = take(100)
        else:
            for _ in range(3): fill(cache, 300)
        assert all((one == 1000 + n).all() for n, one in enumerate(held))
        found = ((n, cache.get(n)) for n in range(1200))
        assert all(one is None or (one == n).all() for n, one in found)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    in_cgroup(work)
    """
    succeeds(PRELUDE + dedent(code), how, timeout=120)


def test_a_child_that_only_asks_survives_a_burst_of_its_own() -> None:
    code = """
    def work():
        @vrange.cached(hot_bytes=0)
        def tile(n): return value(n)
        def ask():
            for n in range(90 * 4): assert (tile(n) == n).all()
        def child():
            ask(), ask()
            time.sleep(0.2)
            taken = [take(1) for _ in range(100)]
            ask()
        ask()
        for _ in range(2):
            assert os.waitpid(in_child(child), 0)[1] == 0
        ask()
    in_cgroup(work)
    """
    succeeds(PRELUDE + dedent(code), timeout=120)


def test_children_have_no_copy_of_what_was_cached() -> None:
    code = """
    def work():
        cache = vrange.VolatileCache(hot_bytes=0)
        fill(cache, 100)
        def child():
            # Each key is looked for; a pin of inherited pages would make a copy of them.
            found = sum(np.all(cache.get(n, -1) == n) for n in range(400))
            assert found > 300, found
            with open("/proc/self/smaps_rollup") as file:
                kib = {l.split()[0]: int(l.split()[1]) for l in file if l.endswith("kB\\n")}
            assert kib["Private_Dirty:"] + kib["Shared_Dirty:"] < 90_000, kib
            time.sleep(1)
        children = [in_child(child) for _ in range(4)]
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
    in_cgroup(work)
    """
    succeeds(PRELUDE + dedent(code), timeout=120)
