"""Alternate runs of what is compared, so that noise of the machine affects all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def interleaved(contenders: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Return one list of `rounds` results per contender, run as A B C, C B A, A B C …

    The order is reversed each time, because a contender that always ran second would always find
    the machine in the state that the first left.
    """
    results: dict[K, list[T]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            results[name].append(contenders[name]())
    return results


def paired_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the rounds' ratios, which a disturbance of one round moves least."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))
