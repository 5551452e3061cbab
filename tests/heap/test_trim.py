"""vrange.heap.trim: what each source gives back, seen from outside, and what is refused."""

from __future__ import annotations

import asyncio
import ctypes.util
import re
import threading
from pathlib import Path

import pytest
from heap.outside import Child
from support import FORK_WITH_THREADS, succeeds, wait_until

import vrange
from vrange.heap import Trimmed, allocators, trim

MANY = """
import gc, vrange.heap

everything = [{"id": i, "s": f"item{i}"} for i in range(400_000)]
kept = everything[::1000]
stop("full")
del everything
gc.collect()
stop("dropped")
"""
CHECK = """
assert all(one["s"] == f"item{one['id']}" for one in kept)
"""


@pytest.mark.parametrize("deep", [2, "shallow", None, "Holes"])
def test_another_depth_is_refused(deep: object) -> None:
    with pytest.raises(ValueError, match=r"deep must be False, True or 'holes', not"):
        trim(deep)  # type: ignore[arg-type]


def test_the_sum_is_that_of_its_sources() -> None:
    trimmed = trim()
    assert isinstance(trimmed, int)
    assert trimmed == sum(trimmed.by_source.values())
    assert {"stacks", "arrays", "glibc"} <= set(trimmed.by_source)
    assert "pymalloc" not in trimmed.by_source
    assert re.match(r"<Trimmed .*: stacks .*glibc .*>", repr(trimmed))


def test_glibc_gives_back_what_malloc_trim_can() -> None:
    """With PYTHONMALLOC=malloc every object is glibc's: this is what comes down furthest."""
    code = MANY + "trimmed = vrange.heap.trim()\nstop(trimmed.by_source['glibc'])" + CHECK
    with Child(code, PYTHONMALLOC="malloc") as child:
        child.next_stop()
        full = child.anonymous_mib()
        child.next_stop()
        dropped = child.anonymous_mib()
        told = int(child.next_stop()) / 2**20
        left = child.anonymous_mib()
        assert left < full / 4
        assert told == pytest.approx(dropped - left, abs=2)
        child.finish()


def library(name: str) -> str:
    found = ctypes.util.find_library(name)
    if found is None:
        pytest.skip(f"lib{name} is not installed")
    return found


@pytest.mark.parametrize(
    ("source", "name"),
    [("jemalloc", "jemalloc"), ("mimalloc", "mimalloc"), ("tcmalloc", "tcmalloc_minimal")],
)
def test_a_preloaded_allocator_gives_back_through_its_own_call(source: str, name: str) -> None:
    """Blocks of a size that each keeps for its next use; nothing else frees them for a while."""
    code = f"""
    import ctypes, vrange.heap
    from vrange.heap import allocators

    assert "{source}" in allocators.loaded(), allocators.loaded()
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(48 << 10) for _ in range(2000)]
    for block in blocks:
        ctypes.memset(block, 1, 48 << 10)
    stop("full")
    for block in blocks:
        libc.free(block)
    stop("freed")
    trimmed = vrange.heap.trim()
    stop(trimmed.by_source["{source}"])
    """
    delay = {"MIMALLOC_PURGE_DELAY": "100000", "MALLOC_CONF": "dirty_decay_ms:100000"}
    with Child(code, LD_PRELOAD=library(name), PYTHONMALLOC="pymalloc", **delay) as child:
        child.next_stop()
        full = child.anonymous_mib()
        child.next_stop()
        freed = child.anonymous_mib()
        told = int(child.next_stop()) / 2**20
        left = child.anonymous_mib()
        child.finish()
    assert full > 90
    assert freed > 60, "it gave all back by itself: there was nothing to show"
    assert left < freed - 50
    assert told == pytest.approx(freed - left, abs=3)


def test_a_pool_is_asked_only_where_its_library_is_imported() -> None:
    pytest.importorskip("pyarrow")
    succeeds(
        """
        import sys
        import vrange.heap

        assert "pyarrow" not in vrange.heap.trim().by_source
        assert "pyarrow" not in sys.modules
        import pyarrow

        del pyarrow.allocate_buffer, sys
        assert "pyarrow" in vrange.heap.trim().by_source
        """
    )


def test_a_pool_that_fails_is_reported_and_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr("vrange.heap.pools.imported", lambda: {"somebody": broken})
    trimmed = trim()
    assert trimmed.refused == {"somebody": "RuntimeError('not today')"}
    assert "glibc" in trimmed.by_source


def test_stacks_that_nobody_runs_on_go() -> None:
    code = """
    import ctypes, functools, vrange, vrange.heap

    @functools.cache
    def deep(n):
        return n and 1 + deep(n - 1)

    def call():
        deep.cache_clear()
        return vrange.deep_call(deep, 50_000, stack=vrange.DeepStack("1GiB", release="keep"))

    assert call() == 50_000
    deep.cache_clear()
    stop("used")
    trimmed = vrange.heap.trim()
    stop(trimmed.by_source["stacks"])
    assert not vrange.stack_info().stacks
    assert call() == 50_000
    """
    with Child(code) as child:
        child.next_stop()
        used = child.anonymous_mib()
        told = int(child.next_stop()) / 2**20
        assert told > 5
        assert child.anonymous_mib() < used - told / 2
        child.finish()


def test_an_event_loop_waits_only_for_the_quick_sources() -> None:
    """The thread that asks the slow ones waits for the loop's turn to be over."""
    order: list[str] = []
    held = threading.Event()

    def slow() -> None:
        held.wait(20)
        order.append("slow source")

    async def main() -> Trimmed:
        trimmed = trim()
        order.append("loop goes on")
        held.set()
        return trimmed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vrange.heap.pools.imported", lambda: {"somebody": slow})
        trimmed = asyncio.run(main())
        assert set(trimmed.later) == {"somebody", *allocators.loaded()}
        assert set(trimmed.by_source) == {"stacks", "arrays"}
        wait_until(lambda: len(order) == 2, "the slow source is not asked")
    assert order == ["loop goes on", "slow source"]

    async def all_of_it() -> Trimmed:
        return await asyncio.to_thread(trim)

    whole = asyncio.run(all_of_it())
    assert not whole.later
    assert "glibc" in whole.by_source


def test_what_gave_something_back_is_counted() -> None:
    before = vrange.stats().time_to_free["heap", "released"].count
    block = ctypes.create_string_buffer(64 << 10)
    kept = [ctypes.create_string_buffer(100_000) for _ in range(200)]
    last = ctypes.create_string_buffer(10_000)
    for one in kept:
        ctypes.memset(one, 1, len(one))
    del kept
    trimmed = trim()
    assert trimmed > 0, (block, last)
    assert vrange.stats().time_to_free["heap", "released"].count == before + 1


def test_a_forked_child_trims() -> None:
    succeeds(
        """
        import os, threading, vrange.heap

        started, over = threading.Event(), threading.Event()

        def on_and_on():
            while not over.is_set():
                vrange.heap.trim()
                started.set()

        thread = threading.Thread(target=on_and_on)
        thread.start()
        started.wait()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                vrange.heap.trim()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        over.set()
        thread.join()
        """,
        environment=FORK_WITH_THREADS,
    )


def test_the_packages_that_ci_needs_are_named_there() -> None:
    """The tests above skip without them, and CI may skip none."""
    ci = (Path(__file__).parents[2] / ".ci" / "run").read_text()
    assert all(name in ci for name in ("libjemalloc2", "libmimalloc2.0", "libtcmalloc-minimal4"))
