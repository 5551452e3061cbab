"""Locked memory (mlockall): the kernel takes nothing of it, so vrange discards by itself."""

from __future__ import annotations

import os

import pytest
from cgroup_support import in_cgroup

pytestmark = pytest.mark.memory_cgroup

CURRENT, FUTURE, ON_FAULT = 1, 2, 4  # flags of mlockall


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lock so much memory")
@pytest.mark.parametrize("begins", ["before", "after"])
@pytest.mark.parametrize(
    "use",
    [
        "assert vrange.deep_recursion(stack='1GiB')(lambda: 7)() == 7",
        "vrange.heap.use_for_numpy(); assert np.ones(1 << 20).sum() == 1 << 20",
        "cache['k'] = b'x' * 100_000; assert cache['k'] == b'x' * 100_000",
    ],
    ids=["stack", "heap", "cache"],
)
def test_what_is_reserved_is_not_made_resident_by_locking(use: str, begins: str) -> None:
    code = """
    import ctypes, sys
    import numpy as np
    import vrange
    use, begins, flags = sys.argv[1:]
    cache = vrange.VolatileCache(hot_bytes=0)
    if begins == "before":
        cache["first"] = b"x" * 100_000
    def resident():
        return int(open("/proc/self/statm").read().split()[1]) << 12
    assert ctypes.CDLL(None).mlockall(int(flags)) == 0
    before = resident()
    exec(use)
    assert resident() - before < 24 << 20, resident() - before
    """
    in_cgroup(code, use, begins, CURRENT | FUTURE, limit=512 << 20)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lock so much memory")
def test_a_cache_gives_way_where_each_page_is_locked_when_it_is_touched() -> None:
    code = """
    import ctypes, sys
    import vrange
    cache = vrange.VolatileCache(hot_bytes=0)
    assert ctypes.CDLL(None).mlockall(int(sys.argv[1])) == 0
    for n in range(12_000):
        cache[n] = n.to_bytes(8, "little") * 4096
        if n % 7 == 0:
            assert cache.get(n // 2) in (None, (n // 2).to_bytes(8, "little") * 4096)
    held = bytearray(b"x" * (48 << 20))
    """
    in_cgroup(code, CURRENT | FUTURE | ON_FAULT, limit=192 << 20)
