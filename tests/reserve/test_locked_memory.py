"""Locked memory (mlockall): the kernel takes nothing of it, so vrange discards by itself."""

from __future__ import annotations

import os

import pytest
from cgroup_support import in_cgroup

pytestmark = pytest.mark.memory_cgroup


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lock so much memory")
@pytest.mark.parametrize("value_bytes", [400, 64 << 10])
def test_a_cache_gives_way_in_a_process_that_locks_its_memory(value_bytes: int) -> None:
    code = """
    import ctypes, sys
    import vrange
    size = int(sys.argv[1])
    count = 3 * (192 << 20) // size
    cache = vrange.VolatileCache(hot_bytes=0)
    wrong = 0
    for n in range(count):
        if n == count // 5:  # while much is offered, as well as idle
            assert ctypes.CDLL(None).mlockall(1) == 0
        cache[n] = n.to_bytes(8, "little") * (size // 8)
        if n % 7 == 0:
            found = cache.get(n // 2)
            wrong += found not in (None, (n // 2).to_bytes(8, "little") * (size // 8))
    held = bytearray(b"x" * (48 << 20))
    assert wrong == 0
    """
    in_cgroup(code, value_bytes, limit=192 << 20)
