"""What a child needs of its own: the caretaker, a userfaultfd, open files."""

from __future__ import annotations

import pytest
from fork_child import forking_succeeds


@pytest.mark.parametrize("first", ["store", "release"])
def test_the_reserve_runs_again_with_the_first_thing_to_look_after(first: str) -> None:
    code = """
    assert vrange.stats().reserve.running
    held = [cache[3]]
    arena = vrange.Arena("1MiB")
    pinned = arena.allocate(PAGE)

    def check():
        assert not vrange.stats().reserve.running
        assert (cache[3] == 3).all()
        assert cache.get(4, fresh(4))[0] == 4
        assert not vrange.stats().reserve.running
        if sys.argv[1] == "store":
            cache[3] = fresh(5)
        else:
            pinned.buffer[:] = bytes(PAGE)  # the child's own page: a shared one is not offered
            pinned.mark_volatile()
        assert vrange.stats().reserve.running
        ticks = vrange.stats().reserve.ticks
        wait_until(lambda: vrange.stats().reserve.ticks > ticks + 2, "it does not tick")
        if not EAGER:
            wait_offered(handle(3) if sys.argv[1] == "store" else pinned._handle)
        vrange.set_reserve("2MiB", tick=0.002)
        assert vrange.stats().reserve.bytes == 2 << 20

    join(in_child(check))
    """
    forking_succeeds(code, first)


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
    forking_succeeds(code)


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
    forking_succeeds(code)
