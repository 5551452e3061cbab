"""What children read of their parent is in memory once."""

from __future__ import annotations

import textwrap

import pytest
from support import RUNG, succeeds

PRELUDE = """
import os, signal, sys, traceback
import numpy as np
from support import *
def private():
    with open("/proc/self/smaps_rollup") as file:
        kib = {l.split()[0]: int(l.split()[1]) for l in file if l.endswith("kB\\n")}
    return kib["Private_Dirty:"] << 10
"""


def test_children_that_read_everything_keep_a_small_part() -> None:
    code = """
    cache = vrange.VolatileCache()
    for n in range(100):
        cache[n] = np.full(MIB, n, "u1")
    cache._core.cool(None)   # nothing is held at the fork
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        code = 1
        try:
            before = private()
            for _ in range(8):
                for n in range(100):
                    assert (cache[n][::4096] == n).all()
            info = cache.info()
            assert info.hits == info.hot_hits + info.peer_hits and info.misses == 0
            assert info.peer_hits > 0
            assert 0 < info.hot_bytes <= 100 * MIB // 16 + MIB, info
            grown = private() - before
            assert grown < 14 * MIB, grown
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    """
    succeeds(PRELUDE + textwrap.dedent(code))


@pytest.mark.skipif(RUNG == "eager", reason="nothing is ever left to the kernel there")
def test_what_the_child_let_go_can_be_taken_from_the_parent() -> None:
    """The kernel takes no page that both have."""
    code = """
    vrange.set_reserve("1GiB", tick=0.001)
    cache = vrange.VolatileCache(hot_bytes="64MiB")
    for n in range(20):
        cache[n] = np.full(MIB, n, "u1")
        cache[n]
    held = [cache[n] for n in range(20)]
    go, gone = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        code = 1
        try:
            assert cache.info().hot_bytes > 15 * MIB
            assert all((cache[n] == n).all() for n in range(20))
            assert cache.info().peer_hits == 0 # they were inherited
            held.clear()
            cache._core.cool(None)
            assert all((cache[n] == n).all() for n in range(20))
            assert cache.info().peer_hits == 20
            cache._core.cool(None)
            os.write(gone[1], b"x")
            os.read(go[0], 1)
            assert all(cache.get(n) is None for n in range(20))
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    os.read(gone[0], 1)
    held.clear()
    cache._core.cool(None)
    for n in range(20):
        lose(handle_of(cache, n))
    assert all(cache.get(n) is None for n in range(20))
    os.write(go[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    """
    succeeds(PRELUDE + textwrap.dedent(code))
