"""The reserve: how much is kept offered, what goes first, and that what was taken is noticed."""

from __future__ import annotations

import pytest
from support import EAGER, succeeds

import vrange

# In processes of their own: there is one reserve a process, and the tests' offers everything.


@pytest.mark.parametrize("tick", [0, -1, 0.00001, 11, float("nan"), float("inf")])
def test_ticks_that_are_none(tick: float) -> None:
    with pytest.raises(ValueError, match=r"tick must be 0.0001 to 10 seconds"):
        vrange.set_reserve("64MiB", tick=tick)


@pytest.mark.parametrize("size", ["much", -1, "-1MiB", 1 << 70])
def test_sizes_that_are_none(size: int | str) -> None:
    with pytest.raises(ValueError, match="bytes must"):
        vrange.set_reserve(size)


def test_it_is_told_and_can_be_set_at_any_time() -> None:
    code = """
    import vrange
    from support import wait_until
    from vrange._cgroup.limits import memory_limit
    reserve = lambda: vrange.stats().reserve
    assert not reserve().running
    vrange.VolatileCache(arena_bytes="1MiB")["k"] = 1
    assert reserve().running
    assert reserve().bytes == min(max(memory_limit().limit_bytes // 8, 16 << 20), 512 << 20)
    assert abs(reserve().tick_seconds - 0.005) < 1e-9
    vrange.set_reserve("3MiB", tick=0.002)
    assert (reserve().bytes, round(reserve().tick_seconds, 6)) == (3 << 20, 0.002)
    vrange.set_reserve(0)
    assert reserve().bytes == 0
    vrange.set_reserve()
    assert reserve().bytes >= 16 << 20
    before = reserve().ticks
    wait_until(lambda: reserve().ticks > before + 3, "it does not tick")
    assert reserve().busy_seconds > 0
    """
    succeeds(code)


@pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered")
def test_no_more_than_the_reserve_is_offered() -> None:
    code = """
    import time
    from support import *
    vrange.set_reserve("2MiB", tick=0.001)
    cache = vrange.VolatileCache(hot_bytes=0, arena_bytes="64MiB")
    for n in range(20):
        cache[n] = bytes([n]) * MIB
    reserve = lambda: vrange.stats().reserve
    wait_until(lambda: reserve().offered_bytes >= 2 * MIB, "nothing is offered")
    ticks = reserve().ticks
    wait_until(lambda: reserve().ticks > ticks + 20, "it stands still")
    now = reserve()
    assert now.offered_bytes == 2 * MIB, now
    assert now.idle_bytes == 18 * MIB, now
    vrange.set_reserve("5MiB", tick=0.001)
    wait_until(lambda: reserve().offered_bytes == 5 * MIB, "it is not topped up")
    """
    succeeds(code)


@pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered")
def test_who_stores_helps_a_thread_that_is_late() -> None:
    code = """
    import os, time
    from support import *
    vrange.set_reserve("2MiB", tick=0.001)
    cache = vrange.VolatileCache(hot_bytes=0, arena_bytes="64MiB")
    cache["first"] = bytes(MIB)
    reserve = lambda: vrange.stats().reserve
    lib.vrange_fork_begins()  # from the fork to the end of it there is no thread
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    ticks = reserve().ticks
    for n in range(4):
        cache[n] = bytes(MIB)
        time.sleep(0.005)
    assert reserve().ticks == ticks
    assert reserve().helped > 0
    assert reserve().offered_bytes == 2 * MIB
    lib.vrange_fork_ended()
    wait_until(lambda: reserve().ticks > ticks, "the thread does not go on")
    """
    succeeds(code)


@pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered")
def test_the_least_valuable_is_offered_first() -> None:
    code = """
    from support import *
    vrange.set_reserve(0, tick=0.001)
    cache = vrange.VolatileCache(hot_bytes=0, arena_bytes="64MiB")
    cheap, dear = range(10), range(10, 20)
    for n in (*dear, *cheap):
        cache[n] = bytes([n]) * MIB
        lib.vrange_set_cost(handle_of(cache, n), 10**6 if n in cheap else 10**9)
    for _ in range(5):
        for n in (3, 4):
            assert cache[n][0] == n   # cheap, but asked for
    vrange.set_reserve("8MiB", tick=0.001)
    state = lambda n: lib.vrange_state(handle_of(cache, n))
    offered = lambda: {n for n in range(20) if state(n) == lib.VRANGE_STATE_OFFERED}
    wait_until(lambda: len(offered()) == 8, "not eight are offered")
    assert offered() == set(cheap) - {3, 4}, offered()
    """
    succeeds(code)


@pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered")
def test_what_was_taken_is_noticed_cleaned_up_and_replaced() -> None:
    code = """
    from support import *
    vrange.set_reserve("4MiB", tick=0.001)
    cache = vrange.VolatileCache(hot_bytes=0, arena_bytes="64MiB")
    for n in range(12):
        cache[n] = bytes([n]) * MIB
    state = lambda n: lib.vrange_state(handle_of(cache, n))
    offered = lambda: [n for n in range(12) if state(n) == lib.VRANGE_STATE_OFFERED]
    wait_until(lambda: len(offered()) == 4, "not four are offered")
    before = vrange.stats().reserve
    victim = offered()[0]
    address = address_of(handle_of(cache, victim))
    take(address, 8 * PAGE)   # its beginning; the rest is dead weight now
    wait_until(lambda: state(victim) == lib.VRANGE_STATE_PURGED, "the loss is not noticed")
    assert not any(resident_pages(address, MIB)), "what was left of it is not given back"
    wait_until(lambda: len(offered()) == 4, "no other is offered in its place")
    assert vrange.stats().reserve.losses == before.losses + 1
    account = vrange.stats().accounts[0]
    assert (account.purged_bytes, account.purged_total_bytes) == (MIB, MIB)
    assert cache.info().entries == 11
    assert cache.get(victim) is None
    assert cache.info().purged == 1
    """
    succeeds(code)


@pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered")
def test_partial_losses_are_noticed_and_replaced() -> None:
    code = """
    from support import *
    vrange.set_reserve("2MiB", tick=0.001)
    arena = vrange.Arena("64MiB")
    ranges = [arena.allocate(MIB) for _ in range(6)]
    for r in ranges:
        r.buffer[:] = b"x" * MIB
        r.mark_volatile(partial=True)
    offered = lambda: {r for r in ranges if lib.vrange_state(r._handle) == lib.VRANGE_STATE_OFFERED}
    wait_until(lambda: len(offered()) == 2, "not two are offered")
    before = offered()
    for r in before:
        page_out(address_of(r._handle), MIB)   # once: what is noticed is accessible again, as zeros
    wait_until(lambda: offered() - before, "no other is offered in their place", 5)
    """
    succeeds(code)


def test_without_a_thread_everything_is_offered_at_release() -> None:
    code = """
    from support import *
    lib.vrange_reserve_stop()
    import vrange._ranges.reserve
    vrange._ranges.reserve._started = True   # as where no thread can be started
    cache = vrange.VolatileCache(hot_bytes=0, arena_bytes="64MiB")
    for n in range(10):
        cache[n] = bytes([n]) * 100_000
    info = cache.info()
    assert info.idle_bytes == 0, info
    if EAGER:
        print(info.evicted_bytes > 0)   # the runtime may keep nothing that nobody holds
    else:
        assert info.offered_bytes == 10 * 25 * PAGE, info
        assert cache[3] == bytes([3]) * 100_000
        lose(handle_of(cache, 3))
        assert cache.get(3) is None
        assert cache[4] == bytes([4]) * 100_000
        held = vrange.Arena("1MiB").allocate(PAGE)
        held.mark_volatile()
        assert lib.vrange_state(held._handle) == lib.VRANGE_STATE_OFFERED
        print(True)
    assert not vrange.stats().reserve.running
    """
    assert succeeds(code).strip() == "True"


def test_eager_lets_go_near_the_limit() -> None:
    code = """
    from support import *
    cache = vrange.VolatileCache(hot_bytes=0, arena_bytes="64MiB")
    held = cache.get_or_compute("held", lambda: __import__("numpy").ones(100_000))
    for n in range(10):
        cache[n] = bytes([n]) * MIB
    assert cache.info().entries == 11
    vrange.set_reserve((1 << 63) - 1, tick=0.001)   # more than the machine has: it is always near
    wait_until(lambda: cache.info().entries == 1, "nothing is let go")
    info = cache.info()
    assert info.evicted_bytes == 10 * MIB, info
    assert held.sum() == 100_000
    assert cache["held"].sum() == 100_000
    assert all(cache.get(n) is None for n in range(10))
    """
    succeeds(code, rung="eager")
