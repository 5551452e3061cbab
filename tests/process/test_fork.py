"""The child of a fork has what is held, reads the rest from its parent, and all is its own."""

from __future__ import annotations

from fork_child import forking_succeeds


def test_what_is_lost_is_a_miss_in_the_child_and_everything_else_is_right() -> None:
    code = """
    held = {n: cache[n] for n in range(0, N, 5)}
    text = cache.get_or_compute("text", lambda: "words " * 5000)
    for n in range(1, N, 5):
        lose(handle(n), 0, PAGE) or cache.discard(n)

    def is_there(n):
        return n % 5 != 1

    def check(made=100):
        found = {}
        for n in range(N):
            value = cache.get(n)
            found[n] = value is not None
            assert is_there(n) == found[n], n
            assert value is None or (value == n).all()
        assert all((value == n).all() for n, value in held.items())
        for n in range(N):
            expected = n if found[n] else n + made
            assert (cache.get_or_compute(n, lambda: fresh(n + made)) == expected).all()
        for n in range(N):
            assert (cache[n] == (n if found[n] else n + made)).all()
        assert cache.get_or_compute("text", lambda: "anew") == text

    def check_again():
        check()
        held.update((n, cache[n] - 100) for n in range(N) if n % 5 == 1)
        kept = [cache[n] for n in range(N) if n % 5 == 1]
        def check_grandchild():
            assert all((value == 101 + 5 * i).all() for i, value in enumerate(kept))
            assert all((cache[n] == n).all() for n in range(0, N, 5))
            assert all((cache[n] == n).all() for n in range(3, N, 5))
        join(in_child(check_grandchild), in_child(check_grandchild))

    join(in_child(check), in_child(check), in_child(check_again))
    for n in range(N):
        value = cache.get(n)
        assert (value is None) == (n % 5 == 1), n
        assert value is None or (value == n).all()
    """
    forking_succeeds(code)


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
    forking_succeeds(code)


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
    forking_succeeds(code)


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
    forking_succeeds(code)


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
    forking_succeeds(code)


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
            assert all(key == "held" or key < 300 or cache.get(key) is not None
                       for key in cache if not isinstance(key, tuple))
            own = sum(isinstance(key, int) and key >= 300 for key in cache)
            assert 20 < own < 200
        assert all((value == 1000).all() for value in held)

    def check_length():
        for cache in (full, limited):
            keys = list(cache)
            assert "held" in cache and len(cache) == len(keys)
            assert len(keys) > 20 and all(cache.get(key) is not None for key in keys)

    join(in_child(check), in_child(check_length))
    assert all(len(cache) > 20 for cache in (full, limited))
    """
    forking_succeeds(code)
