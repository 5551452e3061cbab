"""In the child of a fork what is held is there, everything else is a miss, and all is its own."""

from __future__ import annotations

import textwrap

import pytest
from support import succeeds

# In processes of their own: a child of a fork would run the rest of the tests.
PRELUDE = """
import faulthandler, gc, multiprocessing, os, signal, sys, threading, time, traceback, warnings
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
handle = lambda n: handle_of(cache, n)
"""


def test_what_nobody_holds_is_a_miss_in_the_child_and_what_is_held_is_right() -> None:
    code = """
    held = {n: cache[n] for n in range(0, N, 5)}
    text = cache.get_or_compute("text", lambda: "words " * 5000)
    for n in range(1, N, 5):
        lose(handle(n), 0, PAGE) or cache.discard(n)

    def check(made=100):
        for n in range(N):
            value = cache.get(n)
            assert (value is None) == (n % 5 != 0), n
            assert value is None or (value == n).all()
        assert all((value == n).all() for n, value in held.items())
        for n in range(N):
            assert (cache.get_or_compute(n, lambda: fresh(n + made * (n % 5 != 0)))
                    == n + made * (n % 5 != 0)).all()
        assert all((cache[n] == n + made * (n % 5 != 0)).all() for n in range(N))
        assert cache.get_or_compute("text", lambda: "anew") == "anew"

    def check_again():
        check()
        held.update((n, cache[n] - 100) for n in range(N) if n % 5 == 1)
        kept = [cache[n] for n in range(N) if n % 5 == 2]
        def check_grandchild():
            assert all((value == 102 + 5 * i).all() for i, value in enumerate(kept))
            assert all((cache[n] == n).all() for n in range(0, N, 5))
            assert all(cache.get(n) is None for n in range(3, N, 5))
        join(in_child(check_grandchild), in_child(check_grandchild))

    join(in_child(check), in_child(check), in_child(check_again))
    for n in range(N):
        value = cache.get(n)
        assert (value is None) == (n % 5 == 1), n
        assert value is None or (value == n).all()
    """
    succeeds(PRELUDE + _dedent(code))


def test_pages_that_the_kernel_takes_from_the_child_are_its_loss() -> None:
    code = """
    def check():
        for n in range(N):
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
    before = [cache[n] for n in range(N)]
    def check():
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


@pytest.mark.parametrize("first", ["store", "release"])
def test_the_reserve_runs_again_with_the_first_thing_to_look_after(first: str) -> None:
    code = """
    assert vrange.stats().reserve.running
    held = [cache[3]]

    def check():
        assert not vrange.stats().reserve.running
        assert (cache[3] == 3).all()
        assert not vrange.stats().reserve.running
        if sys.argv[1] == "store":
            cache[3] = fresh(5)
        else:
            held.clear()
        assert vrange.stats().reserve.running
        ticks = vrange.stats().reserve.ticks
        wait_until(lambda: vrange.stats().reserve.ticks > ticks + 2, "it does not tick")
        if not EAGER:
            wait_offered(handle(3))
        vrange.set_reserve("2MiB", tick=0.002)
        assert vrange.stats().reserve.bytes == 2 << 20

    join(in_child(check))
    """
    succeeds(PRELUDE + _dedent(code), first)


def test_ranges_of_an_arena_in_the_child() -> None:
    code = """
    arena = vrange.Arena("8MiB")
    held, idle, part = (arena.allocate(4 * PAGE) for _ in range(3))
    for r in (held, idle, part):
        r.buffer[:] = b"p" * r.nbytes
    idle.mark_volatile()
    part.mark_volatile(partial=True)

    def check():
        assert held.state == "pinned" and bytes(held.buffer) == b"p" * held.nbytes
        for r in (idle, part):
            assert r.state == "purged"
            lost = r.pin()
            assert lost and list(lost.blocks) == [(0, r.nbytes)]
            assert bytes(r.buffer) == bytes(r.nbytes)
            r.buffer[:] = b"c" * r.nbytes
            r.refilled()
            r.mark_volatile()
            assert not r.pin() and bytes(r.buffer) == b"c" * r.nbytes
        held.free()
        arena.close()

    join(in_child(check), in_child(check))
    assert not idle.pin() and bytes(idle.buffer) == b"p" * idle.nbytes
    assert not part.pin() and bytes(part.buffer) == b"p" * part.nbytes
    assert bytes(held.buffer) == b"p" * held.nbytes
    """
    succeeds(PRELUDE + _dedent(code))


def test_a_full_cache_has_room_in_the_child() -> None:
    code = """
    full = vrange.VolatileCache(arena_bytes="4MiB", hot_bytes=0)
    limited = vrange.VolatileCache(max_bytes="4MiB", hot_bytes=0)
    for cache in (full, limited):
        for n in range(200):
            cache[n] = fresh(n)
            cache["small", n] = b"%d" % n
        cache["held"] = fresh(1000)
    held = [cache["held"] for cache in (full, limited)]

    def check():
        for cache in (full, limited):
            assert cache.info().pinned_bytes == 10 * PAGE
            assert cache.info().idle_bytes == cache.info().offered_bytes == 0
            for n in range(300, 500):
                cache[n] = fresh(n)
                assert (cache[n] == n).all()
            assert all(key == "held" or cache.get(key) is not None for key in cache)
            assert 0 < len(cache) < 200
        assert all((value == 1000).all() for value in held)

    def check_length():
        for cache in (full, limited):
            assert "held" in cache and 100 not in cache
            assert [key for key in cache if not isinstance(key, tuple)] == ["held"]

    join(in_child(check), in_child(check_length))
    assert all(len(cache) > 20 for cache in (full, limited))
    """
    succeeds(PRELUDE + _dedent(code))


def test_a_child_to_which_userfaultfd_is_refused() -> None:
    """It goes on, on a lower rung: a child that only runs another program must not end for that."""
    code = """
    import resource
    held = cache[3]
    arena = vrange.Arena("1MiB")
    r = arena.allocate(PAGE)
    r.mark_volatile()
    array = None
    if vrange.capabilities().rung == "refault":
        array = vrange.VolatileArray(100_000, "u1", fill=vrange.fills.pattern([5]))
        assert np.asarray(array)[0] == 5
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))   # no descriptor is to be had

    def check():
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert vrange.capabilities().rung == ("sentinel" if array is not None else RUNG)
        assert (held == 3).all()
        for n in range(N):
            value = cache.get_or_compute(n, lambda: fresh(n + 100))
            assert (value == (n if n == 3 else n + 100)).all()
        assert r.pin() and bytes(r.buffer) == bytes(PAGE)
        del value
        assert (cache[5] == 105).all()
        join(in_child(lambda: held.sum() == 60000 or 1 / 0))

    join(in_child(check))
    if array is not None:
        # What can't be told from zeros is not read.
        pid = os.fork()
        if pid == 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            faulthandler.disable()
            print(np.asarray(array)[70_000], file=sys.stderr)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (-signal.SIGSEGV, -signal.SIGBUS)
    assert EAGER or (cache[5] == 5).all()   # it sheds where it can't see what is free
    """
    succeeds(PRELUDE + _dedent(code))


@pytest.mark.parametrize("what", ["small ranges", "large ranges", "an array"])
def test_fork_costs_as_much_with_volatile_memory_as_without(what: str) -> None:
    code = """
    def fork_seconds():
        def once():
            start = time.perf_counter()
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            passed = time.perf_counter() - start
            os.waitpid(pid, 0)
            return passed
        return min(once() for _ in range(15))

    before = fork_seconds()
    if sys.argv[1] == "an array":
        if RUNG != "refault":
            sys.exit()   # it would be an ordinary one
        fill = vrange.fills.pattern([7])
        array = vrange.VolatileArray(512 * MIB, "u1", fill=fill, block_bytes=PAGE)
        # In no order, so that it comes in small pages.
        assert (np.asarray(array)[np.random.permutation(512 * MIB // PAGE) * PAGE] == 7).all()
    else:
        arena = vrange.Arena("2GiB")
        size, count = (4096, 150_000) if sys.argv[1] == "small ranges" else (256 << 10, 2500)
        content = ffi.new("char[]", size)
        part = ffi.new("vrange_part *", {"data": content, "bytes": size})
        handle = ffi.new("uint64_t *")
        for _ in range(count):
            assert lib.vrange_store(arena._native, part, 1, 0, 0, handle) == 0
            lib.vrange_release(handle[0])
    after = fork_seconds()
    assert after < 8 * before, (before, after)
    """
    succeeds(PRELUDE + _dedent(code), what)


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


def test_a_fork_while_another_thread_stores_its_first_value() -> None:
    code = """
    made = vrange.VolatileCache(arena_bytes="1MiB")
    arena = made._arena
    with arena._lock:  # as the other thread has it at that moment
        pid = in_child(lambda: (made.set("k", 1), made.close()), seconds=20)
    join(pid)
    """
    succeeds(PRELUDE + _dedent(code))


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
