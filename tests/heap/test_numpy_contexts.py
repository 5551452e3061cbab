"""The heap in contexts that no caller of use_for_numpy is in: where frameworks run their tasks."""

from __future__ import annotations

import _thread
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import succeeds

import vrange.heap
from vrange._core import numpy_handler
from vrange.heap import use_for_numpy

MIB = 1 << 20


def handler() -> str:
    core: Any = np._core  # type: ignore[attr-defined]  # private: not in the stubs
    return str(core.multiarray.get_handler_name())


def heap_bytes_of_an_array() -> int:
    before = vrange.heap.info().used_bytes
    array = np.ones(MIB)
    used = vrange.heap.info().used_bytes - before
    assert (array == 1).all()
    return used


def in_context_of_before(run: Callable[[], Any]) -> Any:
    """As Dask does: a context copied from one that has set nothing."""
    return contextvars.Context().run(lambda: contextvars.copy_context().run(run))


def in_thread_without_threading(run: Callable[[], Any]) -> Any:
    told: list[Any] = []
    over = threading.Event()

    def body() -> None:
        told.append(run())
        over.set()

    _thread.start_new_thread(body, ())
    assert over.wait(20)
    return told[0]


PLACES = [in_context_of_before, in_thread_without_threading]


@pytest.mark.parametrize("place", PLACES)
def test_arrays_of_every_context_come_from_the_heap(place: Callable[..., Any]) -> None:
    with use_for_numpy():
        assert place(heap_bytes_of_an_array) == 0
    with use_for_numpy(new_threads=True):
        assert place(heap_bytes_of_an_array) >= 8 * MIB
        assert place(handler) == "vrange"
    assert place(heap_bytes_of_an_array) == 0
    assert place(handler) == "default_allocator"


def test_a_thread_that_waited_has_it_too() -> None:
    begin, over = threading.Event(), threading.Event()
    told: list[int] = []

    def wait() -> None:
        begin.wait(20)
        told.append(heap_bytes_of_an_array())
        over.set()

    threading.Thread(target=wait).start()
    with use_for_numpy(new_threads=True):
        begin.set()
        assert over.wait(20)
    assert told[0] >= 8 * MIB


def test_uses_are_counted() -> None:
    first, second = use_for_numpy(new_threads=True), use_for_numpy(new_threads=True)
    second.close()
    assert in_context_of_before(handler) == "vrange"
    first.close()
    first.close()
    assert in_context_of_before(handler) == "default_allocator"
    with pytest.raises(RuntimeError, match="not the default"):
        numpy_handler.use_as_default(False)


def test_arrays_cross_the_switch_both_ways() -> None:
    def make() -> np.ndarray:
        return np.arange(200_000)

    want = make()
    from_before = in_context_of_before(make)
    with use_for_numpy(new_threads=True):
        ours = in_context_of_before(make)
        from_before.resize(300_000, refcheck=False)
    used = vrange.heap.info().used_bytes
    ours.resize(300_000, refcheck=False)
    assert (from_before[:200_000] == want).all()
    assert (ours[:200_000] == want).all()
    assert not ours[200_000:].any()
    ours.resize(10, refcheck=False)
    assert (ours == np.arange(10)).all()
    del ours
    assert vrange.heap.info().used_bytes < used


def test_small_arrays_and_the_end_of_the_process() -> None:
    succeeds(
        """
        import contextvars, sys, threading
        import numpy as np, vrange.heap
        before = [np.ones(n) for n in range(1, 2000, 7)]
        vrange.heap.use_for_numpy(new_threads=True)
        def work():
            for n in range(1, 5000, 7):
                a = np.zeros(n * 10)
                assert not a.any()
                a += 1
                b = np.concatenate([a, a])
                assert b.sum() == n * 20
        threads = [threading.Thread(target=contextvars.Context().run, args=(work,)) for _ in "ab"]
        for t in threads: t.start()
        before.clear()
        for t in threads: t.join()
        sys.kept = [np.arange(100_000)]
        """
    )
