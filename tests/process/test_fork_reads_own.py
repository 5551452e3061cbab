"""What the child of a fork stores, bounds and removes beside what its parent has."""

from __future__ import annotations

from fork_reads import forking


def test_a_child_stores_beside_what_it_inherited() -> None:
    code = """
    cache = vrange.VolatileCache(hot_bytes=0)
    for n in range(3000):
        cache[n] = n
    for n in range(0, 3000, 3):
        del cache[n]   # slots are free in every slab

    def check():
        for n in range(3000, 5000):
            cache[n] = n
        for n in range(0, 3000, 7):
            cache[n] = -n
        for n in range(1, 3000, 11):
            cache.pop(n, None)
        for n in range(5000):
            gone = n % 11 == 1 if n % 7 else False
            wanted = -n if n % 7 == 0 and n < 3000 else n
            if n < 3000 and (n % 11 == 1 or (n % 3 == 0 and n % 7)):
                assert cache.get(n) is None, n
            else:
                assert cache.get_or_compute(n, never) == wanted, n
        assert cache._core.check() is None

    join(in_child(check), in_child(check))
    assert all(cache.get(n) == (n if n % 3 else None) for n in range(3000))
    """
    forking(code)


def test_bounds_hold_in_the_child_and_what_is_away_goes_first() -> None:
    code = """
    fresh = lambda n: np.full(20_000, n, np.uint16)
    bounded = {
        "arena": vrange.VolatileCache(arena_bytes="4MiB", hot_bytes=0),
        "bytes": vrange.VolatileCache(max_bytes="4MiB", hot_bytes=0),
        "entries": vrange.VolatileCache(max_entries=90, hot_bytes=0),
    }
    for cache in bounded.values():
        for n in range(200):
            cache[n] = fresh(n)

    def check():
        for name, cache in bounded.items():
            for n in range(300, 380):
                cache[n] = fresh(n)
            own = sum(n in cache for n in range(300, 380))
            assert own > 60, (name, own)
            for n in range(400):
                found = cache.get(n)
                assert found is None or (found == n).all()
            assert len(cache) <= 105, (name, len(cache))
            assert cache._core.check() is None

    join(in_child(check), in_child(check))
    """
    forking(code)


def test_discard_in_the_child_is_for_the_child() -> None:
    code = """
    cache = vrange.VolatileCache(hot_bytes=0)
    for n in range(10):
        cache[n] = bytes([n]) * 20_000
    def check():
        assert cache.discard(3) == 1
        assert 3 not in cache and cache.get(3) is None
        assert cache[4] == bytes([4]) * 20_000
        assert cache.discard() > 0
        assert all(cache.get(n) is None for n in range(10))
        assert len(cache) == 0
    join(in_child(check))
    assert all(cache[n] == bytes([n]) * 20_000 for n in range(10))
    """
    forking(code)


def test_a_listener_hears_of_what_the_child_stored_and_not_of_what_the_parent_has() -> None:
    code = """
    heard = []
    hear = lambda key, cause: heard.append(key)
    cache = vrange.VolatileCache(hot_bytes=0, max_entries=20, on_evict=hear)
    for n in range(20):
        cache[n] = bytes([n]) * 20_000
    changed = Turn()
    def check():
        changed.wait()
        assert cache.get(3) is None
        assert heard == []
        for n in range(100, 200):
            cache[n] = bytes(9000)
        assert len(heard) == 80 and min(heard) == 100, heard
    child = in_child(check)
    del cache[3]
    changed.give()
    join(child)
    """
    forking(code)


def test_uses_by_children_count_for_the_parents_ranking() -> None:
    code = """
    cache = vrange.VolatileCache(hot_bytes=0)
    fresh = lambda n: np.full(20_000, n, np.uint16)
    for n in range(100):
        cache[n] = fresh(n)
    def check():
        for _ in range(20):
            for n in range(50, 60):
                cache.get_or_compute(n, never)
    join(in_child(check))
    lib.vrange_arena_shed(ffi.cast("vrange_arena *", cache._core.arena), 80 * 10 * PAGE)
    assert all(n in cache for n in range(50, 60))
    assert 15 < len(cache) < 25
    """
    forking(code)
