"""The trims of `vrange run`, of which those that do not pay are made less often."""

from __future__ import annotations

import pytest

from vrange.heap import repeated_trim
from vrange.heap.repeated_trim import Sweep


def asked(monkeypatch: pytest.MonkeyPatch, quick_ns: int, given: int) -> list[int]:
    """The allocators that are asked, each of which returns so many bytes."""
    calls: list[int] = []

    def release(number: int) -> int:
        calls.append(number)
        return given

    monkeypatch.setattr(repeated_trim, "_release", release)
    monkeypatch.setattr(repeated_trim, "_QUICK_NS", quick_ns)
    return calls


def test_an_allocator_that_takes_long_and_returns_nothing_is_left_out_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = asked(monkeypatch, 0, 0)
    sweep = Sweep(deep=False)
    allocators = len(sweep.by_source) - 2  # without stacks and arrays
    for _ in range(21):
        sweep.once(True)
    assert len(calls) == 4 * allocators  # the 1st, 3rd, 7th and 15th
    del calls[:]
    sweep.once(False)  # the program is idle: nothing waits
    assert len(calls) == allocators


@pytest.mark.parametrize(("quick_ns", "given"), [(10**15, 0), (0, 1 << 50)], ids=["quick", "much"])
def test_one_that_is_quick_or_returns_much_is_asked_each_time(
    monkeypatch: pytest.MonkeyPatch, quick_ns: int, given: int
) -> None:
    calls = asked(monkeypatch, quick_ns, given)
    sweep = Sweep(deep=False)
    allocators = len(sweep.by_source) - 2  # libraries join them
    for _ in range(5):
        sweep.once(True)
    assert len(calls) == 5 * allocators
