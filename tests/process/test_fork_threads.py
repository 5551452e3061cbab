"""Forks while other threads store, compute or fork: no lock stays held, nothing is half done."""

from __future__ import annotations

import pytest
from fork_child import forking_succeeds


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
    forking_succeeds(code)


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
    forking_succeeds(code, what, timeout=100)


def test_a_fork_while_another_thread_stores_its_first_value() -> None:
    code = """
    made = vrange.VolatileCache(arena_bytes="1MiB")
    arena = made._arena
    with arena._lock:  # as the other thread has it at that moment
        pid = in_child(lambda: (made.set("k", 1), made.close()), seconds=20)
    join(pid)
    """
    forking_succeeds(code)


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
    forking_succeeds(code, timeout=100)


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
    forking_succeeds(code)
