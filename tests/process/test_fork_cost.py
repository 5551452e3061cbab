"""What a fork costs beside one of the same process without volatile memory."""

from __future__ import annotations

import pytest
from fork_child import forking_succeeds


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
    forking_succeeds(code, what)
