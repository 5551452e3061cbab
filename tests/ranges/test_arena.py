"""Arenas: places taken and given back, limits of the process and the machine, and their end."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import (
    EAGER,
    MIB,
    PAGE,
    address_of,
    address_of_buffer,
    is_mapped,
    smaps_bytes,
    strict_overcommit,
    succeeds,
    wait_offered,
)

import vrange
from vrange._core import ffi, lib


def test_what_it_says_of_itself() -> None:
    with vrange.Arena("1.5MiB", name="said") as arena:
        assert (arena.size, arena.name, arena.closed) == (3 << 19, "said", False)
        r = arena.allocate(PAGE)
        text = repr(arena)
        assert "<Arena 'said' of 1.5 MiB: 1 ranges, 4.0 KiB pinned" in text
        assert r.state == "pinned"
    assert arena.closed
    assert repr(arena) == "<Arena 'said', closed>"


@pytest.mark.parametrize("size", [0, "0B"])
def test_no_bytes(arena: vrange.Arena, size: int | str) -> None:
    with pytest.raises(ValueError, match="size must be at least 1 byte"):
        vrange.Arena(size)
    with pytest.raises(ValueError, match="nbytes must be at least 1"):
        arena.allocate(size)


@pytest.mark.parametrize("size", [-1, "-4KiB", "many", 1 << 64])
def test_sizes_that_are_none(arena: vrange.Arena, size: int | str) -> None:
    with pytest.raises(ValueError, match="size must"):
        vrange.Arena(size)
    with pytest.raises(ValueError, match="nbytes must"):
        arena.allocate(size)


@pytest.mark.parametrize("size", [None, 1.5, b"4096", True])
def test_types_that_are_no_sizes(arena: vrange.Arena, size: object) -> None:
    with pytest.raises(TypeError, match="size must"):
        vrange.Arena(size)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="nbytes must"):
        arena.allocate(size)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(1, 70 * PAGE), st.integers(0, 30)), max_size=60))
def test_places_never_overlap_and_join_again(steps: list[tuple[int, int]]) -> None:
    size = 257 * PAGE
    with vrange.Arena(size) as arena:
        held: list[tuple[vrange.Range, int]] = []
        for stamp, (nbytes, choice) in enumerate(steps, start=1):
            if choice < len(held):
                r, wanted = held.pop(choice)
                assert bytes(r.buffer) == bytes([wanted]) * r.nbytes
                r.free()
            try:
                r = arena.allocate(nbytes)
            except vrange.ArenaFullError:
                # Sixteen sizes an octave: never refused where a sixteenth more would be free.
                assert sum(-(-r.nbytes // PAGE) for r, _ in held) + nbytes / PAGE > 100
                continue
            content = np.frombuffer(r.buffer, np.uint8)
            assert not content.any()
            content[:] = stamp % 255 + 1
            del content
            held.append((r, stamp % 255 + 1))
        spans = sorted((address_of(r._handle), -(-r.nbytes // PAGE) * PAGE) for r, _ in held)
        for (begin, length), (following, _) in pairwise(spans):
            assert begin + length <= following
        for r, wanted in held:
            assert bytes(r.buffer) == bytes([wanted]) * r.nbytes
            r.free()
        assert arena.stats().ranges == 0
        whole = arena.allocate(size)
        assert bytes(whole.buffer) == bytes(size)


def test_a_full_arena_says_so_and_goes_on(arena: vrange.Arena) -> None:
    ranges = [arena.allocate(MIB) for _ in range(64)]
    with pytest.raises(vrange.ArenaFullError, match=r"no place for 1.0 MiB in arena 'test' of 64"):
        arena.allocate(MIB)
    with pytest.raises(MemoryError):
        arena.allocate(1)
    ranges[10].free()
    again = arena.allocate(MIB)
    assert again.state == "pinned"
    assert bytes(again.buffer) == bytes(MIB)


def test_nothing_is_committed_before_it_is_used() -> None:
    with vrange.Arena("64GiB") as arena:
        assert arena.stats().reserved_bytes == 64 << 30
        r = arena.allocate("16GiB")
        assert r.resident_bytes in (0, r.nbytes)  # one shared page of zeros, or none
        assert smaps_bytes(address_of(r._handle), "Rss") < MIB


def test_freed_memory_goes_at_once(arena: vrange.Arena) -> None:
    r = arena.allocate("8MiB")
    address = address_of(r._handle)
    r.buffer[:] = b"x" * r.nbytes
    assert smaps_bytes(address) >= 8 * MIB
    r.free()
    assert smaps_bytes(address) < MIB


@pytest.mark.parametrize("end", ["close", "collect"])
def test_the_end_of_an_arena_gives_everything_back(end: str) -> None:
    arena = vrange.Arena("32MiB")
    ranges = [arena.allocate(MIB) for _ in range(8)]
    for r in ranges:
        r.buffer[:] = b"x" * MIB
    for r in ranges[::2]:
        r.mark_volatile()
    ranges[0].discard()
    address = address_of(ranges[1]._handle)
    assert is_mapped(address)
    if end == "close":
        arena.close()
        arena.close()
        assert [r.state for r in ranges] == ["freed"] * 8
        ranges[3].free()
        with pytest.raises(ValueError, match="freed, or its arena closed"):
            ranges[2].pin()
        with pytest.raises(ValueError, match="arena 'arena' is closed"):
            arena.allocate(1)
        with pytest.raises(ValueError, match="is closed"), arena:
            pass
    else:
        del r
        del arena, ranges
        gc.collect()
    assert not is_mapped(address)


def test_views_outlive_the_arena_and_then_it_goes() -> None:
    arena = vrange.Arena("32MiB")
    held, other = arena.allocate(MIB), arena.allocate(MIB)
    view = np.frombuffer(held.buffer, np.uint16)[7:70_000:3]
    view[:] = 4711
    address = address_of(other._handle)
    other.mark_volatile()
    arena.close()
    del arena, held, other
    gc.collect()
    assert (view == 4711).all()
    view[:] = 4712
    churn = [vrange.Arena("32MiB") for _ in range(20)]
    blocks = [arena.allocate(MIB) for arena in churn]
    for block in blocks:
        block.buffer[:] = b"z" * MIB
    assert (view == 4712).all()
    del block
    del churn, blocks, view
    gc.collect()
    assert not is_mapped(address)


def test_two_arenas_do_not_share(arena: vrange.Arena) -> None:
    with vrange.Arena("1MiB") as other:
        one, two = arena.allocate(PAGE), other.allocate(PAGE)
        one.buffer[:1], two.buffer[:1] = b"1", b"2"
        other.close()
        assert bytes(one.buffer[:1]) == b"1"
        assert two.state == "freed"


def test_many_arenas_come_and_go() -> None:
    before = len(Path("/proc/self/maps").read_text().splitlines())
    for _ in range(300):
        arena = vrange.Arena("1GiB")
        r = arena.allocate(PAGE)
        r.buffer[:1] = b"x"
        r.mark_volatile()
        del arena, r
    gc.collect()
    assert len(Path("/proc/self/maps").read_text().splitlines()) < before + 20


def test_an_arena_stays_a_few_mappings(arena: vrange.Arena) -> None:
    before = len(Path("/proc/self/maps").read_text().splitlines())
    ranges = [arena.allocate(PAGE) for _ in range(2000)]
    for r in ranges:
        r.buffer[:1] = b"x"
    for r in ranges[::2]:
        r.mark_volatile()
        if not EAGER:
            wait_offered(r._handle)
    for r in ranges[::3]:
        r.free()
    assert len(Path("/proc/self/maps").read_text().splitlines()) < before + 20


def test_limit_of_address_space() -> None:
    code = """
    import vrange
    try:
        vrange.Arena("4GiB", name="large")
    except vrange.ArenaFullError as error:
        print(error)
    with vrange.Arena("64MiB") as arena:
        arena.allocate("32MiB").buffer[:5] = b"hello"
    cache = vrange.VolatileCache()
    for number in range(2000):
        value = bytes([number % 251]) * 500_000
        assert cache.get_or_compute(number, lambda: value) == value
    reserved = vrange.stats().accounts[0].reserved_bytes
    print(reserved <= 1 << 30, cache.info().entries > 20, cache.info().evicted_bytes > 0)
    """
    told = succeeds(
        code, prepare=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    ).splitlines()
    assert told[0].startswith(
        "4.0 GiB of address space for 'large' can't be reserved: "
        "RLIMIT_AS (ulimit -v) is 1.0 GiB, of which "
    )
    assert told[1] == "True True True"


@pytest.mark.skipif(os.geteuid() != 0, reason="vm.overcommit_memory is root's to change")
def test_strict_accounting_of_commitments() -> None:
    code = """
    import vrange
    from pathlib import Path
    def committed():
        total = size = 0
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if line.startswith("Size:"):
                size = int(line.split()[1]) * 1024
            elif line.startswith("VmFlags:") and "ac" in line.split():
                total += size
        return total
    before = committed()
    arena = vrange.Arena("512GiB")
    assert committed() - before < 256 << 20, "reserving commits"
    r = arena.allocate("100MiB")
    r.buffer[:] = b"x" * r.nbytes
    r.mark_volatile()
    r.discard()
    assert r.pin()
    assert committed() - before < 1 << 30
    try:
        arena.allocate("400GiB")
    except vrange.ArenaFullError as error:
        print(error)
    assert arena.allocate("1MiB").state == "pinned"
    with vrange.VolatileCache(hot_bytes=0) as cache:
        cache["k"] = b"v" * 100_000
        assert cache["k"] == b"v" * 100_000
    """
    with strict_overcommit():
        told = succeeds(code)
    assert "no place for 400.0 GiB in arena 'arena' of 512.0 GiB: Cannot allocate memory" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lock so much memory")
@pytest.mark.parametrize("when", ["before", "after"])
def test_locked_memory_loses_nothing_and_is_zeroed(when: str) -> None:
    code = """
    import ctypes, sys, vrange
    def lock():
        assert ctypes.CDLL(None).mlockall(1 | 2) == 0
    if sys.argv[1] == "before":
        lock()
    arena = vrange.Arena("8MiB")
    r = arena.allocate(8192)
    r.buffer[:] = b"x" * 8192
    if sys.argv[1] == "after":
        lock()
    r.mark_volatile()
    assert not r.pin()
    assert bytes(r.buffer) == b"x" * 8192
    for _ in range(2):
        r.mark_volatile()
        r.discard()
        assert r.pin()
        assert bytes(r.buffer) == bytes(8192), "what was lost reads as zeros"
        r.buffer[:] = b"x" * 8192
    r.free()
    assert bytes(arena.allocate(8192).buffer) == bytes(8192), "a fresh range is zeroed"
    with vrange.VolatileCache(arena_bytes="8MiB", hot_bytes=0) as cache:
        cache["k"] = b"x" * 8192
        assert cache["k"] == b"x" * 8192
        cache.discard()
        assert cache.get("k") is None
    """
    # Locked memory can't be offered: who locks it first is on the eager rung, and told so.
    succeeds(code, when, environment={"VRANGE_RUNG": ""} if when == "before" else None)


def test_storing_in_what_another_arena_left(arena: vrange.Arena) -> None:
    """The descriptors are recycled among arenas: stale handles reach nobody."""
    stale = []
    for _ in range(50):
        other = vrange.Arena("1MiB")
        stale += [other.allocate(PAGE) for _ in range(20)]
        other.close()
    fresh = [arena.allocate(PAGE) for _ in range(1000)]
    for r in fresh:
        r.buffer[:8] = b"untouched"[:8]
    for r in stale:
        assert r.state == "freed"
        r.free()
    assert all(bytes(r.buffer[:8]) == b"untouche" for r in fresh)
    assert all(address_of_buffer(r.buffer) == address_of(r._handle) for r in fresh)


def test_a_range_that_lies_in_two_mappings(arena: vrange.Arena) -> None:
    """The kernel may split an arena's mapping, and never join it again."""
    r = arena.allocate(arena.size)
    address = address_of(r._handle)
    r.free()
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (3, 700):  # no advice at all, but kept with the mapping
        start = ctypes.c_void_p(address + page * PAGE)
        assert libc.madvise(start, ctypes.c_size_t(PAGE), 10) == 0  # MADV_DONTFORK
    before = len(Path("/proc/self/maps").read_text().splitlines())
    r = arena.allocate(MIB)
    assert bytes(r.buffer) == bytes(MIB)
    r.buffer[:] = b"x" * MIB
    r.mark_volatile()
    r.discard()
    assert r.pin()
    assert bytes(r.buffer) == bytes(MIB)
    r.free()
    handle = ffi.new("uint64_t *")
    content = os.urandom(4 * MIB)
    parts = ffi.new("vrange_part[1]", [{"data": ffi.from_buffer(content), "bytes": len(content)}])
    assert lib.vrange_store(arena._native, parts, 1, 0, 0, handle) == lib.VRANGE_OK
    assert bytes(ffi.buffer(lib.vrange_address(handle[0]), 4 * MIB)) == content
    assert len(Path("/proc/self/maps").read_text().splitlines()) >= before
    lib.vrange_free(handle[0])
