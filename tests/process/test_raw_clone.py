"""A child that is made by the system call alone, without fork handlers, uses vrange as others do.

tests/native/test_raw_child.c makes such children while threads hold locks.
"""

from __future__ import annotations

import pytest
from ranges.test_capabilities import MACHINE
from support import FORK_WITH_THREADS, PAGE, python

CLONE = {"x86_64": 56, "aarch64": 220}.get(MACHINE)

PRELUDE = f"""
import ctypes, os, signal
import numpy as np, vrange

N = 60
value = lambda n: np.full(20_000, n + 1)   # never zero: lost content reads as zeros
cache = vrange.VolatileCache(hot_bytes=0)
libc = ctypes.PyDLL(None)

def clone():
    return libc.syscall({CLONE}, ctypes.c_ulong(signal.SIGCHLD), None, None, None, None)

def right(n, base=0):
    found = cache.get(n)
    return found is None or bool((found == base + n + 1).all())
"""


@pytest.mark.skipif(CLONE is None or PAGE != 4096, reason="the gate is wiped with 4 KiB pages")
@pytest.mark.parametrize("takes", ["cache.discard()", "pass"])
def test_a_raw_clone_and_its_parent_have_their_own_values(takes: str) -> None:
    """The child has a descriptor of its parent's userfaultfd, and must fill nothing with it."""
    done = python(
        PRELUDE
        + f"""
for n in range(N): cache[n] = value(n)
held = [cache[n] for n in range(5)]
{takes}
pid = clone()
if pid == 0:
    signal.alarm(60)
    status = 1
    try:
        assert all(right(n) for n in range(N))
        for n in range(N): cache[n] = value(1000 + n)
        assert all(right(n, 1000) for n in range(N))
        assert all((v == n + 1).all() for n, v in enumerate(held))
        forked = os.fork()
        if forked == 0:
            os._exit(0)
        assert os.waitpid(forked, 0)[1] == 0
        assert sum(cache.get(n) is not None for n in range(N)) > N // 2
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(pid, 0)[1] == 0
for n in range(N, 2 * N): cache[n] = value(n)
assert all(right(n) for n in range(2 * N))
assert all((v == n + 1).all() for n, v in enumerate(held))
""",
        # NumPy's BLAS would start threads, and wait for them before the child forks.
        environment=FORK_WITH_THREADS | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
