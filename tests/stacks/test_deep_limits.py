"""Recursion limits: what the stack carries inside, for this thread alone, and as before after."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import pytest
from deep_helpers import MIB, cached_raiser, cached_steps, limits_unchanged, nested_list

import vrange
from vrange._core import deep


def test_levels_grow_with_the_stack_and_only_inside() -> None:
    with limits_unchanged():
        own = deep.levels_left()
        small = vrange.deep_call(deep.levels_left, stack="1MiB")
        large = vrange.deep_call(deep.levels_left, stack="64MiB")
    assert own[0] + 1500 < small[0] < small[0] + 50_000 < large[0]
    if sys.version_info < (3, 14):
        assert own[1] is not None
        assert small[1] is not None
        assert large[1] is not None
        assert own[1] + 500 < small[1] < small[1] + 50_000 < large[1]


def test_this_interpreters_limits_were_found_where_they_are_known_to_be() -> None:
    known = {11: (32, 32), 12: (28, 36), 13: (44, 52), 14: (48, -1), 15: (52, -1)}
    python, c, bounds, refusal = deep.limits()
    assert refusal is None
    assert (python, c) == known[sys.version_info.minor]
    assert bounds == (sys.version_info >= (3, 14))


def test_other_threads_keep_their_limits() -> None:
    inside, done, seen = threading.Event(), threading.Event(), []

    def look() -> None:
        inside.wait()
        seen.append(deep.levels_left())
        with pytest.raises(RecursionError):
            cached_steps()(20_000)
        done.set()

    other = threading.Thread(target=look)
    other.start()

    def f() -> tuple[int, int | None]:
        inside.set()
        assert done.wait(30)
        return deep.levels_left()

    ours = vrange.deep_call(f)
    other.join()
    assert seen[0][0] < sys.getrecursionlimit() < ours[0]


def test_setrecursionlimit_meanwhile_is_kept() -> None:
    before, limit = deep.levels_left(), sys.getrecursionlimit()
    try:
        vrange.deep_call(sys.setrecursionlimit, limit + 500)
        assert sys.getrecursionlimit() == limit + 500
        assert deep.levels_left()[0] == before[0] + 500
    finally:
        sys.setrecursionlimit(limit)
    assert deep.levels_left() == before


def test_runaway_recursion_is_a_recursion_error_and_nothing_more() -> None:
    def forever(n: int) -> int:
        return forever(n + 1)

    @cached_raiser
    def cached_forever(n: int) -> int:
        return cached_forever(n + 1)

    with limits_unchanged():
        for _ in range(3):
            for f in (forever, cached_forever):
                with pytest.raises(RecursionError):
                    vrange.deep_call(f, 0, stack="16MiB")
                gc.collect()
                assert vrange.deep_call(cached_steps(), 5_000, stack="16MiB") == 5_000
    with limits_unchanged(), pytest.raises(RecursionError):
        vrange.deep_call(repr, nested_list(200_000), stack="16MiB")


def test_a_recursion_error_caught_inside_leaves_the_rest_of_the_call_as_deep() -> None:
    def f() -> int:
        with pytest.raises(RecursionError):
            cached_steps()(1_000_000)
        return cached_steps()(9_000)

    with limits_unchanged():
        assert vrange.deep_call(f, stack="16MiB") == 9_000


def test_depth_grows_with_the_stack() -> None:
    def deepest(stack: str) -> int:
        reached = 0

        @cached_raiser
        def f(n: int) -> None:
            nonlocal reached
            reached = n
            f(n + 1)

        with pytest.raises(RecursionError):
            vrange.deep_call(f, 0, stack=stack)
        return reached

    small, large = deepest("4MiB"), deepest("16MiB")
    assert small > 2_500
    assert 3 < large / small < 5


def test_nested_limits_come_back_one_by_one() -> None:
    seen = []

    def innermost() -> None:
        seen.append(deep.levels_left())
        raise ValueError("out of both")

    def middle() -> None:
        before = deep.levels_left()
        with pytest.raises(ValueError, match="out of both"):
            vrange.deep_call(innermost, stack="64MiB")
        assert deep.levels_left() == before
        assert cached_steps()(9_000) == 9_000

    with limits_unchanged():
        vrange.deep_call(middle, stack="16MiB")
    assert len(seen) == 1


def test_deep_inside_deep_goes_on_on_the_same_stack_while_there_is_room() -> None:
    def inner() -> tuple[Any, Any]:
        return vrange.deep_call(deep.here, stack="8MiB"), vrange.deep_call(deep.here, stack="64MiB")

    with limits_unchanged():
        same, larger = vrange.deep_call(inner, stack="16MiB")
    assert same[0] == 16 * MIB
    assert larger[0] == 64 * MIB


def test_without_room_deep_inside_deep_has_one_more_stack_and_no_third() -> None:
    calls_before = vrange.stack_info().deep_calls
    stacks = set()

    @vrange.deep_recursion(stack="4MiB")
    def forever(n: int) -> int:
        where = deep.here()
        if where:
            stacks.add(where[0])
        return [forever(n + 1)][0]

    with limits_unchanged(), pytest.raises(RecursionError):
        forever(0)
    assert stacks == {4 * MIB}
    assert 1 <= vrange.stack_info().deep_calls - calls_before <= 2
