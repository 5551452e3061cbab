"""While the process asks for memory, offered ranges are given back ahead of the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import EAGER

from vrange.cli.memory_cgroup import MemoryCgroup

pytestmark = [
    pytest.mark.memory_cgroup,
    pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered"),
]

# Prints how much is free, in KiB, each time before 512 KiB are asked for.
CHILD = """
import sys, time
sys.stdin.readline()
import vrange
from vrange._cgroup.limits import memory_limit
KIB = 1 << 10
cache = vrange.VolatileCache(hot_bytes=0)
for n in range(1000):
    cache[n] = bytes([n % 256]) * (256 * KIB)
while vrange.stats().reserve.offered_bytes < 32 << 20:
    time.sleep(0.001)
limit = memory_limit()
usage = lambda: int(open(limit.usage_path).read())
held = []
for _ in range(200):
    print((limit.limit_bytes - usage()) // KIB)
    held.append(b"x" * (512 * KIB))
    time.sleep(0.002)
assert any(cache.get(n) is not None for n in range(1000))
"""


def test_what_is_asked_for_is_free_already() -> None:
    with MemoryCgroup(320 << 20) as cgroup:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        cgroup.add(child.pid)
        told, _ = child.communicate("\n")
        assert child.returncode == 0
        assert cgroup.oom_kills == 0
    free_kib = sorted(int(line) for line in told.splitlines()[100:])
    # What the kernel frees of its own accord is less than half of that.
    assert free_kib[len(free_kib) // 2] > 384
