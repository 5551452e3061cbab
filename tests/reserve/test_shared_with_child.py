"""Values that are held at a fork: while the child lives, the kernel can take no page of theirs.

So they are not part of the reserve, which would look full and hold nothing that can be had. On the
sentinel rung offering them would even cost memory, as it writes to each page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from cgroup_support import in_cgroup
from support import MIB

pytestmark = pytest.mark.timeout(120)

OFFERING_RUNGS = ("refault", "sentinel")

FORKED = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")   # from 3.12 on, that forking with threads may end badly
import numpy as np, vrange
from vrange import _core

def anonymous_kib():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))

cache = vrange.VolatileCache(hot_bytes=0)
COUNT, SIZE = 512, 64 << 10
for n in range(COUNT):
    cache[n] = np.full(SIZE // 8, n)
held = [cache[n] for n in range(COUNT // 2)]
child = os.fork()
if child == 0:
    signal.alarm(60)
    signal.pause()
del held

def offered():
    _core.lib.vrange_reserve_offer(COUNT * SIZE)
    return sum(account.offered_bytes for account in vrange.stats().accounts) // SIZE

def let_go():
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    time.sleep(0.05)   # the page tables are not read before each offer
"""


def run(code: str, rung: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FORKED + code],
        env={**os.environ, "VRANGE_RUNG": rung},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("rung", OFFERING_RUNGS)
def test_what_a_child_shares_is_not_offered_until_the_child_ends(rung: str) -> None:
    code = "print(offered()); let_go(); print(offered())"
    while_shared, afterwards = map(int, run(code, rung).split())
    assert 0 < while_shared <= 256
    assert afterwards == 512


@pytest.mark.parametrize("rung", OFFERING_RUNGS)
def test_offering_copies_no_page_of_a_child(rung: str) -> None:
    code = "before = anonymous_kib(); offered(); print(anonymous_kib() - before); let_go()"
    assert int(run(code, rung)) < 4096  # 16 MiB are shared


@pytest.mark.parametrize("rung", OFFERING_RUNGS)
def test_the_values_are_there_all_the_same(rung: str) -> None:
    code = """
offered()
assert all((cache[n] == n).all() for n in range(COUNT))
let_go()
offered()
assert all((cache[n] == n).all() for n in range(COUNT))
"""
    run(code, rung)


@pytest.mark.memory_cgroup
@pytest.mark.parametrize("rung", OFFERING_RUNGS)
def test_a_burst_takes_what_is_not_shared(rung: str) -> None:
    """While the reserve was full of shared pages, such a burst killed or emptied the cache."""
    code = f"""
import os
os.environ["VRANGE_RUNG"] = {rung!r}
import ctypes, mmap, signal, warnings
warnings.simplefilter("ignore")
import numpy as np, vrange
cache = vrange.VolatileCache(hot_bytes=0)
for n in range(4096):
    cache[n] = np.full(2048, n)
held = [cache[n] for n in range(2560)]
child = os.fork()
if child == 0:
    ctypes.CDLL(None).prctl(1, 9)   # PR_SET_PDEATHSIG
    signal.pause()
del held
taken = mmap.mmap(-1, 56 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
np.frombuffer(taken, np.uint8)[::4096] = 1
print("left", sum(n in cache for n in range(4096)))
os.kill(child, signal.SIGKILL)
"""
    left = re.search(r"left (\d+)", in_cgroup(code, limit=128 * MIB))
    assert left
    assert int(left[1]) > 1600
