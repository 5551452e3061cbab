"""Stacks given back: residency by policy, the high-water mark, the pool, what stack_info tells."""

from __future__ import annotations

import mmap
import operator
import os
import threading

import pytest
from deep_helpers import (
    KEPT,
    MIB,
    cached_steps,
    limits_unchanged,
    nested_list,
    output_of,
    resident_bytes,
)
from support import strict_overcommit

import vrange
from vrange._core import deep, ffi, lib
from vrange._stacks.deep import Release

PAGE = mmap.PAGESIZE
HUGE = 2 * MIB  # what is deeper than this may be on huge pages, and counts by them


def use_of(size: int) -> vrange.StackUse:
    """The one stack of that size; the tests use sizes that nobody else does."""
    (use,) = [use for use in vrange.stack_info().stacks if use.reserved_bytes == size]
    return use


def depth_used(n: int) -> int:
    """Goes n steps deep and tells how far down the stack that was."""

    def bottom() -> int:
        where = deep.here()
        assert where is not None
        return where[1]

    import functools

    @functools.cache
    def steps(left: int) -> int:
        return bottom() if left == 0 else steps(left - 1)

    return steps(n)


@pytest.mark.parametrize("megabytes", [16, 256])
def test_now_returns_all_but_64_kib_and_the_mark_is_right(megabytes: int) -> None:
    size = (1 << 30) + megabytes * PAGE * 16
    stack = vrange.DeepStack(size, release="now")
    before = resident_bytes()
    used = stack.call(depth_used, megabytes * 1700)
    assert used > megabytes * MIB * 3 // 4
    use = use_of(size)
    assert use.thread_id is None
    assert use.resident_bytes <= KEPT
    assert used <= use.high_water_bytes <= used + HUGE
    assert resident_bytes() - before < used // 2


def test_volatile_stays_until_the_kernel_takes_it() -> None:
    size = (1 << 30) + 2 * PAGE
    stack = vrange.DeepStack(size)
    used = stack.call(depth_used, 30_000)
    use = use_of(size)
    assert use.resident_bytes > used * 9 // 10  # still there for the next call
    assert used <= use.high_water_bytes <= used + HUGE
    before = lazyfree_bytes()
    stack.call(depth_used, 30_000)
    assert lazyfree_bytes() >= before - KEPT  # used again, and offered again
    assert lazyfree_bytes() >= used - 2 * KEPT
    with limits_unchanged():
        assert stack.call(cached_steps(), 30_000) == 30_000


def lazyfree_bytes() -> int:
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("LazyFree:"))


def test_what_the_kernel_took_is_had_again() -> None:
    """MADV_PAGEOUT takes offered pages at once, as pressure would."""
    answer = output_of(
        """
        import ctypes, functools, vrange
        from vrange._core import deep
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        stack = vrange.DeepStack("64MiB")
        def cached():
            @functools.cache
            def steps(n): return 0 if n == 0 else 1 + steps(n - 1)
            return steps
        assert stack.call(cached(), 50_000) == 50_000
        spans = []
        for line in open("/proc/self/maps"):
            where, access, *_ = line.split()
            a, b = (int(at, 16) for at in where.split("-"))
            if spans and spans[-1][1] == a and access == "rw-p":
                spans[-1][1] = b  # huge pages and ordinary ones are mappings side by side
            elif access == "rw-p":
                spans.append([a, b])
        (span,) = [(a, b) for a, b in spans if 60 << 20 < b - a <= 64 << 20]
        (use,) = vrange.stack_info().stacks
        assert use.resident_bytes > 20 << 20, use
        assert libc.madvise(span[0], span[1] - span[0], 21) == 0
        (use,) = vrange.stack_info().stacks
        assert use.resident_bytes <= 1 << 20, use
        assert stack.call(cached(), 50_000) == 50_000
        (use,) = vrange.stack_info().stacks
        assert use.resident_bytes > 20 << 20, use
        print("had again")
        """
    )
    assert answer == "had again"


def test_keep_keeps() -> None:
    size = (1 << 30) + 3 * PAGE
    stack = vrange.DeepStack(size, release="keep")
    used = stack.call(depth_used, 20_000)
    before = vrange.stack_info().returned_bytes
    stack.call(depth_used, 20_000)
    assert use_of(size).resident_bytes >= used - KEPT
    assert vrange.stack_info().returned_bytes == before
    vrange.DeepStack(size, release="now").call(depth_used, 2_000)
    assert use_of(size).resident_bytes <= KEPT


@pytest.mark.parametrize("release", ["now", "volatile"])
def test_returned_bytes_are_at_least_99_percent_of_the_mark(release: Release) -> None:
    size = (1 << 30) + (4 if release == "now" else 5) * PAGE
    before = vrange.stack_info().returned_bytes
    used = vrange.DeepStack(size, release=release).call(depth_used, 50_000)
    returned = vrange.stack_info().returned_bytes - before
    assert 0.99 * (used - KEPT) <= returned <= used + HUGE


def test_a_shallow_use_after_a_deep_one_is_told_from_it() -> None:
    """What stays offered looks used to the page tables; the tripwires in it tell the two apart."""
    size = (1 << 30) + 6 * PAGE
    stack = vrange.DeepStack(size)
    deepest = stack.call(depth_used, 60_000)
    for n in (150, 300, 600, 1_000, 5_000, 20_000):
        before = vrange.stack_info().returned_bytes
        used = stack.call(depth_used, n)
        returned = vrange.stack_info().returned_bytes - before
        assert returned + 2 * PAGE >= used - KEPT
        if used < HUGE:  # beyond, all of it is offered again at next to no cost
            assert returned <= 2 * used + KEPT
    before = vrange.stack_info().returned_bytes
    stack.call(len, [])
    assert vrange.stack_info().returned_bytes == before
    before = vrange.stack_info().returned_bytes
    deeper = stack.call(depth_used, 80_000)
    assert deeper > deepest
    assert vrange.stack_info().returned_bytes - before >= deeper - 2 * KEPT


def test_a_shallow_call_leaves_no_more_than_64_kib() -> None:
    size = (1 << 30) + 7 * PAGE
    for release in ("volatile", "now", "keep"):
        stack = vrange.DeepStack(size, release=release)
        for n in (0, 10, 40):
            stack.call(depth_used, n)
        assert use_of(size).resident_bytes <= KEPT


def test_a_frame_that_jumps_over_what_is_looked_at_is_found_in_the_end() -> None:
    """The look after a call reads one page; every 1024th asks the page tables."""
    size = (1 << 30) + 8 * PAGE
    stack = vrange.DeepStack(size, release="now")
    stack.call(len, [])
    (native,) = [use for use in vrange.stack_info().stacks if use.reserved_bytes == size]
    assert native.resident_bytes <= KEPT

    def poke() -> None:
        import ctypes

        anchor = ctypes.c_int()
        libc = ctypes.PyDLL(None)
        libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
        where = deep.here()
        assert where is not None
        top = stack_top(size)
        libc.memset(top - KEPT - 40 * PAGE, 1, PAGE)
        del anchor

    stack.call(poke)
    assert use_of(size).resident_bytes > 0
    resident = [0]
    for _ in range(1100):
        stack.call(len, [])
    resident = [use_of(size).resident_bytes]
    assert resident[0] <= KEPT
    assert use_of(size).high_water_bytes >= KEPT + 40 * PAGE


def stack_top(size: int) -> int:
    """Where the stack of that size ends: huge pages and ordinary ones are mappings side by side."""
    spans: list[list[int]] = []
    with open("/proc/self/maps") as lines:
        for line in lines:
            where, access, *_ = line.split()
            low, high = (int(at, 16) for at in where.split("-"))
            if access == "rw-p" and spans and spans[-1][1] == low:
                spans[-1][1] = high
            elif access == "rw-p":
                spans.append([low, high])
    (top,) = [high for low, high in spans if high - low in (size, size - MIB)]
    return top


def test_resident_memory_stays_flat_over_a_thousand_calls_on_eight_threads() -> None:
    a, b = nested_list(20_000), nested_list(20_000)  # comparing them allocates nothing

    def work() -> None:
        for _ in range(125):
            assert vrange.deep_call(operator.eq, a, b, stack="48MiB")

    def rounds() -> None:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def of_stacks() -> list[int]:
        uses = vrange.stack_info().stacks
        return [use.resident_bytes for use in uses if use.reserved_bytes == 48 * MIB]

    rounds()
    before, stacks = resident_bytes(), of_stacks()
    assert 1 <= len(stacks) <= 8
    assert MIB < max(stacks) < 32 * MIB
    calls = vrange.stack_info().deep_calls
    rounds()
    assert vrange.stack_info().deep_calls - calls == 1000
    assert len(of_stacks()) <= 8
    assert max(of_stacks()) <= max(stacks) + HUGE  # there may be a huge page now, and not then
    assert resident_bytes() - before < 8 * MIB


def test_stack_info_while_a_call_is_deep() -> None:
    size = (1 << 30) + 9 * PAGE
    seen = []

    def bottom() -> None:
        seen.append(use_of(size))

    import functools

    @functools.cache
    def steps(n: int) -> None:
        if n == 0:
            bottom()
        else:
            steps(n - 1)

    vrange.deep_call(steps, 20_000, stack=size)
    assert seen[0].thread_id == threading.get_native_id()
    assert seen[0].resident_bytes > 8 * MIB
    assert seen[0].high_water_bytes >= seen[0].resident_bytes - KEPT
    assert use_of(size).thread_id is None


def test_stack_info_names_the_thread_that_is_on_a_stack_now() -> None:
    """Not the one that was on it meanwhile, nor, in a child, the parent's."""
    answer = output_of(
        """
        import os, threading, vrange
        def seen():
            (use,) = vrange.deep_call(vrange.stack_info).stacks
            return use.thread_id == threading.get_native_id()
        answers = [seen()]
        other = threading.Thread(target=lambda: answers.append(seen()))
        other.start()
        other.join()
        answers.append(seen())
        if os.fork() == 0:
            os._exit(0 if seen() else 1)
        answers.append(os.wait()[1] == 0)
        print(answers)
        """,
        "-W",
        "ignore",
    )
    assert answer == "[True, True, True, True]"


def test_latencies_are_recorded() -> None:
    def count(latency: int) -> int:
        histogram = ffi.new("vrange_histogram *")
        lib.vrange_latency_read(lib.VRANGE_KIND_STACK, latency, histogram)
        return int(histogram.count)

    kinds = (
        lib.VRANGE_FREE_RELEASED,
        lib.VRANGE_FREE_OFFERED,
        lib.VRANGE_REALLOCATE_RESIDENT,
        lib.VRANGE_REALLOCATE_PURGED,
    )
    before = [count(kind) for kind in kinds]
    stack = vrange.DeepStack((1 << 30) + 10 * PAGE)
    for _ in range(3):
        stack.call(depth_used, 5_000)
    released, offered, resident, purged = (
        count(kind) - was for kind, was in zip(kinds, before, strict=True)
    )
    assert (released, offered) == (3, 3)
    assert (resident, purged) == (2, 1)  # the first was a new mapping


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA", "overcommit"])
def test_refused_address_space_is_a_clear_error_and_leaks_nothing(limit: str) -> None:
    if limit == "overcommit":
        if os.geteuid() != 0:
            pytest.skip(reason="vm.overcommit_memory is root's to change")
        with (
            strict_overcommit(),
            pytest.raises(vrange.StackUnavailableError, match="overcommit"),
        ):
            vrange.deep_call(len, [], stack="1TiB")
        return
    # RLIMIT_DATA refuses where overcommit=2 does: when the reserved address space becomes writable
    answer = output_of(
        f"""
        limit = {limit!r}
        import resource, vrange
        from vrange._core import deep
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(getattr(resource, limit), (size + (600 << 20),) * 2)
        own = deep.levels_left()
        for _ in range(3):
            try:
                vrange.deep_call(len, [], stack="4GiB")
            except vrange.StackUnavailableError as error:
                assert "RLIMIT_AS" in str(error) and str(4 << 30) in str(error), error
            else:
                raise AssertionError("got a stack that is not to be had")
        assert deep.levels_left() == own and vrange.stack_info().stacks == ()
        # smaller ones are had, and pooled ones of other sizes make room
        for megabytes in (256, 300, 400, 500, 100, 520):
            assert vrange.deep_call(len, [1], stack=megabytes << 20) == 1
        print("clear")
        """
    )
    assert answer == "clear"
