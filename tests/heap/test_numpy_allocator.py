"""NumPy's array data from the heap: content, reuse, and what the kernel can take of it."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heap.outside import Child
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support import EAGER, FORK_WITH_THREADS, python, succeeds, wait_until

import vrange
import vrange.heap
from vrange.cli.memory_cgroup import MemoryCgroup
from vrange.heap import use_for_numpy

multiarray: Any = (np._core if hasattr(np, "_core") else np.core).multiarray
MIB = 1 << 20


def handler(array: np.ndarray | None = None) -> str:
    return str(multiarray.get_handler_name(*([] if array is None else [array])))


@pytest.fixture
def heap() -> Iterator[use_for_numpy]:
    with use_for_numpy() as heap:
        yield heap


def test_arrays_come_from_the_heap_and_outlive_the_switch() -> None:
    used = vrange.heap.info().used_bytes
    with use_for_numpy():
        array = np.arange(MIB)
        assert handler(array) == handler() == "vrange"
        assert vrange.heap.info().used_bytes == used + 8 * MIB
    assert handler() == "default_allocator"
    assert handler(np.arange(MIB)) == "default_allocator"
    assert array[-1] == MIB - 1
    del array
    assert vrange.heap.info().used_bytes == used


def test_arrays_from_before_outlive_it_too() -> None:
    before = np.arange(MIB)
    with use_for_numpy():
        before.resize(2 * MIB, refcheck=False)
        assert before[MIB - 1] == MIB - 1
        assert not before[MIB:].any()
        del before


def test_nested_and_closed_twice() -> None:
    with use_for_numpy(), use_for_numpy() as inner:
        assert handler() == "vrange"
        inner.close()
        inner.close()
        assert handler() == "vrange"
    assert handler() == "default_allocator"


def test_small_blocks_are_numpys_own(heap: use_for_numpy) -> None:
    before = vrange.heap.info().used_bytes
    small = np.ones(1000)
    assert handler(small) == "vrange"
    assert vrange.heap.info().used_bytes == before
    small.resize(MIB, refcheck=False)
    assert small[:1000].all()
    assert not small[1000:].any()


def test_zeros_are_zeros_where_something_was(heap: use_for_numpy) -> None:
    for size in (64 << 10, 100_000, 3 * MIB, 40 * MIB):
        for _ in range(3):
            array = np.zeros(size, np.uint8)
            assert not array.any()
            array[:] = 0xFF
            del array


@pytest.mark.parametrize("first", [1000, 100_000, 3_000_000])
@pytest.mark.parametrize("then", [10, 1000, 100_000, 110_000, 6_000_000])
def test_resized_arrays_keep_their_content(heap: use_for_numpy, first: int, then: int) -> None:
    array = np.arange(first)
    array.resize(then, refcheck=False)
    kept = min(first, then)
    assert (array[:kept] == np.arange(kept)).all()
    assert not array[kept:].any()


def test_a_freed_block_is_used_again_without_a_fault() -> None:
    import resource

    with use_for_numpy():
        array = np.ones(4 * MIB)
        address = array.ctypes.data
        del array
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        array = np.ones(4 * MIB)
        faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
        assert array.ctypes.data == address
    assert faults < 50


def test_what_is_freed_is_offered_and_not_before(heap: use_for_numpy) -> None:
    array = np.ones(16 * MIB, np.uint8)
    offered = vrange.heap.info().offered_bytes
    del array
    assert vrange.heap.info().idle_bytes >= 16 * MIB
    wait_until(lambda: vrange.heap.info().offered_bytes >= offered + 16 * MIB, "it is not offered")
    wait_until(lambda: vrange.heap.info().idle_bytes == 0, "something stays idle")
    assert "offered" in repr(heap)
    accounts = [one for one in vrange.stats().accounts if one.kind == "heap"]
    assert [one.name for one in accounts] == ["numpy"]
    assert accounts[0].offered_bytes >= 16 * MIB


@pytest.mark.memory_cgroup
@pytest.mark.skipif(EAGER, reason="on the eager rung nothing is left to take")
def test_another_process_that_needs_it_gets_what_was_freed() -> None:
    """Both in a cgroup in which there is no room for both."""
    ours = """
    import numpy as np, time, vrange.heap

    vrange.heap.use_for_numpy()
    stop("begun")
    arrays = [np.ones(50 << 20, np.uint8) for _ in range(6)]
    stop("full")
    del arrays
    while vrange.heap.info().idle_bytes:
        time.sleep(0.001)
    stop("freed")
    again = np.ones(50 << 20, np.uint8)
    assert again.all()
    """
    theirs = """
    stop("begun")
    needed = bytearray(420 << 20)
    stop("has it")
    """
    with MemoryCgroup(512 * MIB) as group, Child(ours) as one, Child(theirs) as other:
        one.next_stop()
        other.next_stop()
        group.add(one.process.pid)
        group.add(other.process.pid)
        base = one.anonymous_mib()
        one.next_stop()
        assert one.anonymous_mib() > base + 295
        one.next_stop()
        freed = one.anonymous_mib() - base
        assert freed > 290, "it went by itself: nothing was kept for the next use"
        assert other.next_stop() == "has it"
        other.process.kill()
        # 420 of 512 MiB, and ours what it was: of 300 at most what the limit leaves is still there.
        assert one.anonymous_mib() - base < 0.4 * freed
        one.finish()


def test_trim_gives_all_of_it_back() -> None:
    code = """
    import numpy as np, vrange.heap

    vrange.heap.use_for_numpy()
    kept = np.arange(1 << 20)
    np.ones(100 << 20, np.uint8)
    stop("freed")
    stop(vrange.heap.trim().by_source["arrays"])
    assert kept[-1] == (1 << 20) - 1
    """
    with Child(code) as child:
        child.next_stop()
        freed = child.anonymous_mib()
        assert int(child.next_stop()) >= 100 * MIB
        assert child.anonymous_mib() < freed - 95
        child.finish()


class Arrays(RuleBasedStateMachine):
    """Arrays made, resized, filled and dropped in any order hold what was put there."""

    def __init__(self) -> None:
        super().__init__()
        self.use = use_for_numpy()
        self.arrays: list[tuple[np.ndarray, int]] = []
        self.stamp = 0

    sizes = st.one_of(st.integers(1, 40_000), st.integers(40_000, 700_000))

    def next_stamp(self) -> int:
        self.stamp = self.stamp % 250 + 1
        return self.stamp

    @rule(size=sizes)
    def fill(self, size: int) -> None:
        stamp = self.next_stamp()
        self.arrays.append((np.full(size, stamp, np.uint16), stamp))

    @rule(size=sizes)
    def zeros(self, size: int) -> None:
        array = np.zeros(size, np.uint16)
        assert not array.any()
        self.arrays.append((array, 0))

    @rule(size=sizes, which=st.integers(0, 99))
    def resize(self, size: int, which: int) -> None:
        if self.arrays:
            array, stamp = self.arrays.pop(which % len(self.arrays))
            kept = min(size, len(array))
            array.resize(size, refcheck=False)
            assert (array[:kept] == stamp).all()
            assert not array[kept:].any()
            array[:] = stamp
            self.arrays.append((array, stamp))

    @rule(which=st.integers(0, 99))
    def drop(self, which: int) -> None:
        if self.arrays:
            array, stamp = self.arrays.pop(which % len(self.arrays))
            assert (array == stamp).all()

    @rule()
    def trim(self) -> None:
        from vrange._core import lib

        lib.vrange_heap_trim()

    @rule()
    def switch(self) -> None:
        self.use.close()
        self.use = use_for_numpy()

    @invariant()
    def nothing_was_overwritten(self) -> None:
        assert all(
            (array[:: max(1, len(array) // 64)] == stamp).all() for array, stamp in self.arrays
        )

    def teardown(self) -> None:
        self.use.close()


TestArrays = Arrays.TestCase
TestArrays.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_threads_that_allocate_and_free_each_others_arrays() -> None:
    def work(seed: int) -> int:
        rng = np.random.default_rng(seed)
        for turn in range(150):
            array = np.full(int(rng.integers(10_000, 600_000)), seed * 1000 + turn)
            with lock:
                shelf.append((array, seed * 1000 + turn))
                taken, stamp = shelf.pop(int(rng.integers(len(shelf))))
            assert (taken == stamp).all()
            del taken, array
        return seed

    lock = threading.Lock()
    shelf: list[tuple[np.ndarray, int]] = []
    with ThreadPoolExecutor(4, initializer=use_for_numpy) as executor:
        assert list(executor.map(work, range(4))) == [0, 1, 2, 3]
    assert all((array == stamp).all() for array, stamp in shelf)


def in_a_thread() -> str:
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(handler()))
    thread.start()
    thread.join()
    return told[0]


def test_other_threads_are_told_of_it_in_ways_one_sees() -> None:
    plain = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]
    with use_for_numpy():
        assert in_a_thread() == "default_allocator"
        with ThreadPoolExecutor(1, initializer=use_for_numpy) as executor:
            assert executor.submit(handler).result() == "vrange"
    with use_for_numpy(new_threads=True), use_for_numpy(new_threads=True):
        assert in_a_thread() == "vrange"
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(handler).result() == "vrange"
    assert in_a_thread() == "default_allocator"
    assert threading.Thread._bootstrap_inner is plain  # type: ignore[attr-defined]


def test_tasks_have_it_from_where_they_were_made(heap: use_for_numpy) -> None:
    async def told() -> str:
        return handler()

    async def main() -> tuple[str, str, str]:
        task = asyncio.create_task(told())
        return await told(), await task, await asyncio.to_thread(handler)

    assert asyncio.run(main()) == ("vrange", "vrange", "vrange")


def test_closing_on_another_thread_is_refused(heap: use_for_numpy) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(RuntimeError, match="on the thread"):
        executor.submit(heap.close).result()
    assert handler() == "vrange"


def test_copies_views_and_pickles(heap: use_for_numpy) -> None:
    array = np.arange(300_000).reshape(300, 1000)
    view = array[::2, ::3].copy()
    loaded = pickle.loads(pickle.dumps(array, protocol=5))
    del array
    assert (view == np.arange(300_000).reshape(300, 1000)[::2, ::3]).all()
    assert (loaded.ravel() == np.arange(300_000)).all()


def test_a_forked_child_goes_on() -> None:
    succeeds(
        """
        import os, threading
        import numpy as np, vrange.heap

        vrange.heap.use_for_numpy(new_threads=True)
        over = threading.Event()

        def come_and_go():
            while not over.is_set():
                np.ones(200_000)

        threads = [threading.Thread(target=come_and_go) for _ in range(2)]
        for thread in threads:
            thread.start()
        kept = np.arange(1_000_000)
        for _ in range(20):
            child = os.fork()
            if child == 0:
                right = all((np.full(300_000, n) == n).all() for n in range(20))
                kept += 1
                right = right and kept[-1] == 1_000_000
                kept = None
                again = np.zeros(1_000_000)
                vrange.heap.trim()
                os._exit(0 if right and not again.any() else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert kept[-1] == 999_999
        over.set()
        for thread in threads:
            thread.join()
        """,
        environment=FORK_WITH_THREADS,
    )


def test_arrays_that_live_until_the_end() -> None:
    succeeds(
        """
        import numpy as np, sys, vrange.heap

        vrange.heap.use_for_numpy(new_threads=True)
        sys.modules["kept"] = np.arange(1_000_000)
        cycle = [np.ones(1_000_000)]
        cycle.append(cycle)
        """
    )


def test_without_numpy_it_says_which_extra() -> None:
    told = succeeds(
        """
        import sys

        sys.modules["numpy"] = None
        import vrange.heap

        assert vrange.heap.info().blocks == 0
        vrange.heap.trim()
        try:
            vrange.heap.use_for_numpy()
        except ImportError as error:
            print(error)
        """
    )
    assert "pip install 'vrange[numpy]'" in told


def test_a_block_freed_twice_ends_the_process_with_a_message() -> None:
    done = python(
        """
        import ctypes
        import numpy as np, vrange.heap
        from vrange._core import numpy_handler

        vrange.heap.use_for_numpy()
        array = np.ones(1_000_000)
        capsule = numpy_handler.get()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        words = ctypes.cast(pointer(capsule, b"mem_handler") + 128, ctypes.POINTER(ctypes.c_void_p))
        free = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(words[4])
        free(None, array.ctypes.data, array.nbytes)
        free(None, array.ctypes.data, array.nbytes)
        """
    )
    assert done.returncode == -6
    assert "freed twice" in done.stderr


def test_numpys_own_tests() -> None:
    """The short version: scripts/test-numpy-on-heap takes all of them."""
    script = Path(__file__).parents[2] / "scripts" / "test-numpy-on-heap"
    tests = ["numpy/_core/tests/test_item_selection.py", "numpy/_core/tests/test_indexing.py"]
    done = subprocess.run(
        [sys.executable, str(script), *tests, "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "blocks were allocated from the heap" in done.stdout
