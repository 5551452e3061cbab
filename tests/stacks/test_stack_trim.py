"""A thread trims its own stack, or is told why not."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, cast

import pytest
from deep_helpers import KEPT, MIB
from idle_support import Worker

import vrange


def use_stack(levels: int = 900) -> None:
    """Uses hundreds of KiB of C stack: repr of nested lists, below every version's limit."""
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    with contextlib.suppress(RecursionError):
        repr(nested)


def test_trim_stack_in_a_thread() -> None:
    def block(worker: Worker) -> tuple[int, int, int, int]:
        before = worker.use().resident_bytes
        returned = vrange.trim_stack()
        return before, returned, worker.use().resident_bytes, vrange.trim_stack()

    figures = cast("tuple[int, int, int, int]", Worker(block).join())
    before, returned, after, again = figures
    assert before > 8 * MIB
    assert returned > 7 * MIB
    assert after <= 2 * KEPT
    assert again <= 2 * KEPT


def test_trim_stack_needs_no_registration() -> None:
    results: list[object] = []

    def work() -> None:
        use_stack()
        results.append(vrange.trim_stack())
        use_stack()
        results.append(vrange.trim_stack("volatile"))
        results.append([repr(i) for i in range(3)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    first, second, after = results
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert first > 0
    assert second > 0
    assert after == ["0", "1", "2"]


def test_trim_stack_inside_a_deep_call() -> None:
    def inside() -> tuple[int, int]:
        import functools

        @functools.cache
        def steps(n: int) -> int:
            return 0 if n == 0 else 1 + steps(n - 1)

        steps(20_000)
        return vrange.trim_stack(), vrange.trim_stack()

    first, second = vrange.deep_call(inside, stack="112MiB")
    assert first > 8 * MIB
    assert second < 2 * KEPT


def test_the_main_threads_own_stack_is_refused() -> None:
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(vrange.VrangeError, match="main thread's own stack"):
        vrange.trim_stack()
    with pytest.raises(vrange.VrangeError, match="main thread's own stack"):
        vrange.register_thread()


def test_arguments_that_are_none() -> None:
    for trim in (vrange.trim_stack, vrange.trim_idle_stacks):
        with pytest.raises(ValueError, match="'now' or 'volatile'"):
            trim("keep")
        with pytest.raises(ValueError, match="release"):
            trim("soon")  # type: ignore[arg-type]
    for wait in (-1, float("nan")):
        with pytest.raises(ValueError, match="wait"):
            vrange.trim_idle_stacks(wait=wait)
