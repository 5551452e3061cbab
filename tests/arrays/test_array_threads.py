"""Threads that touch and pin one array, while another one makes the kernel take it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_child import KIB, MIB
from array_support import Counting, as_buffer, counts, ends_well, on_refault


def together(*tasks: Callable[[], Any]) -> list[Any]:
    """What the tasks returned; they start as nearly together as threads can."""
    results: list[Any] = [None] * len(tasks)
    barrier = threading.Barrier(len(tasks))

    def run(i: int) -> None:
        barrier.wait()
        try:
            results[i] = tasks[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@on_refault
@pytest.mark.parametrize("block_bytes", [4 * KIB, 64 * KIB, 2 * MIB])
def test_threads_while_blocks_are_lost(counting: Counting, block_bytes: int) -> None:
    a = counting(4 * MIB / block_bytes, block_bytes)
    whole = np.asarray(a)
    expected = np.arange(a.size, dtype="u8")
    digest = hashlib.sha256(as_buffer(expected)).digest()
    rounds = 12
    going_on = True

    def lose() -> int:
        lost = 0
        while going_on:
            lost += a.resident_bytes
            a.discard()
        return lost

    def hashed() -> bool:  # without the GIL
        return all(hashlib.sha256(as_buffer(whole)).digest() == digest for _ in range(rounds))

    def summed() -> bool:  # a ufunc, without the GIL
        return all(np.array_equal(np.add(whole, 1), expected + 1) for _ in range(rounds))

    def picked() -> bool:  # with the GIL
        return all(int(whole[i]) == i for i in range(0, a.size, a.size // 500))

    def pinned() -> bool:
        seen = True
        for start in range(0, a.size - 5000, a.size // 20):
            with a.pin(slice(start, start + 5000)) as view:
                seen &= counts(view)
        return seen

    def reads() -> list[bool]:
        nonlocal going_on
        try:
            return together(hashed, summed, picked, pinned)
        finally:
            going_on = False

    lost, right = together(lose, reads)
    assert all(right)
    assert lost >= a.nbytes
    assert a.refaults > 10 or block_bytes > MIB  # sequences are read ahead


@on_refault
def test_two_threads_in_one_block() -> None:
    code = """
    import hashlib
    ffi, c = fill_functions()
    seen = ffi.new("crowd *")
    fill = vrange.fills.native(c.slow_ones, seen)
    a = vrange.VolatileArray(65536, "u1", fill=fill)
    view = np.asarray(a)
    for _ in range(20):
        a.discard()
        meet = threading.Barrier(3)
        def touch(place):
            meet.wait()
            sums.append(hashlib.sha256(view[place:place + 9000]).digest())
        sums = []
        threads = [threading.Thread(target=touch, args=(i * 20000,)) for i in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert sums == [hashlib.sha256(b"\\1" * 9000).digest()] * 3
    assert seen.most >= 2, seen.most
    """
    assert ends_well(code) == ""
