"""A process without a cgroup's limit has the machine's memory for headroom."""

from __future__ import annotations

import pytest
from support import EAGER, succeeds


@pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered")
def test_nothing_is_offered_while_the_machine_has_room() -> None:
    """Offered as before only where less than four times the reserve is available."""
    code = """
    import psutil, time, vrange
    cache = vrange.VolatileCache(hot_bytes=0)
    for n in range(64):
        cache[n] = bytes([n]) * (1 << 20)
    time.sleep(0.5)
    reserve = vrange.stats().reserve
    free = psutil.virtual_memory().available
    has_room = free > 5 * reserve.bytes and vrange.memory_limit().source == "machine"
    print(reserve.offered_bytes == 0 or not has_room)
    """
    assert succeeds(code) == "True\n"
