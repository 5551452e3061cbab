"""Hits on values that lie in ranges: without Python where they can be, and never wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from profiled import functions_called

from vrange import VolatileCache, cached

LARGE = 100_000


def python_calls(call: Any) -> int:
    """How many Python functions it calls, itself included."""
    return len(functions_called(call))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_volatile_array_is_answered_without_python(order: Any) -> None:
    @cached(hot_bytes=0)
    def table(n: int) -> Any:
        return np.full((LARGE, 3), n, order=order)

    for _ in range(2):  # stored; weighed once
        table(7)
    assert python_calls(lambda: table(7)) == 1, "only the lambda"
    value = table(7)
    assert (value == 7).all()
    assert value.flags.c_contiguous == (order == "C")
    assert not value.flags.writeable
    assert table.cache_info().resident_hits == 3


# A cache with a bound ages its uses alone. All others of the process age theirs together.
ALONE = 64 << 20


def test_values_used_alike_do_not_throw_each_other_out() -> None:
    @cached(hot_bytes=LARGE, max_bytes=ALONE)
    def table(n: int) -> Any:
        return np.full(LARGE - 5000, n, np.uint8)

    for n in (1, 2) * 40:
        table(n)
    held = table.cache._core.hot_keys()
    calls = [python_calls(lambda n=n: table(n)) for n in (1, 2) * 40]
    assert max(calls) == 1, "only the lambda"
    assert table.cache._core.hot_keys() == held


def test_the_front_keeps_what_is_used_more() -> None:
    @cached(hot_bytes=LARGE, max_bytes=ALONE)
    def table(n: int) -> Any:
        return np.full(LARGE - 5000, n, np.uint8)

    held = table.cache._core.hot_keys
    for n in [1] * 9 + [2] * 2:  # the second finds the front full
        table(n)
    assert held() == [1]
    calls = [python_calls(lambda: table(2)) for _ in range(100)]
    assert held() == [2]
    assert max(calls) == 1, "only the lambda, also at the exchange"


def test_what_is_lost_is_computed_again_and_counted_as_purged() -> None:
    computed = []

    @cached(hot_bytes=0)
    def table(n: int) -> Any:
        computed.append(n)
        return np.full(LARGE, n)

    table(1)
    table(1)
    table.cache.discard()
    assert (table(1) == 1).all()
    info = table.cache_info()
    assert (computed, info.resident_hits, info.purged, info.misses) == ([1, 1], 1, 1, 1)


class ReplacesItself:
    """Unpickled, it puts another value in its own place first."""

    cache: VolatileCache[str, Any]
    ballast = b"x" * LARGE

    def __reduce__(self) -> Any:
        return _unpickle_replacing, (self.ballast,)


def _unpickle_replacing(ballast: bytes) -> str:
    ReplacesItself.cache["k"] = "new"
    return "old"


def test_replaced_while_it_is_read_the_new_value_is_told() -> None:
    with VolatileCache[str, Any](hot_bytes=0) as cache:
        ReplacesItself.cache = cache
        cache["k"] = ReplacesItself()
        assert cache["k"] == "new"


class NotTwice:
    """Can be unpickled as long as `fails` is not set."""

    fails = False
    ballast = b"x" * LARGE

    def __reduce__(self) -> Any:
        return _unpickle_unless_failing, (self.ballast,)


def _unpickle_unless_failing(ballast: bytes) -> NotTwice:
    if NotTwice.fails:
        raise RuntimeError("not now")
    return NotTwice()


def test_what_can_not_be_unpickled_is_told_once_and_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed = []

    @cached(hot_bytes=0)
    def make() -> NotTwice:
        computed.append(1)
        return NotTwice()

    make()
    assert type(make()) is NotTwice
    monkeypatch.setattr(NotTwice, "fails", True)
    with pytest.warns(RuntimeWarning, match="can't be unpickled") as warned:
        make()
    assert warned[0].filename == __file__, "it points to who asked"
    assert len(computed) == 2


class Interrupted:
    """Ctrl-C comes just while it is unpickled, once."""

    pending = True
    ballast = b"x" * LARGE

    def __reduce__(self) -> Any:
        return _interrupt, (self.ballast,)


def _interrupt(ballast: bytes) -> Interrupted:
    if Interrupted.pending:
        Interrupted.pending = False
        raise KeyboardInterrupt
    return Interrupted()


def test_an_interrupt_while_it_is_read_is_not_kept() -> None:
    @cached(hot_bytes=0)
    def make() -> Interrupted:
        return Interrupted()

    make()
    with pytest.raises(KeyboardInterrupt):
        make()
    assert make.cache_info().misses == 1, "it was not computed again"


def test_unhashable_keys_are_told() -> None:
    @cached
    def f(value: Any) -> Any:
        return value

    with pytest.raises(TypeError, match="unhashable"):
        f([])
    with VolatileCache[Any, Any]() as cache, pytest.raises(TypeError, match="unhashable"):
        cache[[]]


def test_no_value_outlives_clear_and_close() -> None:
    cache = VolatileCache[str, Any](hot_bytes=0)
    cache["k"] = np.zeros(LARGE)
    held = cache["k"]
    cache.clear()
    with pytest.raises(KeyError):
        cache["k"]
    cache["k"] = np.ones(LARGE)
    cache.close()
    with pytest.raises(ValueError, match="closed"):
        cache["k"]
    assert not held.any(), "what somebody holds stays as it was"
