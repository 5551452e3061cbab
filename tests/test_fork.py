"""In the child of a fork everything is there, and its own."""

from __future__ import annotations

import textwrap

import pytest
from support import succeeds

# In processes of their own: a child of a fork would run the rest of the tests.
PRELUDE = """
import gc, multiprocessing, os, signal, sys, threading, time, traceback, warnings
warnings.simplefilter("ignore")   # from 3.12 on, that forking with threads may end badly
import numpy as np
from support import *

def in_child(check, seconds=30):
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        try:
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid

def join(*pids):
    for pid in pids:
        status = os.waitpid(pid, 0)[1]
        assert status == 0, os.waitstatus_to_exitcode(status)

vrange.set_reserve("1GiB", tick=0.001)
N = 40
fresh = lambda n: np.full(20_000, n, np.uint16)
cache = vrange.VolatileCache(arena_bytes="512MiB", hot_bytes=0)
for n in range(N):
    cache[n] = fresh(n)
handle = lambda n: cache._books.index[n].handle
"""


def test_content_taken_before_and_after_is_told_from_zeros() -> None:
    code = """
    for n in range(0, N, 4):
        lose(handle(n), 0, PAGE) or cache.discard(n)

    def check():
        for n in range(1, N, 4):
            cache.discard(n)
        for n in range(N):
            value = cache.get(n)
            assert (value is None) == (n % 4 in (0, 1)), n
            assert value is None or (value == n).all()
            assert (cache.get_or_compute(n, lambda: fresh(n)) == n).all()
            assert (cache[n] == n).all()

    join(in_child(check), in_child(check))
    for n in range(2, N, 4):
        cache.discard(n)
    for n in range(N):
        value = cache.get(n)
        assert (value is None) == (n % 4 in (0, 2)), n
        assert value is None or (value == n).all()
    check_again = in_child(lambda: [cache.get_or_compute(n, lambda: fresh(n)) for n in range(N)])
    join(check_again)
    """
    succeeds(PRELUDE + _dedent(code))


def test_pages_that_the_kernel_takes_from_the_child_are_its_loss() -> None:
    code = """
    def check():
        for n in range(N):
            assert (cache[n] == n).all()      # pinned, so copied: the child's own pages now
            cache[n] = fresh(n + 100)
        for n in range(0, N, 2):
            if not EAGER:
                lose(handle(n), 0, PAGE)
        for n in range(N):
            value = cache.get(n)
            assert (value is None) == (n % 2 == 0 and not EAGER)
            assert value is None or (value == n + 100).all()

    join(in_child(check), in_child(check))
    assert all((cache[n] == n).all() for n in range(N))
    """
    succeeds(PRELUDE + _dedent(code))


def test_nobody_writes_into_the_others_memory() -> None:
    code = """
    held = cache[7]
    arena = vrange.Arena("1MiB")
    r = arena.allocate(4 * PAGE)
    view = np.frombuffer(r.buffer, np.uint8)
    view[:] = 1
    gone = arena.allocate(4 * PAGE)
    gone.mark_volatile()
    gone.discard()

    def check():
        assert (held == 7).all()
        view[:] = 2
        assert gone.pin()
        gone.buffer[:] = b"c" * gone.nbytes
        for n in range(N):
            cache[n] = fresh(1000)
        cache.clear()
        for n in range(200):
            cache[n] = fresh(2000)
        assert (held == 7).all()
        assert (view == 2).all()
        assert bytes(gone.buffer) == b"c" * gone.nbytes

    pids = [in_child(check) for _ in range(3)]
    view[:] = 3
    join(*pids)
    assert (view == 3).all()
    assert (held == 7).all()
    assert gone.pin() and bytes(gone.buffer) == bytes(gone.nbytes)
    assert all((cache[n] == n).all() for n in range(N))
    """
    succeeds(PRELUDE + _dedent(code))


def test_more_is_stored_in_the_child_than_was_committed_before() -> None:
    """The child's mappings are not joined with what is committed later: stores cross the seam."""
    code = """
    def check():
        before = [cache[n] for n in range(N)]
        for n in range(100, 400):
            cache[n] = np.full(500_000, n, np.uint16)
        assert all((value == n).all() for n, value in enumerate(before))
        for n in range(100, 400):
            assert (cache[n] == n).all()
        in_grandchild = in_child(check_again)
        join(in_grandchild)

    def check_again():
        for n in range(400, 500):
            cache[n] = np.full(500_000, n, np.uint16)
            assert (cache[n] == n).all()

    join(in_child(check))
    """
    succeeds(PRELUDE + _dedent(code))


def test_the_reserve_runs_again_with_the_first_store() -> None:
    code = """
    assert vrange.stats().reserve.running

    def check():
        assert not vrange.stats().reserve.running
        assert (cache[3] == 3).all()
        cache["new"] = fresh(5)
        assert vrange.stats().reserve.running
        ticks = vrange.stats().reserve.ticks
        wait_until(lambda: vrange.stats().reserve.ticks > ticks + 2, "it does not tick")
        if not EAGER:
            wait_offered(handle("new"))
        vrange.set_reserve("2MiB", tick=0.002)
        assert vrange.stats().reserve.bytes == 2 << 20

    join(in_child(check))
    """
    succeeds(PRELUDE + _dedent(code))


def test_a_pool_of_forked_processes() -> None:
    code = """
    def work(n):
        total = 0
        for turn in range(30):
            key = (n * 7 + turn) % N
            cache.discard(key)
            total += int(cache.get_or_compute(key, lambda: fresh(key))[0] == key)
        return total

    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(work, range(64)) == [30] * 64
    assert all((cache[n] == n).all() for n in range(N))
    """
    succeeds(PRELUDE + _dedent(code))


@pytest.mark.parametrize(
    "what", ["cache", "store", "large", "discard", "compute", "arena", "settings"]
)
def test_forking_while_other_threads_hammer_it(what: str) -> None:
    code = """
    import itertools
    stop = threading.Event()
    errors = []
    small = vrange.VolatileCache(arena_bytes="16MiB", hot_bytes="1MiB")
    large = vrange.VolatileCache(arena_bytes="256MiB", hot_bytes=0)
    large[0] = blob = bytes(8 << 20)

    def one_turn(n):
        what = sys.argv[1]
        if what == "cache":
            value = cache.get(n % N)
            assert value is None or (value == n % N).all()
        elif what == "store":
            small[n % 300] = os.urandom(8000) if n % 3 else b"small%d" % n
            small.get(n * 7 % 300)
        elif what == "large":
            large[n % 3] = blob   # stored, let go and freed without the GIL: a fork may meet it
            large.discard(n % 3)
        elif what == "discard":
            cache.discard(n % N)
            cache[n % N] = fresh(n % N)
        elif what == "compute":
            small.discard(n % 10)
            small.get_or_compute(n % 10, lambda: bytes(5000))
        elif what == "arena":
            arena = vrange.Arena("1MiB")
            r = arena.allocate(PAGE)
            r.mark_volatile()
            r.pin()
            if n % 2:
                arena.close()
        else:
            vrange.set_reserve("1GiB", tick=0.001 + n % 2 * 0.001)
            vrange.VolatileCache().info()

    def hammer(first):
        for n in itertools.count(first):
            if stop.is_set():
                return
            try:
                one_turn(n)
            except BaseException as error:
                errors.append(error)
                return

    def check():
        for n in range(5 if sys.argv[1] == "large" else 60):
            one_turn(n)
        large.close()
        for n in range(N):
            assert (cache.get_or_compute(n, lambda: fresh(n)) == n).all()
            small[n] = bytes(3000)
            assert small.get(n) in (None, bytes(3000))
        vrange.set_reserve("1GiB", tick=0.001)
        cache.close()
        small.close()

    threads = [threading.Thread(target=hammer, args=(n,), daemon=True) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        join(in_child(check, seconds=20))
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "the parent hangs"
    assert not errors, errors
    """
    succeeds(PRELUDE + _dedent(code), what, timeout=100)


def test_threads_that_fork_at_the_same_time() -> None:
    code = """
    errors = []
    def fork_some():
        try:
            for _ in range(15):
                made = vrange.VolatileCache(arena_bytes="1MiB")
                made["k"] = 1
                join(in_child(lambda: cache.get_or_compute(3, lambda: fresh(3)).sum()))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fork_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "forking hangs"
    assert not errors, errors
    assert all((cache[n] == n).all() for n in range(N))
    """
    succeeds(PRELUDE + _dedent(code), timeout=100)


def test_a_computation_under_way_in_another_thread_is_not_waited_for_in_the_child() -> None:
    code = """
    inside, leave = threading.Event(), threading.Event()
    def slow():
        inside.set()
        leave.wait(30)
        return "parent"
    thread = threading.Thread(target=lambda: cache.get_or_compute("k", slow))
    thread.start()
    inside.wait(30)
    def check():
        assert cache.get_or_compute("k", lambda: "child") == "child"
    join(in_child(check))
    leave.set()
    thread.join(30)
    assert cache["k"] == "parent"
    def compute():
        join(in_child(lambda: cache.get_or_compute("j", lambda: "re-entered in the child")))
        return "computed in the parent"
    assert cache.get_or_compute("j", compute) == "computed in the parent"
    """
    succeeds(PRELUDE + _dedent(code))


def test_a_daemon_that_closes_all_descriptors() -> None:
    code = """
    def check():
        for n in range(N):
            cache[n] = fresh(n)   # in pages of its own: what is shared the kernel does not take
        os.closerange(3, 1024)
        taken = (lib.VRANGE_STATE_OFFERED, lib.VRANGE_STATE_PURGED)
        for n in range(0, N, 2):
            if EAGER:
                cache.discard(n)
                continue
            # Who notices first may have let go of all that was offered, by himself.
            wait_until(lambda: lib.vrange_state(handle(n)) in taken, "it is not offered")
            if lib.vrange_state(handle(n)) == lib.VRANGE_STATE_OFFERED:
                page_out(address_of(handle(n)) + PAGE, PAGE)
        for n in range(N):
            value = cache.get(n)
            assert value is None or (value == n).all(), "zeros instead of what was stored"
            assert (cache.get_or_compute(n, lambda: fresh(n)) == n).all()

    join(in_child(check))
    """
    succeeds(PRELUDE + _dedent(code))


def _dedent(code: str) -> str:
    return textwrap.dedent(code)
