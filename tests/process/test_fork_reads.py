"""What was cached before a fork is found by the children in their parent, and never wrong."""

from __future__ import annotations

import textwrap

import pytest
from fork_reads import forking
from support import RUNG

VALUES = """
cache = vrange.VolatileCache(hot_bytes=0)
array = np.arange(300_000, dtype=np.uint32)
values = {
    "array": array,
    "fortran": np.asfortranarray(array.reshape(300, 1000)),
    "large array": np.arange(1_500_000, dtype=np.float64),
    "small array": array[:20].copy(),
    "bytes": os.urandom(70_000),
    "large bytes": os.urandom(3 << 20),
    "text": "words " * 5000,
    "wide text": "\\u1e9e\\ud800 " * 5000,
    "pickled": {"list": list(range(3000)), "array": array, "text": "long " * 4000},
    "graph": [(n, str(n)) for n in range(40_000)],
    "int": 12, "float": 1.5, "str": "short", "tuple": (1, "two", b"three"), "none": None,
    "true": True, "large int": 1 << 100, "set": {1, 2},
}
for key, value in values.items():
    cache[key] = value

def same(one, other):
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and (one == other).all()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return type(one) is type(other) and one == other
"""


def test_every_kind_of_value_is_found() -> None:
    code = """
    def check():
        before = cache.info()
        assert len(cache) == len(values) and list(cache) == list(values)
        for _ in range(2):
            for key, value in values.items():
                assert key in cache
                found = cache.get_or_compute(key, never)
                assert same(value, found), key
        now = cache.info()
        assert now.peer_hits - before.peer_hits == now.hits - before.hits == 2 * len(values)
        assert (now.misses, now.purged) == (before.misses, before.purged)
        assert not cache["array"].flags.writeable
        held = [cache["array"], cache["pickled"]]
        del cache["array"], cache["pickled"]
        assert same(values["array"], held[0]) and same(values["pickled"], held[1])

    join(*(in_child(check) for _ in range(3)))
    check_again = [key for key, value in values.items() if not same(value, cache[key])]
    assert not check_again
    assert cache.info().peer_hits == 0
    """
    forking(VALUES + textwrap.dedent(code))


def test_a_decorated_function_and_an_async_one_hit_in_the_child() -> None:
    code = """
    import asyncio
    computed = []
    @vrange.cached(hot_bytes=0)
    def tile(n):
        computed.append(n)
        return np.full(50_000, n, "u1")
    @vrange.cached(hot_bytes=0)
    async def fetch(n):
        computed.append(n)
        return "page %d " % n * 1000
    for n in range(20):
        tile(n)
        asyncio.run(fetch(n))
    computed.clear()

    def check():
        for n in range(20):
            assert (tile(n) == n).all()
            assert asyncio.run(fetch(n)) == "page %d " % n * 1000
        assert computed == []
        assert tile.cache_info().peer_hits == fetch.cache_info().peer_hits == 20
        tile.cache_discard(3)
        assert (tile(3) == 3).all() and computed == [3]

    join(in_child(check), in_child(check))
    """
    forking(code)


def test_the_caches_are_separate_from_the_fork_on() -> None:
    code = """
    cache = vrange.VolatileCache(hot_bytes=0)
    fresh = lambda n: np.full(20_000, n, np.uint16)
    for n in range(60):
        cache[n] = fresh(n)
        cache["small", n] = n
    go, changed = Turn(), Turn()

    def check():
        for n in range(10):
            cache[n] = fresh(n + 500)
            cache["small", n] = n + 500
        for n in range(10, 20):
            del cache[n], cache["small", n]
        cache["new"] = b"child"
        go.give()
        changed.wait()
        for n in range(10):
            assert (cache[n] == n + 500).all() and cache["small", n] == n + 500
        for n in range(10, 20):
            assert n not in cache and ("small", n) not in cache
        for n in range(20, 60):
            found, small = cache.get(n), cache.get(("small", n))
            assert found is None or (found == n).all(), (n, found)
            assert small is None or small == n, (n, small)
            assert (found is None) == (n < 40), n
        assert cache["new"] == b"child"

    child = in_child(check)
    go.wait()
    for n in range(20):
        assert (cache[n] == n).all() and cache["small", n] == n
    for n in range(20, 30):
        cache[n] = fresh(n + 1000)
        cache["small", n] = n + 1000
    for n in range(30, 40):
        del cache[n], cache["small", n]
    for n in range(100, 130):   # they may get the places of those that left
        cache[n] = fresh(n + 2000)
        cache["small", n] = n + 2000
    changed.give()
    join(child)
    assert "new" not in cache
    """
    forking(code)


def test_what_the_parent_clears_closes_or_loses_is_a_miss() -> None:
    code = """
    fresh = lambda n: np.full(20_000, n, np.uint16)
    caches = [vrange.VolatileCache(hot_bytes=0) for _ in range(3)]
    for cache in caches:
        for n in range(10):
            cache[n] = fresh(n)
            cache["small", n] = b"%d" % n
    changed = Turn()

    def check():
        changed.wait()
        for cache in caches:
            assert [cache.get(n) for n in range(10)] == [None] * 10
            assert [cache.get(("small", n)) for n in range(10)] == [None] * 10
            for n in range(10):
                assert (cache.get_or_compute(n, lambda: fresh(n + 1)) == n + 1).all()
            for n in range(10):
                assert (cache[n] == n + 1).all()
            assert len(cache) == 10

    child = in_child(check)
    caches[0].clear()
    caches[1].close()
    caches[2].discard()
    other = vrange.VolatileCache(hot_bytes=0)   # in their address space, perhaps
    for n in range(100):
        other[n] = fresh(n + 5000)
    changed.give()
    join(child)
    """
    forking(code)


def test_a_ttl_holds_in_the_child() -> None:
    code = """
    cache = vrange.VolatileCache(hot_bytes=0, ttl=60)
    cache["stays"] = bytes(9000)
    cache.set("goes", bytes(9000), ttl=0.3)
    cache.set("small", 1, ttl=0.3)

    def check():
        assert cache["stays"] == cache.get("goes", bytes(9000)) == bytes(9000)
        time.sleep(0.35)
        assert "goes" not in cache and cache.get("goes") is None and cache.get("small") is None
        assert cache["stays"] == bytes(9000)

    join(in_child(check))
    """
    forking(code)


def test_grandchildren_find_what_their_ancestors_have() -> None:
    code = """
    cache = vrange.VolatileCache(hot_bytes=0)
    fresh = lambda n: np.full(20_000, n, np.uint16)
    def add(first):
        for n in range(first, first + 10):
            cache[n] = fresh(n)
            cache["small", n] = n
    def all_up_to(end):
        for n in range(end):
            assert (cache.get_or_compute(n, never) == n).all()
            assert cache.get_or_compute(("small", n), never) == n

    def generation(number):
        if number % 2:   # others have not looked at what they inherited when they fork
            all_up_to(10 * number)
        add(10 * number)
        if number < 4:
            join(in_child(lambda: generation(number + 1)), in_child(lambda: generation(number + 1)))
        all_up_to(10 * number + 10)

    generation(0)
    """
    forking(code)


def test_a_child_whose_parent_has_ended_computes_again() -> None:
    code = """
    cache = fifty(vrange.VolatileCache(hot_bytes=0))
    def check():
        cache["own"] = bytes(9000)
        middle = os.fork()
        if middle == 0:
            cache["of the middle"] = bytes(9000)
            inner = os.fork()
            if inner:
                os._exit(0)
            def orphan():
                was = os.getppid()
                wait_until(lambda: os.getppid() != was or was == 1, "the middle ends")
                time.sleep(0.05)
                assert cache.get("of the middle") is None
                assert cache["own"] == bytes(9000) and cache[3] == bytes([3]) * 20_000
                assert cache["small", 3] == 3
                cache["of the middle"] = b"anew" * 5000
                assert cache["of the middle"] == b"anew" * 5000
            report(orphan, ended)
        os.waitpid(middle, 0)
        assert os.read(ends, 1) == b"\\0"

    ends, ended = os.pipe()
    join(in_child(check))
    """
    forking(code)


def test_all_that_an_ended_parent_had_leaves_the_index() -> None:
    code = """
    ends, ended = os.pipe()
    parent = os.fork()
    if parent == 0:
        cache = fifty(vrange.VolatileCache(hot_bytes=0))
        was = os.getpid()
        if os.fork():
            os._exit(0)
        def orphan():
            wait_until(lambda: os.getppid() != was, "the parent ends")
            time.sleep(0.05)
            assert cache.get(3) is None
            assert len(cache) == 0 and list(cache) == []
            assert cache.info().entries == 0
            cache[3] = b"anew"
            assert cache[3] == b"anew" and len(cache) == 1
        report(orphan, ended)
    os.close(ended)
    os.waitpid(parent, 0)
    assert os.read(ends, 1) == b"\\0"
    """
    forking(code)


def test_a_parent_that_runs_another_program_is_not_read() -> None:
    """The same process id and the same start; other memory."""
    code = """
    cache = fifty(vrange.VolatileCache(hot_bytes=0))
    ends, ended = os.pipe()
    os.set_inheritable(ends, True)
    if os.fork() == 0:
        os.close(ends)
        def orphan():
            line = lambda: open(f"/proc/{parent}/cmdline").read()
            parent = os.getppid()
            wait_until(lambda: "VolatileCache" not in line() != "", "it runs another program")
            assert [cache.get(n) for n in range(50)] == [None] * 50
            assert [cache.get(("small", n)) for n in range(50)] == [None] * 50
        report(orphan, ended)
    other = "import os, sys; sys.exit(os.read(int(sys.argv[1]), 1)[0])"
    os.execv(sys.executable, [sys.executable, "-c", other, str(ends)])
    """
    forking(code)


@pytest.mark.skipif(RUNG == "eager", reason="nothing is ever left to the kernel there")
def test_what_the_kernel_took_from_the_parent_is_a_miss() -> None:
    code = """
    cache = vrange.VolatileCache(hot_bytes=0)
    vrange.set_reserve("1GiB", tick=0.001)
    for n in range(20):
        cache[n] = np.full(20_000, n, np.uint16)
    taken = Turn()
    def check():
        taken.wait()
        for n in range(20):
            found = cache.get(n)
            assert found is None or (found == n).all(), (n, found)
            assert found is None or n % 2
            assert found is not None or n % 2 == 0
    child = in_child(check)
    for n in range(0, 20, 2):
        lose(handle_of(cache, n), (n % 5) * PAGE, PAGE)
    taken.give()
    join(child)
    """
    forking(code)


@pytest.mark.skipif(RUNG != "refault", reason="only this rung has a userfaultfd")
def test_a_parent_that_closed_its_userfaultfd_is_not_believed() -> None:
    """Its lost pages read as zeros then, until it has noticed."""
    code = """
    cache = vrange.VolatileCache(hot_bytes=0)
    vrange.set_reserve("1GiB", tick=0.001)
    for n in range(20):
        cache[n] = np.full(20_000, n + 1, np.uint16)
    for n in range(20):
        wait_offered(handle_of(cache, n))
    closed, looked, mended = Turn(), Turn(), Turn()
    def check():
        closed.wait()
        for n in range(10):
            found = cache.get(n)
            assert found is None or (found == n + 1).all(), (n, found)
        looked.give()
        mended.wait()
        for n in range(20):
            found = cache.get(n)
            assert found is None or (found == n + 1).all(), (n, found)
    vrange.set_reserve("1GiB", tick=10)   # nobody of the parent looks meanwhile
    time.sleep(0.01)
    child = in_child(check)
    places = [address_of(handle_of(cache, n)) for n in range(20)]
    own = (*closed.ends, *looked.ends, *mended.ends)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in own:
            try: os.close(fd)
            except OSError: pass
    for place in places[::2]:
        take(place + PAGE, PAGE)
    closed.give()
    looked.wait()
    assert cache.get(0) is None
    mended.give()
    join(child)
    """
    forking(code)
